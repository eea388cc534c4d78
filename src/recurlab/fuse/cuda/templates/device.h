#pragma once
#include "constants.h"

// All that kernels use of the GPU, outside any namespace: tests replace it by functions that run on a CPU.
// THREADS is how many threads a block has; launches are one-dimensional.
// A call of what a GPU lacks does not compile for it: multiply_bf16, multiply_tf32, round_tf32 and copy_coherent need
// compute capability 8.0, clusters 9.0.

#define INLINE __device__ __forceinline__
#define DEVICE [[maybe_unused]] static INLINE
#define ENTRY(name) extern "C" __global__ void __launch_bounds__(THREADS, 1) name(const __grid_constant__ Problem p)

DEVICE unsigned thread_index() { return threadIdx.x; }
DEVICE unsigned block_index() { return blockIdx.x; }
DEVICE unsigned block_count() { return gridDim.x; }

// ---- a block ---------------------------------------------------------------------------------------------

// The block's dynamic shared memory.
DEVICE char *shared_memory() {
    extern __shared__ __align__(16) char dynamic_shared_memory[];
    unsigned address = (unsigned)__cvta_generic_to_shared(dynamic_shared_memory);
    asm volatile("" : "+r"(address));  // kept in a register: computing it again is slow on a GPU with clusters
    return (char *)__cvta_shared_to_generic(address);
}

DEVICE void block_barrier() { __syncthreads(); }
DEVICE void warp_barrier() { __syncwarp(); }

// 16 bytes, moved together.
struct alignas(16) Words {
    unsigned w[4];
};

// ---- waits that end --------------------------------------------------------------------------------------

// A wait in vain would hold the GPU for ever: after some seconds it ends the kernel and records where it was. Barriers
// of a block or of a cluster can't do so, since PTX has no way to ask them whether all have arrived.
constexpr long long PATIENCE = 1ll << 33;  // clock cycles

struct FaultRecord {
    unsigned set;  // by the one thread that fills it
    int kernel, steps, batch, units, line;
    unsigned block, seen, wanted;
};
// Where a kernel that waits in vain records it, and how it names itself there.
struct Fault {
    FaultRecord *record;  // in the host's memory: nothing else can be read once a kernel has trapped; or null
    int kernel, steps, batch, units;
};

// Called each time that a wait is not over yet; `since` is 0 before the first time.
DEVICE void be_patient(long long &since, const Fault &fault, unsigned seen, unsigned wanted, int line) {
    const long long now = clock64();
    if (!since) since = now;
    if (now - since < PATIENCE) return;
    FaultRecord *const r = fault.record;
    const bool first = r && !atomicExch_system(&r->set, 1u);
    if (first) {
        r->kernel = fault.kernel, r->steps = fault.steps, r->batch = fault.batch, r->units = fault.units;
        r->line = line, r->block = block_index(), r->seen = seen, r->wanted = wanted;
        __threadfence_system();
    }
    // The other threads leave the first one time to write.
    if (first || !r || now - since > 2 * PATIENCE) __trap();
}

// ---- a cluster of blocks ---------------------------------------------------------------------------------

typedef unsigned cluster_pointer;

DEVICE unsigned cluster_rank() {
    unsigned rank;
    asm("mov.u32 %0, %%cluster_ctarank;" : "=r"(rank));
    return rank;
}

// What any thread of the cluster wrote before it, all of them see after it.
DEVICE void cluster_barrier() {
    asm volatile("barrier.cluster.arrive.release;\n\tbarrier.cluster.wait.acquire;" ::: "memory");
}

// The address, in the shared memory of block `rank` of the cluster, of what is at `mine` in this block's.
DEVICE cluster_pointer in_cluster(const void *mine, unsigned rank) {
    const unsigned here = (unsigned)__cvta_generic_to_shared(mine);
    cluster_pointer there;
    asm("mapa.shared::cluster.u32 %0, %1, %2;" : "=r"(there) : "r"(here), "r"(rank));
    return there;
}

// A counter in shared memory of the bytes that blocks of the cluster send there, one round after the other. A round is
// over when the block has said how many it expects, and all of them have arrived.
typedef unsigned long long Arrivals;

