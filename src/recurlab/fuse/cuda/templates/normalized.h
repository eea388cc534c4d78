#pragma once
#include "problem.h"
#include "../../templates/rows.h"

// All recurrences in a layer with layer normalisation, whose moments are those of all units of a sample: a block takes
// SAMPLES samples of one direction with all their units through the whole sequence. A step runs in turns; in each,
// what enters a phase is computed for all units, then its results, and of these the moments, which the next turn needs.
// Compile-time constants: HIDDEN, the units of a layer; WIDTH, those of a head; DIAGONAL; SAMPLES; and, of the
// normalisation, CENTERED, BY_GATE and INPUT_ALONE.
constexpr int R = Step::RECURRENT;
constexpr int SHARE = (HIDDEN + THREADS - 1) / THREADS;  // units of a thread
constexpr int PARTS = 32;                                // into which the threads' numbers are added up at first
constexpr int MOST = BY_GATE ? G : 1;                    // rows that are normalised at once
constexpr int gates_in(int k) { return Step::START[k + 1] - Step::START[k]; }

// The numbers of a unit, one for each sample.
struct alignas(SAMPLES * sizeof(float)) Numbers {
    float of[SAMPLES];
};

// A block and its work.
struct Block {
    const Problem &p;
    const Direction &d;
    int direction, thread, live;  // live: samples
    long group, first;            // of all groups of samples; the first sample
    float *added, *parts;         // a number of each thread, and those added up in part, for all that is added at once
    Numbers *entering;            // what enters a product: HIDDEN for each of its gates
};
DEVICE Block block_of(const Problem &p, int sums) {
    const long groups = (p.batch + SAMPLES - 1) / SAMPLES, group = block_index() % groups, first = group * SAMPLES;
    const int direction = block_index() / groups;
    const long left = p.batch - first;
    const int live = left < SAMPLES ? left : SAMPLES;
    float *const parts = (float *)shared_memory() + sums * THREADS;
    return {p, p.direction[direction], direction, (int)thread_index(), live, group, first, (float *)shared_memory(),
        parts, (Numbers *)(parts + sums * PARTS)};
}

// Calls f(share, unit) for the thread's units, and f(element, sample of the block, sample, unit) for what it keeps of
// each of their elements.
template <class F> DEVICE void each_unit(const Block &block, const F &f) {
#pragma unroll
    for (int e = 0; e < SHARE; e++)
        if (block.thread + e * THREADS < HIDDEN) f(e, block.thread + e * THREADS);
}
template <class Element, class F>
DEVICE void each_element(const Block &block, Element (&elements)[SHARE][SAMPLES], const F &f) {
    each_unit(block, [&](int e, long j) {
#pragma unroll
        for (int m = 0; m < SAMPLES; m++)
            if (m < block.live) f(elements[e][m], m, block.first + m, j);
    });
}

// Replaces each number by the sum of those of all threads, in an order that is always the same.
template <int COUNT> DEVICE void add_up(const Block &block, float (&sum)[COUNT][SAMPLES]) {
#pragma unroll
    for (int i = 0; i < COUNT * SAMPLES; i++) block.added[i * THREADS + block.thread] = sum[i / SAMPLES][i % SAMPLES];
    block_barrier();
    for (int i = block.thread; i < COUNT * SAMPLES * PARTS; i += THREADS) {
        float part = 0;
        for (int k = i % PARTS; k < THREADS; k += PARTS) part += block.added[i / PARTS * THREADS + k];
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

// Of a gate, what has entered its product, times the weights between it and unit j, is added to the sums of the samples.
// Threads side by side read numbers side by side.
DEVICE void add_product(const Direction &d, const Numbers *entering, int gate, long j, float (&sum)[SAMPLES]) {
    const long head = j / WIDTH * WIDTH;
    const float *const weight = d.weight + (gate * HIDDEN + head) * WIDTH + j - head;
#pragma unroll 8
    for (int k = 0; k < WIDTH; k++) {
        const float w = weight[k * WIDTH];
        const Numbers e = entering[head + k];
#pragma unroll
        for (int m = 0; m < SAMPLES; m++) sum[m] += w * e.of[m];
    }
}
