// The names of the kernels' device.h on a CPU, for tests; emulation_blocks.h, which runs the threads, stands above.

#define INLINE inline
#define DEVICE [[maybe_unused]] static INLINE
// Where a thread waits, so that those that should wait together can be told from others.
#define HERE int line = __builtin_LINE()
// The function returns null, or what went wrong.
#define ENTRY(name)                                                                                                 \
    static void name##_of_thread(const Problem &p);                                                                 \
    extern "C" const char *name(const void *problem, int threads, int blocks, int cluster, int cooperative,         \
                                long shared, unsigned seed, int seconds) {                                          \
        const auto body = [](const void *problem) { name##_of_thread(*(const Problem *)problem); };                 \
        return emulation::launch(body, problem, threads, blocks, cluster, cooperative, shared, seed, seconds);      \
    }                                                                                                               \
    static void name##_of_thread(const Problem &p)

DEVICE unsigned thread_index() { return emulation::here->current; }
DEVICE unsigned block_index() { return emulation::here->index; }
DEVICE unsigned block_count() { return emulation::here->launch->blocks; }
DEVICE char *shared_memory() { return emulation::here->shared; }
DEVICE void block_barrier(HERE) { emulation::wait(emulation::AT_BLOCK_BARRIER, line); }

struct alignas(16) Words {
    unsigned w[4];
};
namespace emulation {
DEVICE void copy(unsigned *to, const unsigned *from) {
    if (((__UINTPTR_TYPE__)to | (__UINTPTR_TYPE__)from) % 16)
        stop("block %ld: thread %ld: words not aligned to 16 bytes", block_index(), thread_index());
    for (int i = 0; i < 4; i++) __atomic_store_n(to + i, __atomic_load_n(from + i, __ATOMIC_RELAXED), __ATOMIC_RELAXED);
}
}  // namespace emulation

// ---- a cluster of blocks ---------------------------------------------------------------------------------

typedef char *cluster_pointer;

DEVICE unsigned cluster_rank() { return block_index() % emulation::here->launch->cluster; }
DEVICE void cluster_barrier(HERE) { emulation::wait(emulation::AT_CLUSTER_BARRIER, line); }
DEVICE cluster_pointer in_cluster(const void *mine, unsigned rank) {
    const emulation::Block &b = *emulation::here;
    const emulation::Launch &launch = *b.launch;
    const long place = (const char *)mine - b.shared;
    if (place < 0 || place >= launch.shared || rank >= (unsigned)launch.cluster)
        emulation::stop("in_cluster: place %ld of block %ld's shared memory", place, rank);
    return launch.block[b.index - launch.first - cluster_rank() + rank].shared + place;
}
DEVICE void cluster_store(cluster_pointer to, Words v) {
    const emulation::Block &b = *emulation::here;
    const emulation::Launch &launch = *b.launch;
    bool found = false;
    for (int rank = 0; rank < launch.cluster; rank++) {
        const emulation::Block &other = launch.block[b.index - launch.first - cluster_rank() + rank];
        found |= to >= other.shared && to + sizeof v <= other.shared + launch.shared && !emulation::look(other.over);
    }
    if (!found) emulation::stop("cluster_store: past the shared memory, or to a block that has ended");
    emulation::copy((unsigned *)to, v.w);
}

// ---- the grid --------------------------------------------------------------------------------------------

DEVICE Words load_coherent(const Words *from) {
    Words v;
    emulation::copy(v.w, from->w);
    return v;
}
DEVICE void store_coherent(Words *to, Words v) { emulation::copy(to->w, v.w); }
DEVICE void signal(unsigned *counter) {
    emulation::Block &b = *emulation::here;
    emulation::dawdle(b);
    emulation::increment(*counter);
    emulation::increment(b.launch->events);
    emulation::dawdle(b);
}
DEVICE void await(const unsigned *counter, unsigned target, HERE) {
    emulation::Thread &t = emulation::here->thread[thread_index()];
    t.counter = counter, t.target = target;
    emulation::dawdle(*emulation::here);
    emulation::wait(emulation::AT_AWAIT, line);
}

// ---- numbers ---------------------------------------------------------------------------------------------

// What CUDA has without a header; to read <cmath> would take as long as to compile a small kernel.
extern "C" {
float fabsf(float), rintf(float), floorf(float), ceilf(float), truncf(float), copysignf(float, float), sqrtf(float);
float expf(float), exp2f(float), expm1f(float), logf(float), log1pf(float), sinf(float), cosf(float), erff(float);
float powf(float, float);
}
DEVICE unsigned bits_of(float x) {
    unsigned bits;
    return __builtin_memcpy(&bits, &x, 4), bits;
}
DEVICE float float_of(unsigned bits) {
    float x;
    return __builtin_memcpy(&x, &bits, 4), x;
}
DEVICE unsigned multiply_high(unsigned a, unsigned b) { return (unsigned long long)a * b >> 32; }
DEVICE float exp2_fast(float x) { return ::exp2f(x); }
DEVICE float reciprocal_fast(float x) { return 1 / x; }

DEVICE unsigned round_tf32(float x) {
    const unsigned bits = bits_of(x);
    if ((bits & 0x7fffffff) > 0x7f800000) return 0x7fffe000;
    return (bits + 0x1000) & ~0x1fffu;
}
DEVICE float from_bf16(unsigned short bits) { return float_of((unsigned)bits << 16); }
DEVICE unsigned short to_bf16(float x) {
    const unsigned bits = bits_of(x);
    if ((bits & 0x7fffffff) > 0x7f800000) return 0x7fff;
    return (bits + 0x7fff + (bits >> 16 & 1)) >> 16;
}
DEVICE float from_f16(unsigned short bits) {
    const unsigned size = bits & 0x7fff, sign = (unsigned)(bits & 0x8000) << 16;
    if (size >= 0x7c00) return float_of(sign | 0x7f800000 | (size & 0x3ff) << 13);
    // The exponents differ by 112; the product is right for numbers below the normal ones too.
    return float_of(sign | bits_of(float_of(size << 13) * 0x1p112f));
}
DEVICE unsigned short to_f16(float x) {
    const unsigned bits = bits_of(x), size = bits & 0x7fffffff, sign = bits >> 16 & 0x8000;
    if (size > 0x7f800000) return 0x7fff;
    if (size >= bits_of(65520.0f)) return sign | 0x7c00;
    // Below the normal numbers, 0.5 has its last digit where theirs is.
    if (size < bits_of(0x1p-14f)) return sign | (bits_of(float_of(size) + 0.5f) - bits_of(0.5f));
    return sign | (size - (112u << 23) + 0xfff + (size >> 13 & 1)) >> 13;
}

// ---- a warp's matrix products ----------------------------------------------------------------------------

namespace emulation {
DEVICE float operand(Kind kind, unsigned word, int half) {
    const unsigned short bits = word >> 16 * half;
    return kind == TF32 ? float_of(word & ~0x1fffu) : kind == BF16 ? from_bf16(bits) : from_f16(bits);
}
// The threads of the warp hold the fragments of the matrices that PTX gives them.
static void multiply(Thread *lane) {
    const Kind kind = lane->kind;
    const int packed = kind == TF32 ? 1 : 2, depth = 8 * packed;
    float a[16][16], b[16][8];
    for (int i = 0; i < 32; i++)
        for (int half = 0; half < packed; half++) {
            const int group = i / 4, place = i % 4 * packed + half;
            for (int r = 0; r < 4; r++)
                a[group + r % 2 * 8][place + r / 2 * (depth / 2)] = operand(kind, lane[i].a[r], half);
            for (int r = 0; r < 2; r++) b[place + r * (depth / 2)][group] = operand(kind, lane[i].b[r], half);
        }
    for (int i = 0; i < 32; i++)
        for (int r = 0; r < 4; r++) {
            double sum = lane[i].c[r];
            for (int k = 0; k < depth; k++) sum += (double)a[i / 4 + r / 2 * 8][k] * b[k][i % 4 * 2 + r % 2];
            lane[i].c[r] = (float)sum;
        }
}
DEVICE void wait_to_multiply(Kind kind, float *c, const unsigned *a, unsigned b0, unsigned b1, int line) {
    Thread &t = here->thread[thread_index()];
    t.kind = kind, t.c = c, t.a = a, t.b[0] = b0, t.b[1] = b1;
    wait(AT_MULTIPLY, line);
}
}  // namespace emulation

DEVICE void multiply_bf16(float (&c)[4], const unsigned (&a)[4], unsigned b0, unsigned b1, HERE) {
    emulation::wait_to_multiply(emulation::BF16, c, a, b0, b1, line);
}
DEVICE void multiply_f16(float (&c)[4], const unsigned (&a)[4], unsigned b0, unsigned b1, HERE) {
    emulation::wait_to_multiply(emulation::F16, c, a, b0, b1, line);
}
DEVICE void multiply_tf32(float (&c)[4], const unsigned (&a)[4], unsigned b0, unsigned b1, HERE) {
    emulation::wait_to_multiply(emulation::TF32, c, a, b0, b1, line);
}
#undef HERE
