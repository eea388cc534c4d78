#pragma once
#include "problem.h"
#include "../../templates/rows.h"

// All recurrences in a layer with layer normalisation, whose moments are those of all units of a sample: a team of TEAM
// blocks takes SAMPLES samples of one direction with all their units through the whole sequence, UNITS in each block. A
// step runs in turns; in each, what enters a phase is computed for all units, then its results, and of these the
// moments, which the next turn needs. Where there are several blocks they exchange both in the L2 cache.
// Compile-time constants: HIDDEN, the units of a layer; WIDTH, those of a head; DIAGONAL; TEAM, UNITS, SAMPLES;
// OF_UNIT, the threads that share the product of a unit, of which the first one computes all else of it; and, of the
// normalisation, CENTERED, BY_GATE and INPUT_ALONE.
constexpr int R = Step::RECURRENT, PADDED = TEAM * UNITS;
constexpr int ROW = THREADS / OF_UNIT, SHARE = (UNITS + ROW - 1) / ROW;  // threads that compute units; units of each
constexpr int DEPTH = (WIDTH + OF_UNIT - 1) / OF_UNIT;                     // of a thread's part of a product
constexpr int PARTS = 32;              // into which the threads' numbers are added up at first
constexpr int MOST = BY_GATE ? G : 1;  // rows that are normalised at once
constexpr int gates_in(int k) { return Step::START[k + 1] - Step::START[k]; }
constexpr int most_gates(int k = 0) {
    return k == PHASES ? 0 : gates_in(k) > most_gates(k + 1) ? gates_in(k) : most_gates(k + 1);
}
static_assert(OF_UNIT == 1 || SHARE == 1, "");
static_assert(TEAM == 1 || UNITS % 4 == 0, "blocks exchange pieces of 16 bytes");

// The numbers of a unit, one for each sample.
struct alignas(SAMPLES * sizeof(float)) Numbers {
    float of[SAMPLES];
};

// A block and its work. `joined` and `entering` are filled by all blocks of a team.
struct Block {
    const Problem &p;
    const Direction *d;
    int direction, rank, thread, live;  // live: samples
    long team, group, first;            // the group of samples, the first of them
    float *joined, *added, *parts;      // sums of each block; a number of each thread, and those added up in part
    Numbers *entering, *products;       // what enters a product, PADDED for each gate; parts of products
    Words *exchange;                    // the team's buffers in the L2 cache, one after the other
    unsigned rounds;                    // exchanges so far
};
// SUMS: what is added up at once; GATES: those whose numbers enter a product at once.
template <int SUMS, int GATES> DEVICE Block block_of(const Problem &p) {
    Block block{p};
    block.rank = block_index() % TEAM;
    block.team = block_index() / TEAM;
    block.thread = thread_index();
    block.joined = (float *)shared_memory();
    block.added = block.joined + TEAM * ((SUMS + 3) / 4 * 4);
    block.parts = block.added + SUMS * ROW;
    block.entering = (Numbers *)(block.parts + SUMS * PARTS);
    block.products = block.entering + GATES * PADDED;
    block.exchange = p.exchange + block.team * 2 * p.exchange_size;
    block.rounds = 0;
    return block;
}
DEVICE bool take(Block &block, long item) {
    const Problem &p = block.p;
    const long groups = (p.batch + SAMPLES - 1) / SAMPLES;
    if (item >= groups * p.directions) return false;
    block.group = item % groups;
    block.first = block.group * SAMPLES;
    block.direction = item / groups;
    block.d = &p.direction[block.direction];
    block.live = p.batch - block.first < SAMPLES ? p.batch - block.first : SAMPLES;
    return true;
}