// One thread, once; a cluster_barrier() then lets the others send.
DEVICE void arrivals_start(Arrivals *at) {
    asm volatile("mbarrier.init.shared::cta.b64 [%0], 1;\n\tfence.mbarrier_init.release.cluster;"
        :
        : "r"((unsigned)__cvta_generic_to_shared(at))
        : "memory");
}

// One thread of the block, once a round; some of the bytes may have arrived before.
DEVICE void arrivals_expect(Arrivals *at, unsigned bytes) {
    asm volatile("mbarrier.arrive.expect_tx.release.cta.shared::cta.b64 _, [%0], %1;"
        :
        : "r"((unsigned)__cvta_generic_to_shared(at)), "r"(bytes)
        : "memory");
}

// Stores without waiting, and then counts 16 bytes as arrived; both are in the same block.
DEVICE void cluster_send(cluster_pointer to, Words v, cluster_pointer arrivals) {
    asm volatile("st.async.weak.shared::cluster.mbarrier::complete_tx::bytes.v4.b32 [%0], {%1, %2, %3, %4}, [%5];"
        :
        : "r"(to), "r"(v.w[0]), "r"(v.w[1]), "r"(v.w[2]), "r"(v.w[3]), "r"(arrivals)
        : "memory");
}

// Each thread that reads what has arrived waits for each round in turn: the parity is that of the rounds before it.
// It acquires from the block alone, as only the block's own shared memory is read: from the cluster it would empty L1.
DEVICE void arrivals_await(Arrivals *at, unsigned parity, const Fault &fault, int line = __builtin_LINE()) {
    for (long long since = 0;; be_patient(since, fault, 0, 0, line)) {
        unsigned over;
        asm volatile(
            "{\n\t.reg .pred over;\n\t"
            "mbarrier.try_wait.parity.shared::cta.b64 over, [%1], %2;\n\t"
            "selp.u32 %0, 1, 0, over;\n\t}"
            : "=r"(over)
            : "r"((unsigned)__cvta_generic_to_shared(at)), "r"(parity)
            : "memory");
        if (over) return;
    }
}

// ---- the grid --------------------------------------------------------------------------------------------

DEVICE void store_coherent(Words *to, Words v) {
    asm volatile("st.relaxed.gpu.global.v4.b32 [%0], {%1, %2, %3, %4};"
        :
        : "l"(__cvta_generic_to_global(to)), "r"(v.w[0]), "r"(v.w[1]), "r"(v.w[2]), "r"(v.w[3])
        : "memory");
}

// Copies from L2 to the block's shared memory without waiting. L1 is passed by, since its line may be older than what
// another block has stored. The thread sees the copy after copies_arrived(), others after a block_barrier() behind
// that.
DEVICE void copy_coherent(Words *to, const Words *from) {
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16;"
        :
        : "r"((unsigned)__cvta_generic_to_shared(to)), "l"(__cvta_generic_to_global(from))
        : "memory");
}

DEVICE void copies_arrived() { asm volatile("cp.async.wait_all;" ::: "memory"); }

// One thread adds 1 after a block_barrier(). The release is cumulative: it covers what that barrier has ordered before
// it, the stores of the whole block.
DEVICE void signal(unsigned *counter) {
    asm volatile("red.release.gpu.global.add.u32 [%0], 1;" : : "l"(__cvta_generic_to_global(counter)) : "memory");
}

// One thread waits until the counter has reached the target, modulo 2^32; a block_barrier() then lets the others see
// with copy_coherent() what was stored before the signals.
DEVICE void await(const unsigned *counter, unsigned target, const Fault &fault, int line = __builtin_LINE()) {
    for (long long since = 0;;) {
        unsigned value;
        asm volatile("ld.acquire.gpu.global.u32 %0, [%1];"
            : "=r"(value)
            : "l"(__cvta_generic_to_global(counter))
            : "memory");
        if ((int)(value - target) >= 0) return;
        be_patient(since, fault, value, target, line);
    }
}

// ---- a warp's matrix products ----------------------------------------------------------------------------

