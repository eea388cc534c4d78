#pragma once
#include "problem.h"
#include "../../templates/stages.h"

// The dense and the block recurrence: one launch runs the whole sequence. A team of TEAM blocks takes up to SAMPLES
// samples of one head and direction through time. Each of its blocks keeps the recurrent weights of UNITS units in
// registers and shared memory, and computes these units; between two phases of a step the blocks exchange what enters
// the next product.
// Compile-time constants: HIDDEN, the units of a layer; WIDTH, those of a head; TEAM, UNITS, SAMPLES; CHUNK, the
// samples multiplied at a time; WARPS_M, the warps that share the rows of the weights (the others share the depth of
// the product); and, in dense_product.h and dense_exchange.h, HELD, PRODUCT and CLUSTERED.
constexpr int PADDED = TEAM * UNITS, CHUNKS = SAMPLES / CHUNK, WARPS_K = THREADS / 32 / WARPS_M;
constexpr int PER_WORD = 4 / sizeof(Store), PER_PIECE = 4 * PER_WORD;  // numbers in 4 and in 16 bytes
constexpr int SHARE = (CHUNK * UNITS + THREADS - 1) / THREADS;         // elements of a chunk that a thread computes
static_assert(SAMPLES % CHUNK == 0 && CHUNK % 8 == 0 && THREADS % UNITS == 0 && UNITS % PER_PIECE == 0, "");

constexpr int gates_in(int k) { return Step::START[k + 1] - Step::START[k]; }
constexpr int larger(int a, int b) { return a > b ? a : b; }

// The product of one phase: ROWS of weights in a block, each DEPTH numbers long.
template <int ROWS, int DEPTH> struct Product {
    static constexpr int TILES = (ROWS + 15) / 16, TILES_OF_WARP = (TILES + WARPS_M - 1) / WARPS_M;
    // A group is 16 words deep: two tiles of the tensor cores, and 16 bytes for each of the four lanes of a row.
    static constexpr int GROUPS = (DEPTH + 16 * PER_WORD - 1) / (16 * PER_WORD);
    static constexpr int GROUPS_OF_WARP = (GROUPS + WARPS_K - 1) / WARPS_K, ALL_GROUPS = GROUPS_OF_WARP * WARPS_K;
    // Words of a row of what enters, and floats of a row of sums: so many that no bank of shared memory is read twice
    // at once.
    static constexpr int STRIDE = (ALL_GROUPS + (ALL_GROUPS + 1) % 2) * 16, SUMS = TILES * 16 + 4;
};

// Sizes of the block's shared memory over all phases; specialised by the forward and the backward.
template <template <int> class ProductOf, int K = 0> struct Largest {
    static constexpr int stride = larger(ProductOf<K>::STRIDE, Largest<ProductOf, K + 1>::stride);
    static constexpr int sums = larger(ProductOf<K>::SUMS, Largest<ProductOf, K + 1>::sums);
    static constexpr int gates = larger(gates_in(K), Largest<ProductOf, K + 1>::gates);
};
template <template <int> class ProductOf> struct Largest<ProductOf, PHASES> {
    static constexpr int stride = 0, sums = 0, gates = 0;
};

// A block and its work.
struct Team {
    const Problem &p;
    const Direction *d;
    int direction, rank, thread, live;  // live: samples of this team
    long team, first, unit;             // its first sample; the first unit of its head
    unsigned *full;                     // what enters a product: SAMPLES rows
    Store *slice;                       // this block's part of it: SAMPLES rows of gates * UNITS
    float *sums;                        // of the warps that share the depth
    Words *rest;                        // this thread's weights that are not in registers
    Arrivals *arrivals;                 // of what is on its way into each buffer of `full`
    Words *exchange;                    // the team's buffers in the L2 cache, one after the other
    long exchange_size;                 // pieces of 16 bytes of one of them
    unsigned *counter;                  // of the team's blocks that have stored there
    unsigned full_size;                 // words of one buffer of `full`
    unsigned rounds, turn;              // exchanges and products so far
};
DEVICE bool take(Team &team, long item) {
    const Problem &p = team.p;
    const long groups = (p.batch + SAMPLES - 1) / SAMPLES, heads = HIDDEN / WIDTH;
    if (item >= groups * heads * p.directions) return false;
    const long left = p.batch - item % groups * SAMPLES;
    team.first = item % groups * SAMPLES;
    team.unit = item / groups % heads * WIDTH;
    team.direction = item / groups / heads;
    team.d = &p.direction[team.direction];
    team.live = left < SAMPLES ? left : SAMPLES;
    return true;
}

// An element that a thread computes: the thread's unit, in one of its samples.
struct Element {
    int n;                                              // of the sample, in the team
    long b, j;                                          // sample and unit
    bool live;                                          // neither is padding
    INLINE long row() const { return b * HIDDEN + j; }  // its index in a (B, H)
};
DEVICE int own_unit(const Team &team) { return team.thread % UNITS; }
DEVICE Element element_of(const Team &team, int chunk, int e) {
    const int local = team.thread + e * THREADS, n = chunk * CHUNK + local / UNITS;
    const int unit = team.rank * UNITS + own_unit(team);
    return {n, team.first + n, team.unit + unit, local < CHUNK * UNITS && n < team.live && unit < WIDTH};
}
// Calls f(index, element) for the live elements of a chunk; a thread keeps what it knows of an element under its index.
template <class F> DEVICE void each_element(const Team &team, int chunk, const F &f) {
#pragma unroll
    for (int e = 0; e < SHARE; e++) {
        const Element at = element_of(team, chunk, e);
        if (at.live) f(chunk * SHARE + e, at);
    }
}
template <class F> DEVICE void each_element(const Team &team, const F &f) {
#pragma unroll
    for (int chunk = 0; chunk < CHUNKS; chunk++) each_element(team, chunk, f);
}

// Waits for what has been fetched, for dead elements too: otherwise the compiler makes the next fetch wait for it.
// `first` returns the first number that was fetched for an element, by the element's index.
template <class F> DEVICE void await_fetched(const Team &team, const F &first) {
#pragma unroll
    for (int index = 0; index < CHUNKS * SHARE; index++) {
        Store &x = first(index);
        x = store_in(loaded(word_in(x), nothing_in(team.p)));
    }
}

template <int STRIDE, int SUMS, int GATES> DEVICE Team team_of(const Problem &p) {
    Team team{p};
    constexpr int buffers = CLUSTERED ? 2 : 1;
    team.rank = block_index() % TEAM;
    team.team = block_index() / TEAM;
    team.thread = thread_index();
    team.exchange_size = p.exchange_size;
    team.exchange = p.exchange + team.team * 2 * p.exchange_size;
    team.counter = p.counters + team.team;
    team.arrivals = (Arrivals *)shared_memory();
    team.full = (unsigned *)((Words *)shared_memory() + 1);
    team.full_size = SAMPLES * STRIDE;
    team.sums = (float *)(team.full + buffers * team.full_size);
    team.slice = (Store *)(team.sums + 2 * WARPS_K * CHUNK * SUMS);
    team.rest = (Words *)(team.slice + SAMPLES * GATES * UNITS) + team.thread;
    // Padding is never written but multiplied with weights of 0, so it must not be NaN.
    for (int i = team.thread; i < buffers * team.full_size; i += THREADS) team.full[i] = 0;
    for (int i = team.thread; i < SAMPLES * GATES * UNITS; i += THREADS) team.slice[i] = write(0);
    if (CLUSTERED && TEAM > 1) {
        if (team.thread < buffers) arrivals_start(team.arrivals + team.thread);
        cluster_barrier();
    } else block_barrier();
    return team;
}