// Calls f(share, unit) for the units that the thread computes, and f(element, sample of the block, sample, unit) for
// what it keeps of each of their elements.
template <class F> DEVICE void each_unit(const Block &block, const F &f) {
#pragma unroll
    for (int e = 0; e < SHARE; e++) {
        const int local = block.thread + e * ROW, j = block.rank * UNITS + local;
        if ((OF_UNIT == 1 || block.thread < ROW) && local < UNITS && j < HIDDEN) f(e, j);
    }
}
template <class Element, class F>
DEVICE void each_element(const Block &block, Element (&elements)[SHARE][SAMPLES], const F &f) {
    each_unit(block, [&](int e, long j) {
#pragma unroll
        for (int m = 0; m < SAMPLES; m++)
            if (m < block.live) f(elements[e][m], m, block.first + m, j);
    });
}

// Fills `whole`, some rows of a part of OWN numbers for each block, with the parts of the other blocks. The two buffers
// are used in turn: before a block stores into one again, the others have signalled that they have copied from it.
template <int OWN> DEVICE void gather(Block &block, float *whole, int rows) {
    block_barrier();  // the own part is complete
    if constexpr (TEAM > 1) {
        constexpr int PIECES = OWN / 4;
        Words *const here = (Words *)whole, *const there = block.exchange + block.rounds % 2 * block.p.exchange_size;
        unsigned *const counter = block.p.counters + block.team;
        for (int i = block.thread; i < rows * PIECES; i += THREADS) {
            const int at = (i / PIECES * TEAM + block.rank) * PIECES + i % PIECES;
            store_coherent(there + at, here[at]);
        }
        block.rounds++;
        block_barrier();  // all have stored
        if (block.thread == 0) signal(counter);
        if (block.thread == 0) await(counter, block.rounds * TEAM, block.p.fault);
        block_barrier();
        for (int i = block.thread; i < rows * TEAM * PIECES; i += THREADS) copy_coherent(here + i, there + i);
        copies_arrived();
        block_barrier();
    }
}

// Replaces each number by the sum of those of all threads of the block, in an order that is always the same.
template <int COUNT> DEVICE void add_up(Block &block, float (&sum)[COUNT][SAMPLES]) {
#pragma unroll
    for (int i = 0; i < COUNT * SAMPLES; i++)
        if (OF_UNIT == 1 || block.thread < ROW) block.added[i * ROW + block.thread] = sum[i / SAMPLES][i % SAMPLES];
    block_barrier();
    for (int i = block.thread; i < COUNT * SAMPLES * PARTS; i += THREADS) {
        float part = 0;
        for (int k = i % PARTS; k < ROW; k += PARTS) part += block.added[i / PARTS * ROW + k];
        block.parts[i] = part;
    }
    block_barrier();  // one is enough before the next sums, whose parts are written after another
#pragma unroll
    for (int i = 0; i < COUNT * SAMPLES; i++) {
        float total = 0;
#pragma unroll
        for (int k = 0; k < PARTS; k++) total += block.parts[i * PARTS + k];
        sum[i / SAMPLES][i % SAMPLES] = total;
    }
}

// Shares a block's sums, which have just been added up, with its team; of(rank, row, sample) then tells those of each.
template <int COUNT> struct Joined {
    static constexpr int OWN = (COUNT * SAMPLES + 3) / 4 * 4;
    const float *whole;
    INLINE float of(int rank, int row, int m) const { return whole[rank * OWN + row * SAMPLES + m]; }
};
template <int COUNT> DEVICE Joined<COUNT> join(Block &block, const float (&sum)[COUNT][SAMPLES]) {
    constexpr int OWN = Joined<COUNT>::OWN;
    if (block.thread == 0)
#pragma unroll
        for (int i = 0; i < COUNT * SAMPLES; i++) block.joined[block.rank * OWN + i] = sum[i / SAMPLES][i % SAMPLES];
    gather<OWN>(block, block.joined, 1);
    return {block.joined};
}