// c (16 x 8) += a (16 x k) b (k x 8), spread over 32 threads that arrive together; with g = lane / 4, t = lane % 4:
//   c: (g, 2t), (g, 2t + 1), (g + 8, 2t), (g + 8, 2t + 1)
//   k = 16, a word holds two numbers, the first of them in its low half and the next one of the depth k in the other:
//     a: (g, 2t), (g + 8, 2t), (g, 2t + 8), (g + 8, 2t + 8);  b0: (2t, g);  b1: (2t + 8, g)
//   k = 8, a word holds one number, whose last 13 bits should be 0:
//     a: (g, t), (g + 8, t), (g, t + 4), (g + 8, t + 4);  b0: (t, g);  b1: (t + 4, g)
#define MULTIPLY(kind, a_words, b_words)                                                                   \
    asm volatile("mma.sync.aligned." kind " {%0, %1, %2, %3}, " a_words ", " b_words ", {%0, %1, %2, %3};" \
        : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])                                                   \
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1))

DEVICE void multiply_bf16(float (&c)[4], const unsigned (&a)[4], unsigned b0, unsigned b1) {
    MULTIPLY("m16n8k16.row.col.f32.bf16.bf16.f32", "{%4, %5, %6, %7}", "{%8, %9}");
}

DEVICE void multiply_tf32(float (&c)[4], const unsigned (&a)[4], unsigned b0, unsigned b1) {
    MULTIPLY("m16n8k8.row.col.f32.tf32.tf32.f32", "{%4, %5, %6, %7}", "{%8, %9}");
}

DEVICE void multiply_f16(float (&c)[4], const unsigned (&a)[4], unsigned b0, unsigned b1) {
#if __CUDA_ARCH__ >= 800
    MULTIPLY("m16n8k16.row.col.f32.f16.f16.f32", "{%4, %5, %6, %7}", "{%8, %9}");
#else  // half the depth at a time
    MULTIPLY("m16n8k8.row.col.f32.f16.f16.f32", "{%4, %5}", "{%8}");
    MULTIPLY("m16n8k8.row.col.f32.f16.f16.f32", "{%6, %7}", "{%9}");
#endif
}
#undef MULTIPLY

// ---- order -----------------------------------------------------------------------------------------------

// Returns the word, and waits until it is loaded, before what is written below. `nothing` is 0 without the compiler
// knowing.
DEVICE unsigned loaded(unsigned word, unsigned nothing) {
    asm volatile("xor.b32 %0, %0, %1;" : "+r"(word) : "r"(nothing) : "memory");
    return word;
}

// ---- numbers ---------------------------------------------------------------------------------------------

DEVICE unsigned bits_of(float x) { return __float_as_uint(x); }
DEVICE float float_of(unsigned bits) { return __uint_as_float(bits); }
DEVICE unsigned multiply_high(unsigned a, unsigned b) { return __umulhi(a, b); }

// The conversions to fewer bits round to nearest: halves to even, those of tf32 away from zero. A NaN stays one.
DEVICE unsigned round_tf32(float x) {
    unsigned bits;
    asm("cvt.rna.tf32.f32 %0, %1;" : "=r"(bits) : "f"(x));
    return bits;
}

DEVICE float from_bf16(unsigned short bits) { return float_of((unsigned)bits << 16); }

DEVICE unsigned short to_bf16(float x) {
#if __CUDA_ARCH__ >= 800
    unsigned short bits;
    asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(bits) : "f"(x));
    return bits;
#else
    const unsigned bits = bits_of(x);
    if ((bits & 0x7fffffff) > 0x7f800000) return 0x7fff;
    return (unsigned short)((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
#endif
}

DEVICE float from_f16(unsigned short bits) {
    float x;
    asm("cvt.f32.f16 %0, %1;" : "=f"(x) : "h"(bits));
    return x;
}

DEVICE unsigned short to_f16(float x) {
    unsigned short bits;
    asm("cvt.rn.f16.f32 %0, %1;" : "=h"(bits) : "f"(x));
    return bits;
}

// Within 2 units in the last place; a result or an argument below the normal numbers counts as zero.
DEVICE float exp2_fast(float x) {
    float y;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}

DEVICE float reciprocal_fast(float x) {
    float y;
    asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}
