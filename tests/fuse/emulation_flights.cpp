// Of the engine: what lands late, copies to the block's own shared memory and sends to that of others, and the counters of
// what was sent.

namespace emulation {
static bool reached(const unsigned *counter, unsigned target) {
    return (int)(__atomic_load_n(counter, __ATOMIC_SEQ_CST) - target) >= 0;
}
static bool aligned(const void *at) { return (__UINTPTR_TYPE__)at % 16 == 0; }
static void move(unsigned *to, const unsigned *from) {
    for (int i = 0; i < 4; i++) __atomic_store_n(to + i, __atomic_load_n(from + i, __ATOMIC_RELAXED), __ATOMIC_RELAXED);
}
// The block of the cluster whose shared memory has 16 bytes, or null.
static Block *owner(const char *at) {
    const Launch &launch = *here->launch;
    Block *const first = launch.block + (here->index - launch.first) / launch.cluster * launch.cluster;
    for (Block *b = first; b < first + launch.cluster; b++)
        if (at >= b->shared && at + 16 <= b->shared + launch.shared) return b;
    return nullptr;
}

// ---- counters --------------------------------------------------------------------------------------------

// A round's state: the bytes that are expected less those that have come, and above them whether the former are known.
constexpr unsigned long long KNOWN = 1ull << 32;

static Counter *counter_at(Block &b, const char *at) {
    for (int i = 0; i < look(b.counters); i++)
        if (b.counter[i].at == at) return &b.counter[i];
    return nullptr;
}
static void count(Counter &c, int bytes, unsigned long long announced) {
    unsigned long long before = look(c.now), known, after;
    do {
        const int left = (int)before + bytes;
        if (before & announced) return fail(*here->launch, "arrivals_expect: a second time in a round");
        known = (before & KNOWN) | announced;
        if (known && left < 0) return fail(*here->launch, "cluster_send: more bytes than are expected, by %ld", -left);
        after = known && !left ? 0 : known | (unsigned)left;
    } while (!__atomic_compare_exchange_n(&c.now, &before, after, false, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST));
    if (!after && known) increment(c.rounds);
    increment(here->launch->events);
}
static void start(char *at) {
    Block &b = *here;
    if (owner(at) != &b || (__UINTPTR_TYPE__)at % 8 || counter_at(b, at) || b.counters == MOST_COUNTERS)
        stop("arrivals_start: not in 8 aligned bytes of the block's shared memory, or not once, or of too many");
    b.counter[b.counters].at = at;
    put(b.counters, b.counters + 1);
}
static void expect(char *at, unsigned bytes) {
    Counter *const c = counter_at(*here, at);
    if (!c) stop("arrivals_expect: of what was not started");
    count(*c, bytes, KNOWN);
}
// Each thread waits for all rounds in turn: what it waits for is then known, of which the hardware sees the parity alone.
static void await(char *at, unsigned parity, int line) {
    Counter *const c = counter_at(*here, at);
    if (!c) stop("arrivals_await of line %ld: of what was not started", line);
    const int thread = here->current;
    const unsigned waited = c->waited[thread];
    if (parity != waited % 2) stop("arrivals_await of line %ld: not of round %ld, which is the next one", line, waited);
    Thread &t = here->thread[thread];
    t.counter = &c->rounds, t.target = waited + 1;
    if (thread % 128 == 0) dawdle(*here);  // were it each thread, blocks would do little else
    wait(AT_ARRIVALS, line);
    if (look(c->rounds) - waited > 1) stop("arrivals_await of line %ld: of round %ld, after the one behind it", line, waited);
    c->waited[thread]++;
}

// ---- flights ---------------------------------------------------------------------------------------------

static void fly(const Flight &flight) {
    Block &b = *here;
    Thread &t = b.thread[b.current];
    if (t.flights == t.room) {
        t.room = 2 * t.room + 8;
        t.flight = (Flight *)realloc(t.flight, t.room * sizeof flight);
    }
    t.flight[t.flights++] = flight;
    b.flights++, b.sends += !!flight.counter;
}
static void land(Block &b, Thread &t, int i) {
    const Flight f = t.flight[i];
    t.flight[i] = t.flight[--t.flights];
    b.flights--, b.sends -= !!f.counter;
    if (f.counter && look(owner((const char *)f.to)->over)) return fail(*b.launch, "cluster_send: to a block that has ended");
    move(f.to, f.from ? f.from : f.words);
    if (f.counter) count(*f.counter, -16, 0);
}
// Lands some of what a block has on its way.
static void land_by_chance(Block &b) {
    for (int i = 0; i < b.launch->threads && b.flights; i++)
        for (int k = b.thread[i].flights - 1; k >= 0; k--)
            if (!draw(b, 4)) land(b, b.thread[i], k);
}
static void land_sends(Block &b) {
    for (int i = 0; i < b.launch->threads && b.sends; i++)
        for (int k = b.thread[i].flights - 1; k >= 0; k--)
            if (b.thread[i].flight[k].counter) land(b, b.thread[i], k);
}
static void copy(unsigned *to, const unsigned *from) {
    Block &b = *here;
    if (owner((char *)to) != &b || !aligned(to) || !aligned(from))
        stop("block %ld: thread %ld: copy_coherent not of 16 aligned bytes to the block's shared memory", b.index, b.current);
    Flight flight = {to, {}, from};
    if (b.launch->seed && draw(b, 2)) move(flight.words, from), flight.from = nullptr;  // the hardware may read at once
    fly(flight);
}
static void copies_arrived() {
    Thread &t = here->thread[here->current];
    for (int k = t.flights - 1; k >= 0; k--)
        if (!t.flight[k].counter) land(*here, t, k);
}
static void send(char *to, const unsigned *words, char *arrivals) {
    Block *const b = owner(to);
    if (!b || b != owner(arrivals) || !aligned(to))
        stop("cluster_send: not 16 aligned bytes of shared memory, or another block's counter");
    Counter *const c = counter_at(*b, arrivals);
    if (look(b->over)) stop("cluster_send: to a block that has ended");
    if (!c) stop("cluster_send: counted by what was not started");
    Flight flight = {(unsigned *)to, {}, nullptr, c};
    move(flight.words, words);
    fly(flight);
}
}  // namespace emulation