// What is normalised: the input, or the results of phase K. TOGETHER gates make a row.
struct Input {
    static constexpr int COUNT = G, TOGETHER = BY_GATE ? 1 : COUNT, ROWS_OF = COUNT / TOGETHER;
    static constexpr bool NORMAL = true;
    static constexpr int gate(int i) { return i; }
    static constexpr int row(int i) { return input_row(gate(i * TOGETHER)); }
    static INLINE const float *gain(const Direction &d) { return d.gain_ih; }
    static INLINE const float *bias(const Direction &d) { return d.bias_ih; }
    template <class Element> static INLINE float &number(Element &own, int i) { return own.x[gate(i)]; }
};
template <int K> struct Results {
    static constexpr int COUNT = gates_in(K), TOGETHER = BY_GATE ? 1 : COUNT, ROWS_OF = COUNT / TOGETHER;
    static constexpr bool NORMAL = !INPUT_ALONE;
    static constexpr int gate(int i) { return Step::SLOTS[Step::START[K] + i]; }
    static constexpr int row(int i) { return result_row(gate(i * TOGETHER)); }
    static INLINE const float *gain(const Direction &d) { return d.gain_hh; }
    static INLINE const float *bias(const Direction &d) { return d.bias_hh; }
    template <class Element> static INLINE float &number(Element &own, int i) { return own.recur[gate(i)]; }
};

// A number that has been normalised, with its gain and its bias.
template <class What> DEVICE float scaled(const Direction &d, float normal, int i, long j) {
    const long at = What::gate(i) * HIDDEN + j;
    return (What::NORMAL ? normal * What::gain(d)[at] : normal) + (What::bias(d) ? What::bias(d)[at] : 0);
}

// Of a gate, what has entered its product, times the weights between it and unit j, is added to the sums of the
// samples: a part of the terms. Threads side by side read numbers side by side.
DEVICE void add_product(const Block &block, const Numbers *entering, int gate, long j, Numbers &sum) {
    const long head = j / WIDTH * WIDTH;
    const float *const weight = block.d->weight + (gate * HIDDEN + head) * WIDTH + j - head;
    const int from = block.thread / ROW * DEPTH, until = from + DEPTH < WIDTH ? from + DEPTH : WIDTH;
#pragma unroll 8
    for (int k = from; k < until; k++) {
        const float w = weight[k * WIDTH];
        const Numbers e = entering[head + k];
#pragma unroll
        for (int m = 0; m < SAMPLES; m++) sum.of[m] += w * e.of[m];
    }
}

// Calls compute(unit, sums) in all threads of a unit, for COUNT parts of sums, and use(share, unit, sums) with the
// whole ones in the thread that computes the unit.
template <int COUNT, class Compute, class Use>
DEVICE void multiply(const Block &block, const Compute &compute, const Use &use) {
    const int lane = block.thread % ROW, part = block.thread / ROW;
#pragma unroll
    for (int e = 0; e < SHARE; e++) {
        const int local = lane + e * ROW, j = block.rank * UNITS + local;
        Numbers sum[COUNT] = {};
        if (local < UNITS && j < HIDDEN) compute(j, sum);
        if (OF_UNIT > 1) {
#pragma unroll
            for (int i = 0; i < COUNT; i++)
                if (part > 0) block.products[((part - 1) * COUNT + i) * ROW + lane] = sum[i];
            block_barrier();
#pragma unroll
            for (int i = 0; i < COUNT; i++)
                for (int k = 0; part == 0 && k < OF_UNIT - 1; k++) {
                    const Numbers other = block.products[(k * COUNT + i) * ROW + lane];
#pragma unroll
                    for (int m = 0; m < SAMPLES; m++) sum[i].of[m] += other.of[m];
                }
        }
        if (part == 0 && local < UNITS && j < HIDDEN) use(e, j, sum);
    }
    // What has entered may be replaced. Elsewhere another barrier is between.
    if (PHASES > 1 && INPUT_ALONE && OF_UNIT == 1) block_barrier();
}
