#pragma once
#include "normalized.h"

// What the backward of a layer with layer normalisation knows of a step: what the forward has left of it, and what is
// computed anew from that.

// What a thread keeps of an element.
struct Element {
    float d_state[S], held, drop;    // gradients of the states after a step, and of outputs that masked steps hold
    float x[G], recur[N], state[S];  // of the step at hand: what is normalised, without gain and bias
    float d_x[G], d_recur[N], d_before[S];  // their gradients, those of the states before the step last
};
// Sums over time and the samples of the block.
struct Sums {
    float gain_ih[G], bias_ih[G], gain_hh[N], bias_hh[N], weight[G];
};
struct ThreadState {
    Element of[SHARE][SAMPLES];
    Sums sums[SHARE];
    Draws fresh;
    int origin[SAMPLES];
    Moments moments[SAMPLES][ROWS];
};

// Calls f(element, sample of the block, sample, unit, share) for the elements of samples whose step counts.
template <class F> DEVICE void each_counting(Block &block, ThreadState &mine, const F &f) {
    each_unit(block, [&](int e, long j) {
#pragma unroll
        for (int m = 0; m < SAMPLES; m++)
            if (m < block.live && !(NOISY && mine.origin[m] == SKIPPED))
                f(mine.of[e][m], m, block.first + m, j, mine.sums[e]);
    });
}

// The inputs of the step's arithmetic.
struct Values {
    float x[G], recur[N];
};
template <int K> DEVICE void add_results(const Direction &d, const Element &own, long j, Values &values) {
    if constexpr (K < TURNS) {
#pragma unroll
        for (int i = 0; i < gates_in(K); i++) {
            const int g = Results<K>::gate(i);
            values.recur[g] = scaled<Results<K>>(d, own.recur[g], i, j);
        }
        add_results<K + 1>(d, own, j, values);
    }
}
DEVICE Values values_of(const Direction &d, const Element &own, long j) {
    Values values;
#pragma unroll
    for (int g = 0; g < G; g++) values.x[g] = scaled<Input>(d, own.x[g], g, j);
    add_results<0>(d, own, j, values);
    return values;
}

DEVICE float normal(const ThreadState &mine, int m, int row, float number) {
    return (number - mine.moments[m][row].mean) * mine.moments[m][row].scale;
}

// Computes the results from a turn on that are not kept.
template <int TURN> DEVICE void enter_again(Block &block, ThreadState &mine, Element &own, int m, long j) {
    if constexpr (TURN < TURNS) {
        constexpr int K = Step::ORDER[TURN];
        if constexpr (DIAGONAL || K == PHASES) {
            const Values values = values_of(*block.d, own, j);
            const float operand = Step::operand(Phase<K>{}, values.x, own.state, values.recur);
#pragma unroll
            for (int i = 0; i < gates_in(K); i++) {
                const int g = Results<K>::gate(i);
                float number = operand;
                if (K < PHASES) number = block.d->weight[g * HIDDEN + j] * (NOISY ? operand * own.drop : operand);
                own.recur[g] = INPUT_ALONE ? number : normal(mine, m, result_row(g), number);
            }
        }
        enter_again<TURN + 1>(block, mine, own, m, j);
    }
}

// Reads what the forward has left of a step.
DEVICE void read_past(Block &block, ThreadState &mine, Element &own, long t, int m, long b, long j) {
    const Problem &p = block.p;
    const Direction &d = *block.d;
    const int origin = mine.origin[m];
    const long row = t * p.batch + b;
#pragma unroll
    for (int g = 0; g < G; g++)
        own.x[g] = normal(mine, m, input_row(g), read(d.x[at_x(p, t, b) + g * HIDDEN + j]));
#pragma unroll
    for (int g = 0; g < N; g++) {
        own.recur[g] = 0;
        if (DIAGONAL || g == G || Step::PHASE[g] < 0) continue;
        const float number = read(d.recur[(row * R + Step::KEPT_INDEX[g]) * HIDDEN + j]);
        own.recur[g] = INPUT_ALONE ? number : normal(mine, m, result_row(g), number);
    }
#pragma unroll
    for (int s = 0; s < S; s++)
        own.state[s] = origin == START  ? d.start[s][b * HIDDEN + j]
                       : origin == CUT  ? 0
                       : s              ? read(d.saved[s][(origin * p.batch + b) * HIDDEN + j])
                                        : read(d.output[at_h(p, origin, b) + j]);
    enter_again<0>(block, mine, own, m, j);
}
