// Of the engine: chance, and threads as fibers. See emulation_blocks.h, which stands above.
#include <errno.h>
#include <sched.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <ucontext.h>

namespace emulation {
constexpr long STACK_BYTES = 1 << 17;

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
}  // namespace emulation
