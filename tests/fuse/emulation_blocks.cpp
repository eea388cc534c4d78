// The engine: see emulation_blocks.h, which stands above, and emulation_numbers.h.
#include <errno.h>
#include <sched.h>
#include <sys/mman.h>
#include <ucontext.h>

namespace emulation {
constexpr int GUARD_BYTES = 256;
constexpr long STACK_BYTES = 1 << 17;
constexpr unsigned BUSY = ~0u;
const char *const NAMES[] = {"work", "multiply of line %d;", "block_barrier of line %d;", "cluster_barrier of line %d;",
                             "await of line %d;", "its end;"};

static thread_local Block *here;

static void fail(Launch &launch, const char *format, long a = 0, long b = 0) {
    if (__atomic_exchange_n(&launch.failing, 1, __ATOMIC_SEQ_CST)) return;
    __builtin_snprintf(launch.message, sizeof launch.message, format, a, b);
    put(launch.failed, 1);
}

// ---- chance ----------------------------------------------------------------------------------------------

static unsigned draw(Block &b, unsigned below) {
    b.random ^= b.random << 13, b.random ^= b.random >> 17, b.random ^= b.random << 5;
    return b.random % below;
}
static void dawdle(Block &b) {
    if (b.launch->seed == 0 || draw(b, 4)) return;
    const timespec time = {0, (long)draw(b, 100000)};
    nanosleep(&time, nullptr);
}
static void shuffle(Block &b, int *order, int n) {
    for (int i = n - 1; i > 0 && b.launch->seed; i--) {
        const int other = draw(b, i + 1), kept = order[i];
        order[i] = order[other], order[other] = kept;
    }
}

// ---- fibers ----------------------------------------------------------------------------------------------

// Leaves the thread that runs, until the scheduler resumes it.
__attribute__((noinline)) static void wait(State state, int line) {
    Thread &t = here->thread[here->current];
    t.state = state, t.line = line;
    if (!_setjmp(t.at)) _longjmp(here->scheduler, 1);
}
static void stop(const char *format, long a = 0, long b = 0) {
    fail(*here->launch, format, a, b);
    wait(RETURNED, 0);
}
static void begin() {
    here->launch->body(here->launch->problem);
    wait(RETURNED, 0);
}
__attribute__((noinline)) static void resume(Block &b, int index) {
    Thread &t = b.thread[index];
    b.current = index;
    if (_setjmp(b.scheduler)) return;
    if (t.begun) _longjmp(t.at, 1);
    t.begun = true;
    ucontext_t context;
    getcontext(&context);
    context.uc_stack.ss_sp = t.stack, context.uc_stack.ss_size = STACK_BYTES, context.uc_link = nullptr;
    makecontext(&context, begin, 0);
    setcontext(&context);
}

// ---- warps -----------------------------------------------------------------------------------------------

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
static bool multiplies(const Thread *lane) {
    for (int i = 0; i < 32; i++)
        if (lane[i].state != AT_MULTIPLY || lane[i].line != lane->line || lane[i].kind != lane->kind) return false;
    return true;
}
static void run_warp(Block &b, int warp) {
    Thread *const lane = b.thread + 32 * warp;
    for (bool ran = true; ran && !look(b.launch->failed);) {
        ran = false;
        for (int i : b.lanes) {
            if (lane[i].state != RUNS) continue;
            resume(b, 32 * warp + i);
            ran = true;
            if (*(const long *)lane[i].stack)
                fail(*b.launch, "block %ld: thread %ld: stack overflow", b.index, b.current);
        }
        if (!multiplies(lane)) continue;
        multiply(lane);
        for (int i = 0; i < 32; i++) lane[i].state = RUNS;
        ran = true;
    }
}

// ---- blocks ----------------------------------------------------------------------------------------------

static bool reached(const unsigned *counter, unsigned target) {
    return (int)(__atomic_load_n(counter, __ATOMIC_SEQ_CST) - target) >= 0;
}
// Whether all blocks of the cluster have come to their barrier, as this one has.
static bool cluster_is_complete(Block &b) {
    Launch &launch = *b.launch;
    unsigned &arrivals = launch.arrivals[(b.index - launch.first) / launch.cluster];
    if (!b.goal) {
        dawdle(b);
        b.goal = (increment(arrivals) / launch.cluster + 1) * launch.cluster;
        increment(launch.events);
    }
    if (!reached(&arrivals, b.goal)) return false;
    b.goal = 0;
    dawdle(b);
    return true;
}
// Says how many threads wait where.
static void report(Block &b, const char *what) {
    char format[400];
    int used = __builtin_snprintf(format, sizeof format, "block %%ld: %s:", what);
    for (int i = 0; i < b.launch->threads && used < 300; i++) {
        const Thread &t = b.thread[i];
        int alike = 0, first = i;
        for (int k = b.launch->threads - 1; k >= 0; k--)
            if (b.thread[k].state == t.state && b.thread[k].line == t.line) alike++, first = k;
        if (first != i) continue;
        used += __builtin_snprintf(format + used, sizeof format - used, " %d from thread %d on at ", alike, i);
        used += __builtin_snprintf(format + used, sizeof format - used, NAMES[t.state], t.line);
    }
    fail(*b.launch, format, b.index);
}
// When no thread of a block can go on by itself: sees whether they can together, or waits for other blocks.
// Returns whether there is more to run.
static bool settle(Block &b) {
    Launch &launch = *b.launch;
    const int threads = launch.threads;
    if (look(launch.failed)) return false;
    const unsigned seen = look(launch.events);
    int count[STATES] = {};
    bool together = true;
    for (int i = 0; i < threads; i++) {
        Thread &t = b.thread[i];
        if (t.state == AT_AWAIT && reached(t.counter, t.target)) t.state = RUNS;
        count[t.state]++;
        together &= t.line == b.thread->line;
    }
    if (count[RETURNED] == threads) return false;
    const bool barrier = together && count[AT_BLOCK_BARRIER] == threads;
    const bool cluster = together && count[AT_CLUSTER_BARRIER] == threads;
    if (barrier || (cluster && cluster_is_complete(b))) {
        shuffle(b, b.warps, threads / 32), shuffle(b, b.lanes, 32);
        for (int i = 0; i < threads; i++) b.thread[i].state = RUNS;
        count[RUNS] = threads;
    }
    if (count[RUNS]) return put(b.idle, BUSY), true;
    if (!cluster && !count[AT_AWAIT]) return report(b, "threads wait apart"), false;
    put(b.idle, look(launch.events) == seen ? seen : BUSY);
    bool dead = true;
    for (int i = 0; i < launch.together; i++) dead &= look(launch.block[i].over) || look(launch.block[i].idle) == seen;
    if (dead && look(launch.events) == seen) return report(b, "deadlock"), false;
    sched_yield();
    return true;
}
static void *run_block(void *argument) {
    Block &b = *(Block *)argument;
    here = &b;
    const int threads = b.launch->threads;
    for (int i = 0; i < threads / 32; i++) b.warps[i] = i;
    for (int i = 0; i < 32; i++) b.lanes[i] = i;
    shuffle(b, b.warps, threads / 32), shuffle(b, b.lanes, 32);
    dawdle(b);
    __builtin_memset(b.shared, 0xff, b.launch->shared);  // NaNs
    while (settle(b))
        for (int i = 0; i < threads / 32; i++) run_warp(b, b.warps[i]);
    for (int i = 0; i < GUARD_BYTES; i++)
        if (b.shared[b.launch->shared + i]) fail(*b.launch, "block %ld: wrote past its shared memory", b.index);
    put(b.over, 1);
    increment(b.launch->events);
    sem_post(&b.launch->ended);
    return nullptr;
}

// ---- launches --------------------------------------------------------------------------------------------

static char *memory(long size) {
    void *const at = mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (at == MAP_FAILED) __builtin_abort();
    return (char *)at;
}
static bool ends(Launch &launch, const timespec &deadline) {
    for (int i = 0; i < launch.together; i++)
        while (sem_timedwait(&launch.ended, &deadline))
            if (errno == ETIMEDOUT) return false;
    return true;
}
// Runs blocks together to their end. Returns whether all is well; a launch that is not stays in memory.
static bool run(Launch &launch, timespec deadline) {
    const long shared = launch.shared + GUARD_BYTES + 16;
    sem_init(&launch.ended, 0, 0);
    for (int i = 0; i < launch.together; i++) {
        Block &b = launch.block[i];
        b.launch = &launch, b.index = launch.first + i, b.idle = BUSY;
        b.random = (launch.seed + 1) * 2654435761u ^ (b.index + 1) * 2246822519u;
        if (!b.random) b.random = 1;
        b.shared = memory(shared) + 16;  // aligned as on a GPU, no better
        b.stacks = memory((launch.threads + 1) * STACK_BYTES);  // one more below, for what overflows
        for (int t = 0; t < launch.threads; t++) b.thread[t].stack = b.stacks + (t + 1) * STACK_BYTES;
    }
    for (int i = 0; i < launch.together; i++)
        if (pthread_create(&launch.block[i].system, nullptr, run_block, &launch.block[i])) __builtin_abort();
    if (!ends(launch, deadline)) {
        fail(launch, "not at an end in time");
        return false;  // a thread in a loop can't be stopped
    }
    for (int i = 0; i < launch.together; i++) {
        pthread_join(launch.block[i].system, nullptr);
        munmap(launch.block[i].shared - 16, shared), munmap(launch.block[i].stacks, (launch.threads + 1) * STACK_BYTES);
    }
    return !launch.failed;
}
// Returns null, or what went wrong.
static const char *launch(void (*body)(const void *), const void *problem, int threads, int blocks, int cluster,
                          int cooperative, long shared, unsigned seed, int seconds) {
    timespec deadline;
    clock_gettime(CLOCK_REALTIME, &deadline);
    deadline.tv_sec += seconds;
    // No block may count on another one that is neither in its cluster nor launched cooperatively.
    const int together = cooperative ? blocks : cluster;
    for (int wave = 0; wave < blocks; wave += together) {
        Launch *const l = (Launch *)memory(sizeof(Launch));
        const long arrivals = (together / cluster) * sizeof(unsigned), all = together * sizeof(Block);
        *l = {body, problem, threads, blocks, seed % 2 ? blocks - together - wave : wave, together, cluster, shared, seed};
        l->arrivals = (unsigned *)memory(arrivals), l->block = (Block *)memory(all);
        if (!run(*l, deadline)) return l->message;
        munmap(l->arrivals, arrivals), munmap(l->block, all), munmap(l, sizeof(Launch));
    }
    return nullptr;
}
}  // namespace emulation

extern "C" const emulation::Engine *engine() {
    using namespace emulation;
    static const Engine found = {[] { return here; }, wait, stop, dawdle, launch};
    return &found;
}
