#pragma once
#ifndef INLINE
#include "../cpu/templates/problem.h"
#endif

// The rows that layer normalisation has at a sample's step: what is normalised together, all gates or one alone. First
// those of the projected input, then those of the results of each phase, and that of a state.
constexpr int N = Step::RESULTS, TURNS = Step::TURNS;
constexpr int ROWS = BY_GATE ? G + Step::RECURRENT + 1 : 1 + TURNS;
constexpr int input_row(int g) { return BY_GATE ? g : 0; }
constexpr int result_row(int g) {
    return BY_GATE ? G + (g == G ? Step::RECURRENT : Step::KEPT_INDEX[g]) : 1 + Step::PHASE[g];
}

constexpr real EPSILON = real(1e-5);
struct Moments {
    real mean, scale;  // the scale is 1 / standard deviation
};
