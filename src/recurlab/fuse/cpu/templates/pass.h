#pragma once
#include "problem.h"
#include "matrices.h"

// A whole pass over a sequence in one call: the products with what the caller gave, and the loop over time between them,
// some steps at a time, so that what one of them writes is still in the caches when the next one reads it.

// Where the rows of this pass lie among those of the caller's matrices, which have T * B of them: null where they are the
// same. Those of x and d_x are in the order of time, or packed.
struct Places {
    const long *at;
    long *own = nullptr;
    explicit Places(const Problem &p) : at(p.places) {
        if (at || !p.by_sample) return;
        at = own = (long *)__builtin_malloc(p.steps * p.batch * sizeof(long));
        for (long t = 0; t < p.steps; t++)
            for (long b = 0; b < p.batch; b++) own[t * p.batch + b] = b * p.steps + t;
    }
    ~Places() { __builtin_free(own); }
    Places(const Places &) = delete;
};

static INLINE void multiply(const Problem &p, const Product &product) { ((Multiply *)p.product)(&product); }
static INLINE long inputs_of(const Problem &p) { return p.directions * G * p.units; }
// The first row of a step, in x and in the caller's matrices where those are not placed otherwise.
static INLINE long first_row(const Problem &p, long t) { return row_of(p, t, 0); }
static INLINE const long *places_from(const Places &places, long row) { return places.at ? places.at + row : nullptr; }

// ---- forward -----------------------------------------------------------------------------------------------

// x = input weight_ih', for the steps of a part.
static void project(const Problem &p, const Places &places) {
    const long row = first_row(p, p.from), columns = inputs_of(p);
    multiply(p, {p.direction[0].x + (row - first_row(p, p.x_from)) * columns,
        p.input + (places.at ? 0 : row * p.features), p.weight_ih, nullptr, places_from(places, row), nullptr,
        first_row(p, p.until) - row, p.features, columns, columns, p.features, 1, 1, p.features, 0, p.workers});
}

// Runs the forward; loop(part) runs the loop over time for the steps of a part.
template <class Loop> static void pass_forward(const Problem &p, const Loop &loop) {
    if (!p.input) return loop(p);
    const Places places(p);
    Problem part = p;
    for (part.until = 0; part.until < p.steps;) {
        part.from = part.until;
        part.until = p.steps - part.from > p.chunk ? part.from + p.chunk : p.steps;
        part.x_from = p.grad ? 0 : part.from;
        project(part, places);
        loop(part);
        for (int d = 0; d < p.directions; d++)
            for (int s = 0; s < S; s++) part.direction[d].start[s] = p.direction[d].end[s];
    }
}

// ---- backward ----------------------------------------------------------------------------------------------

// Sums over time, for each part of the batch; they are added up in the order of the parts.
struct PartialSums {
    const long parts, numbers;
    real *const all;
    long taken = 0;
    PartialSums(const Problem &p, int samples)
        : parts((p.batch + samples - 1) / samples), numbers(Step::RESULTS * p.units),
          all((real *)__builtin_calloc(5 * p.directions * parts * numbers, sizeof(real))) {}
    ~PartialSums() { __builtin_free(all); }
    PartialSums(const PartialSums &) = delete;
    real *take() { return all + taken++ * parts * numbers; }
    void add_up(const real *from, real *to, long count) const {
        if (!to) return;
        for (long i = 0; i < count; i += W) {
            const int n = count - i < W ? (int)(count - i) : W;
            vec sum = load(from + i, n);
            for (long part = 1; part < parts; part++) sum += load(from + part * numbers + i, n);
            store(to + i, sum, n);
        }
    }
};

// What entered a recurrence, in some rows of a part: a matrix, and which of its rows if they don't lie side by side.
struct Entered {
    const real *at;
    long stride;
    const long *which;
};

// Adds `rows` rows of a gradient, transposed, times what entered to the gradient of the weights of `gates` gates; or sets it.
static void multiply_gates(
    const Problem &p, real *out, const real *gradient, long stride, int gates, long rows, const Entered &in, bool add) {
    const long width = p.width;
    if (width == p.units)
        return multiply(p, {out, gradient, in.at, nullptr, nullptr, in.which, gates * width, rows, width, width, 1, stride,
                               in.stride, 1, add, p.workers});
    for (int g = 0; g < gates; g++)
        for (long j = 0; j < p.units; j += width)  // each head by itself
            multiply(p, {out + (g * p.units + j) * width, gradient + g * p.units + j, in.at + j, nullptr, nullptr, in.which,
                            width, rows, width, width, 1, stride, in.stride, 1, add, p.workers});
}

static bool is_zero(const real *from, long count) {
    for (long i = 0; i < count; i++)
        if (from[i] != 0) return false;
    return true;
}

