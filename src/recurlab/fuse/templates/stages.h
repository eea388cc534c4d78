#pragma once
#ifndef INLINE
#include "../cpu/templates/problem.h"
#endif

// A step and its gradient, put together from the generated pieces; for every device. The loops are unrolled because a
// GPU keeps an array in registers only if all its indices are known when it is compiled.

// Adds what one stage of the backward gives to the gradients, as the tables of the step say.
template <int STAGE>
static INLINE void collect(const vec *x, const vec *recur, const vec *state, vec *d_x, vec *d_recur, vec *d_state) {
#pragma unroll
    for (int g = 0; g < Step::GATES; g++) {
        if (Step::X_EFFECT[STAGE][g]) d_x[g] = Step::X_EFFECT[STAGE][g] == Step::SET ? x[g] : d_x[g] + x[g];
        const vec r = Step::SAME[g] ? x[g] : recur[g];
        if (Step::RECUR_EFFECT[STAGE][g]) d_recur[g] = Step::RECUR_EFFECT[STAGE][g] == Step::SET ? r : d_recur[g] + r;
    }
#pragma unroll
    for (int s = 0; s < Step::STATES; s++)
        if (Step::STATE_EFFECT[STAGE][s])
            d_state[s] = Step::STATE_EFFECT[STAGE][s] == Step::SET ? state[s] : d_state[s] + state[s];
}

// What a diagonal recurrence knows of a unit.
struct Weights {
    vec u[Step::GATES], bias_ih[Step::GATES], bias_hh[Step::GATES];
};

// Computes `recur`, phase by phase, and what enters each phase.
template <int K>
static INLINE void recurrences(
    const Weights &w, vec drop, bool dropped, const vec *x, const vec *state, vec *recur, vec *entering) {
    if constexpr (K < Step::PHASES) {
        entering[K] = Step::operand(Phase<K>{}, x, state, recur);
        if (dropped) entering[K] *= drop;
#pragma unroll
        for (int i = Step::START[K]; i < Step::START[K + 1]; i++) {
            const int g = Step::SLOTS[i];
            recur[g] = w.u[g] * entering[K] + w.bias_hh[g];
        }
        recurrences<K + 1>(w, drop, dropped, x, state, recur, entering);
    }
}

// Runs the stages of the backward after the first, from that of phase K down to that of phase 0.
template <int K>
static INLINE void phase_gradients(const Weights &w, vec drop, bool dropped, const vec *x, const vec *state,
    const vec *recur, vec *d_x, vec *d_recur, vec *d_state) {
    if constexpr (K >= 0) {
        vec d_operand = splat(0);
#pragma unroll
        for (int i = Step::START[K]; i < Step::START[K + 1]; i++)
            d_operand += w.u[Step::SLOTS[i]] * d_recur[Step::SLOTS[i]];
        if (dropped) d_operand *= drop;
        vec from_x[Step::GATES], from_recur[Step::GATES], from_state[Step::STATES];
        Step::operand_gradient(Phase<K>{}, x, state, recur, d_operand, from_x, from_recur, from_state);
        collect<K + 1>(from_x, from_recur, from_state, d_x, d_recur, d_state);
        phase_gradients<K - 1>(w, drop, dropped, x, state, recur, d_x, d_recur, d_state);
    }
}
