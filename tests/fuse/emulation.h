// The names of the kernels' device.h on a CPU, for tests; emulation_blocks.h and emulation_numbers.h stand above.

static_assert(THREADS % 32 == 0 && THREADS <= emulation::MOST_THREADS, "a block has whole warps, 32 at most");
namespace emulation {
static const Engine *engine;
static thread_local Block *here;
DEVICE void wait(State state, int line) { engine->wait(state, line); }
DEVICE void stop(const char *format, long a = 0, long b = 0) { engine->stop(format, a, b); }
DEVICE void dawdle(Block &b) { engine->dawdle(b); }
}  // namespace emulation
extern "C" void attach(const emulation::Engine *engine) { emulation::engine = engine; }

// Where a thread waits, so that those that should wait together can be told from others.
#define HERE int line = __builtin_LINE()
// The function returns null, or what went wrong.
#define ENTRY(name)                                                                                                 \
    static void name##_of_thread(const Problem &p);                                                                 \
    extern "C" const char *name(const void *problem, int threads, int blocks, int cluster, int cooperative,         \
                                long shared, unsigned seed, int seconds) {                                          \
        if (threads != THREADS) return "launched with another number of threads than THREADS";                      \
        const auto body = [](const void *problem) {                                                                 \
            emulation::here = emulation::engine->here();                                                            \
            name##_of_thread(*(const Problem *)problem);                                                            \
        };                                                                                                          \
        return emulation::engine->launch(body, problem, threads, blocks, cluster, cooperative, shared, seed,        \
                                         seconds);                                                                  \
    }                                                                                                               \
    static void name##_of_thread(const Problem &p)

DEVICE unsigned thread_index() { return emulation::here->current; }
DEVICE unsigned block_index() { return emulation::here->index; }
DEVICE unsigned block_count() { return emulation::here->launch->blocks; }
DEVICE char *shared_memory() { return emulation::here->shared; }
DEVICE void block_barrier(HERE) { emulation::wait(emulation::AT_BLOCK_BARRIER, line); }
DEVICE void warp_barrier() {}  // what a thread has loaded is there at once

struct alignas(16) Words {
    unsigned w[4];
};
struct Fault {  // as long as that of device.h: what waits in vain is told otherwise here
    void *record;
    int kernel, steps, batch, units;
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
typedef unsigned long long Arrivals;
DEVICE void arrivals_start(Arrivals *at) { emulation::engine->start((char *)at); }
DEVICE void arrivals_expect(Arrivals *at, unsigned bytes) { emulation::engine->expect((char *)at, bytes); }
DEVICE void cluster_send(cluster_pointer to, Words v, cluster_pointer arrivals) {
    emulation::engine->send(to, v.w, arrivals);
}
DEVICE void arrivals_await(Arrivals *at, unsigned parity, const Fault &, HERE) {
    emulation::engine->await((char *)at, parity, line);
}

// ---- the grid --------------------------------------------------------------------------------------------

DEVICE void store_coherent(Words *to, Words v) { emulation::copy(to->w, v.w); }
DEVICE void copy_coherent(Words *to, const Words *from) { emulation::engine->copy(to->w, from->w); }
DEVICE void copies_arrived() { emulation::engine->copies_arrived(); }
DEVICE void signal(unsigned *counter) {
    emulation::Block &b = *emulation::here;
    emulation::dawdle(b);
    emulation::increment(*counter);
    emulation::increment(b.launch->events);
    emulation::dawdle(b);
}
DEVICE void await(const unsigned *counter, unsigned target, const Fault &, HERE) {
    emulation::Thread &t = emulation::here->thread[thread_index()];
    t.counter = counter, t.target = target;
    emulation::dawdle(*emulation::here);
    emulation::wait(emulation::AT_AWAIT, line);
}

// ---- a warp's matrix products ----------------------------------------------------------------------------

namespace emulation {
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