// Calls f(row, rows, entered) for what entered phase k of a direction in some rows of a part.
template <class F> static void each_entered(const Problem &p, const Places &places, int d, int k, const F &f) {
    const Direction &direction = p.direction[d];
    const long row = first_row(p, p.from), rows = first_row(p, p.until) - row, units = p.units;
    if (direction.entering[k]) return f(0, rows, Entered{direction.entering[k] + row * units, units, nullptr});
    // It was the state itself: the output of the step before, and for a direction's first step its start.
    const bool back = d > 0, begins = back || p.from == 0;
    const long first = begins ? p.batch : 0, rest = rows - first, stride = p.directions * units;
    if (rest > 0) {
        const long from = back ? 0 : first;
        if (places.at) {
            const long by = p.by_sample ? 1 : p.batch;
            long *const which = (long *)__builtin_malloc(rest * sizeof(long));
            for (long i = 0; i < rest; i++) which[i] = places.at[row + from + i] + (back ? by : -by);
            f(from, rest, Entered{direction.output, stride, which});
            __builtin_free(which);
        } else f(from, rest, Entered{direction.output + (row + from + (back ? p.batch : -p.batch)) * stride, stride, nullptr});
    }
    if (begins && !(rest > 0 && is_zero(direction.start[0], p.batch * units)))
        f(back ? rest : 0, first, Entered{direction.start[0], units, p.order});
}

// The gradient of the recurrent weights of one direction, for the steps of a part.
static void multiply_recurrent(const Problem &p, const Places &places, int d, bool add) {
    const Direction &direction = p.direction[d];
    for (int k = 0; k < PHASES; k++) {
        bool also = add;
        each_entered(p, places, d, k, [&](long from, long rows, const Entered &in) {
            for (int slot = Step::START[k], next; slot < Step::START[k + 1]; slot = next) {
                // Gates that lie side by side, in the weight and in the gradient, are multiplied at once.
                const int gate = Step::SLOTS[slot], own = Step::OWN_INDEX[gate];
                for (next = slot + 1; next < Step::START[k + 1]; next++) {
                    const int other = Step::SLOTS[next], distance = next - slot;
                    if (other != gate + distance || Step::OWN_INDEX[other] != (own < 0 ? own : own + distance)) break;
                }
                const long stride = own < 0 ? p.d_x_sample : Step::OWN * p.units;
                const real *const gradient = own < 0 ? direction.d_x + gate * p.units : direction.d_recur + own * p.units;
                multiply_gates(p, direction.d_weight + gate * p.units * p.width, gradient + from * stride, stride,
                    next - slot, rows, in, also);
            }
            also = true;
        });
    }
}

// The products of the steps of a part, whose gradient is in d_x and d_recur.
static void multiply_back(const Problem &p, const Places &places, bool add) {
    const long row = first_row(p, p.from), rows = first_row(p, p.until) - row, columns = inputs_of(p);
    const real *const d_x = p.direction[0].d_x;
    if (p.input) {
        const long *const which = places_from(places, row);
        const long offset = places.at ? 0 : row * p.features;
        multiply(p, {p.d_weight_ih, d_x, p.input + offset, nullptr, nullptr, which, columns, rows, p.features, p.features, 1,
                        columns, p.features, 1, add, p.workers});
        if (p.d_input)
            multiply(p, {p.d_input + offset, d_x, p.weight_ih, which, nullptr, nullptr, rows, columns, p.features,
                            p.features, columns, 1, p.features, 1, 0, p.workers});
    }
    if (!DIAGONAL)
        for (int d = 0; d < p.directions; d++) multiply_recurrent(p, places, d, add);
}

// Runs the backward; of what is summed up over time, `samples` samples have a sum of their own.
template <class Loop> static void pass_backward(const Problem &p, int samples, const Loop &loop) {
    const Places places(p);
    PartialSums sums(p, samples);
    Problem part = p;
    const long states = p.directions * p.batch * p.units;
    real *const held = p.hold ? (real *)__builtin_calloc(states, sizeof(real)) : nullptr;
    for (int d = 0; d < p.directions; d++) {
        Direction &one = part.direction[d];
        one.d_bias_ih = sums.take(), one.d_bias_hh = sums.take(), one.d_gain_ih = sums.take(), one.d_gain_hh = sums.take();
        if (DIAGONAL) one.d_weight = sums.take();
        if (held) one.d_held = held + d * p.batch * p.units;
    }
    for (part.from = p.steps; part.from > 0;) {
        part.until = part.from;
        part.from = part.until > p.chunk ? part.until - p.chunk : 0;
        loop(part);
        multiply_back(part, places, part.until < p.steps);
        for (int d = 0; d < p.directions; d++)
            for (int s = 0; s < S; s++) part.direction[d].d_end[s] = p.direction[d].d_start[s];
    }
    __builtin_free(held);
    for (int d = 0; d < p.directions; d++) {
        const Direction &from = part.direction[d], &to = p.direction[d];
        const long gates = G * p.units;
        sums.add_up(from.d_bias_ih, to.d_bias_ih, gates);
        sums.add_up(from.d_bias_hh, to.d_bias_hh, sums.numbers);
        for (int g = 0; to.d_bias_hh && g < G; g++)  // where the two biases of a gate have one gradient
            if (Step::SAME[g] && Step::PHASE[g] >= 0)
                sums.add_up(from.d_bias_ih + g * p.units, to.d_bias_hh + g * p.units, p.units);
        sums.add_up(from.d_gain_ih, to.d_gain_ih, gates);
        sums.add_up(from.d_gain_hh, to.d_gain_hh, sums.numbers);
        if (DIAGONAL) sums.add_up(from.d_weight, to.d_weight, gates);
    }
}
