// Blocks of CUDA threads on a CPU. A block is a thread of the operating system, and its threads are fibers of that: each
// runs until it waits for others. Warps run one after another, each as far as it can. A seed other than 0 draws the
// order, anew at each barrier, and makes blocks dawdle now and then before and after they meet, so that a barrier that is
// missing shows itself. What a thread copies or sends without waiting lands late: some turns of the scheduler later, or,
// always where the seed is 0, when it is waited for. What waits for ever, or for threads that never come, ends the launch.
//
// Here is what the engine that runs them, emulation_blocks.cpp, and the kernels share.
#pragma GCC optimize("O1")  // to compile a kernel takes longer than to run it
#undef _FORTIFY_SOURCE  // its longjmp refuses to change stacks
#include <pthread.h>
#include <semaphore.h>
#include <setjmp.h>

namespace emulation {
constexpr int MOST_THREADS = 1024, MOST_WARPS = MOST_THREADS / 32, MOST_COUNTERS = 8;  // of a block

enum Kind { BF16, F16, TF32 };
enum State { RUNS, AT_MULTIPLY, AT_BLOCK_BARRIER, AT_CLUSTER_BARRIER, AT_AWAIT, AT_ARRIVALS, RETURNED, STATES };

template <class T> static T look(const T &at) { return __atomic_load_n(&at, __ATOMIC_SEQ_CST); }
template <class T> static void put(T &at, T value) { __atomic_store_n(&at, value, __ATOMIC_SEQ_CST); }
static unsigned increment(unsigned &at) { return __atomic_fetch_add(&at, 1u, __ATOMIC_SEQ_CST); }

// A counter of arrivals in a block's shared memory.
struct Counter {
    char *at;
    unsigned rounds;               // that are over
    unsigned long long now;        // of this round: see `count`
    unsigned waited[MOST_THREADS];  // rounds that each thread has waited for
};
// 16 bytes on their way.
struct Flight {
    unsigned *to, words[4];
    const unsigned *from;  // is read when they land; null: they are in `words`
    Counter *counter;      // of the block that they are sent to; null: a copy
};

struct Thread {
    State state;
    int line;  // of the source, where it waits
    bool begun;
    jmp_buf at;
    char *stack;
    // what it waits with: a multiply's operands, or what await is to see
    Kind kind;
    float *c;
    const unsigned *a;
    unsigned b[2];
    const unsigned *counter;
    unsigned target;
    Flight *flight;  // what it has copied or sent that is still on its way
    int flights, room;
};

struct Launch;
struct Block {
    Launch *launch;
    unsigned index, random;
    int current, warps[MOST_WARPS], lanes[32];  // in the order in which they run
    unsigned idle;  // the launch's `events` at a look that found nothing to do; else BUSY
    unsigned goal;  // of the cluster's arrivals, once this block has arrived
    int sleeper, sleep;  // a warp, and for how many turns
    int flights, sends;  // on their way, from all threads
    Counter counter[MOST_COUNTERS];
    int counters;
    int over;
    char *shared, *stacks;
    jmp_buf scheduler;
    pthread_t system;
    Thread thread[MOST_THREADS];
};

// Blocks that run together.
struct Launch {
    void (*body)(const void *);
    const void *problem;
    int threads, blocks, first, together, cluster;
    long shared;
    unsigned seed, events;  // events: how often a block did what another may wait for
    unsigned *arrivals;     // of each cluster
    Block *block;
    int failing, failed;
    char message[400];
    sem_t ended;
};

// What kernels call: an engine is compiled once for all of them.
struct Engine {
    Block *(*here)();  // that of the calling thread of the operating system
    void (*wait)(State state, int line);  // leaves the thread that runs, until it is resumed
    void (*stop)(const char *format, long a, long b);
    void (*dawdle)(Block &b);
    // what the functions of device.h with these names do
    void (*copy)(unsigned *to, const unsigned *from);
    void (*copies_arrived)();
    void (*start)(char *at);
    void (*expect)(char *at, unsigned bytes);
    void (*send)(char *to, const unsigned *words, char *arrivals);
    void (*await)(char *at, unsigned parity, int line);
    const char *(*launch)(void (*body)(const void *), const void *problem, int threads, int blocks, int cluster,
                          int cooperative, long shared, unsigned seed, int seconds);
};
}  // namespace emulation
