// The engine: see emulation_blocks.h; emulation_threads.cpp, emulation_products.cpp and emulation_flights.cpp stand above.

namespace emulation {
constexpr int GUARD_BYTES = 256;
constexpr unsigned BUSY = ~0u;
const char *const NAMES[] = {"work", "multiply of line %d;", "block_barrier of line %d;", "cluster_barrier of line %d;",
                             "await of line %d;", "arrivals_await of line %d;", "its end;"};

// ---- warps -----------------------------------------------------------------------------------------------

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
// Returns a warp that for some turns does not see that what it waits for has come, or -1.
static int sleeper(Block &b) {
    if (b.launch->seed && !b.sleep && !draw(b, 8)) b.sleeper = draw(b, b.launch->threads / 32), b.sleep = draw(b, 32);
    return b.sleep ? b.sleep--, b.sleeper : -1;
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
    if (launch.seed) land_by_chance(b);
    const unsigned seen = look(launch.events);
    int count[STATES] = {};
    bool together = true;
    const int sleeping = sleeper(b);
    for (int i = 0; i < threads; i++) {
        Thread &t = b.thread[i];
        if ((t.state == AT_AWAIT || t.state == AT_ARRIVALS) && i / 32 != sleeping && reached(t.counter, t.target))
            t.state = RUNS;
        count[t.state]++;
        together &= t.line == b.thread->line;
    }
    if (count[RETURNED] == threads && !b.sends) return false;
    const bool barrier = together && count[AT_BLOCK_BARRIER] == threads;
    const bool cluster = together && count[AT_CLUSTER_BARRIER] == threads;
    if (barrier || (cluster && cluster_is_complete(b))) {
        shuffle(b, b.warps, threads / 32), shuffle(b, b.lanes, 32);
        for (int i = 0; i < threads; i++) b.thread[i].state = RUNS;
        count[RUNS] = threads;
    }
    if (count[RUNS]) return put(b.idle, BUSY), true;
    if (sleeping >= 0) return sched_yield(), true;
    if (b.sends) return launch.seed ? land_by_chance(b) : land_sends(b), true;
    if (!cluster && !count[AT_AWAIT] && !count[AT_ARRIVALS]) return report(b, "threads wait apart"), false;
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
    if (!look(b.launch->failed)) {
        if (b.flights) fail(*b.launch, "block %ld: ends with copies that were not waited for", b.index);
        for (int i = 0; i < b.counters; i++)
            if (look(b.counter[i].now)) fail(*b.launch, "block %ld: ends in the middle of a round of arrivals", b.index);
    }
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
        for (int t = 0; t < launch.threads; t++) free(launch.block[i].thread[t].flight);
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
    static const Engine found = {[] { return here; }, wait, stop, dawdle, copy, copies_arrived,
                                 start,               expect, send, await, launch};
    return &found;
}
