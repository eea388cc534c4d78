#pragma once
#include "dense_group.h"
#include "../../templates/rows.h"

// Layer normalisation: what is normalised together, a row, is brought to mean 0 and variance 1, then each number is
// scaled by its gain and shifted by its bias. The rows of a sample's step are its projected input, for each phase the
// results of its recurrences, and a state, of which the step may normalise one. A step runs in turns; in each, what
// enters a phase is computed for all units, then its results, and of these the moments, which the next turn needs.

// Returns the sum of all lanes, in an order that is the same for every vector.
static INLINE real total(vec v) {
    real lanes[W];
    store(lanes, v);
    for (int half = W / 2; half > 0; half /= 2)
        for (int i = 0; i < half; i++) lanes[i] += lanes[i + half];
    return lanes[0];
}

// Calls f(Full, at, lanes) for the vectors of a row of numbers.
template <class F> static INLINE void each_lanes(long count, const F &f) {
    long at = 0;
    for (; at + W <= count; at += W) f(Full<true>{}, at, W);
    if (at < count) f(Full<false>{}, at, (int)(count - at));
}

static INLINE Moments moments_of(const real *row, long count) {
    vec sum = splat(0), squares = splat(0);
    if (CENTERED)
        each_lanes(count, [&](auto full, long at, int n) { sum += get<decltype(full)::value>(row + at, n); });
    const real mean = total(sum) / count;
    each_lanes(count, [&](auto full, long at, int n) {
        vec off = get<decltype(full)::value>(row + at, n) - mean;
        if constexpr (!decltype(full)::value) {  // beyond the row nothing is off
            real lanes[W] = {};
            store(lanes, off, n);
            off = load(lanes);
        }
        squares += off * off;
    });
    return {mean, 1 / LIBM(sqrt)(total(squares) / count + EPSILON)};
}

// Goes to where a step's results and moments lie, if they are kept.
static INLINE void at_step(Group &group, long t) {
    const long row = row_of(group.p, t, group.sample);
    if (group.d.recur) group.s.recur = group.d.recur + row * group.s.recur_stride;
    if (group.d.moments) group.s.moments = group.d.moments + row * ROWS * 2;
}

static INLINE Moments *moments_at(const Group &group, int m) { return (Moments *)group.s.moments + m * ROWS; }
static INLINE real *result_at(const Group &group, int g, int m) {
    if (g == G) return group.s.normalized + m * group.p.units;
    return group.s.recur + m * group.s.recur_stride + Step::KEPT_INDEX[g] * group.p.units;
}

// Calls f(m) for those of the present samples that are this thread's.
template <class F> static INLINE void each_of_team(const Group &group, const F &f) {
    const long until = group.share.until(group.present);
    for (long m = group.share.from(group.present); m < until; m++) f((int)m);
}

// Calls f(Full, sample, unit, lanes) for what is this thread's of the present samples' states, one row after the other.
template <class F> static INLINE void each_row(const Group &group, const F &f) {
    for (int m = 0; m < group.present; m++)
        each_vector(group, [&](auto full, long j, int n) { f(full, m, j, n); });
}

// Computes the moments of `gates` gates of a sample, whose numbers lie side by side, from the row of the first one on.
static INLINE void set_moments(Group &group, const real *numbers, int gates, int m, int row) {
    const int together = BY_GATE ? 1 : gates;
    for (int i = 0; i < gates; i += together)
        moments_at(group, m)[row + i] = moments_of(numbers + i * group.p.units, together * group.p.units);
}

static INLINE vec normal(vec v, const Moments &of) { return (v - of.mean) * of.scale; }

// One result of a sample for the units from j on, normalised.
template <bool FULL> static INLINE vec result_of(const Group &group, int g, int m, long j, int n) {
    const Direction &d = group.d;
    const long at = g * group.p.units + j;
    const vec v = get<FULL>(result_at(group, g, m) + j, n), bias = get_or_zero<FULL>(d.bias_hh, at, n);
    if (INPUT_ALONE) return v + bias;
    return normal(v, moments_at(group, m)[result_row(g)]) * get<FULL>(d.gain_hh + at, n) + bias;
}

// The inputs of one sample's step for the units from j on, with the results of the turns before this one.
struct Values {
    vec x[G], state[S], recur[N];
};
template <int TURN, bool FULL>
static INLINE void read_values(const Group &group, long t, int m, long j, int n, Values &in) {
    const Problem &p = group.p;
    const Direction &d = group.d;
    const real *const x = d.x + at_x(p, t, group.sample + m) + j;
    for (int g = 0; g < G; g++) {
        const vec v = normal(get<FULL>(x + g * p.units, n), moments_at(group, m)[input_row(g)]);
        const long at = g * p.units + j;
        in.x[g] = v * get<FULL>(d.gain_ih + at, n) + get_or_zero<FULL>(d.bias_ih, at, n);
    }
    for (int g = 0; g < N; g++)
        if (Step::PHASE[g] >= 0 && Step::TURN[Step::PHASE[g]] < TURN) in.recur[g] = result_of<FULL>(group, g, m, j, n);
}

// Computes what enters the phase of a turn, and puts it where its results are computed from, or, where unit by unit
// they can be, the results.
template <int TURN, bool FULL> static INLINE void enter(Group &group, const Values &in, long t, int m, long j, int n) {
    constexpr int K = Step::ORDER[TURN];
    const Direction &d = group.d;
    const vec operand = Step::operand(Phase<K>{}, in.x, in.state, in.recur);
    if constexpr (K == PHASES) put<FULL>(result_at(group, G, m) + j, operand, n);
    else {
        const vec e = dropped<FULL>(group, operand, m, j, n);
        if (DIAGONAL) {
            for (int i = Step::START[K]; i < Step::START[K + 1]; i++) {
                const int g = Step::SLOTS[i];
                put<FULL>(result_at(group, g, m) + j, get<FULL>(d.weight + g * group.p.units + j, n) * e, n);
            }
            return;
        }
        put<FULL>(group.s.entering[K] + m * group.s.stride + j, e, n);
        if (d.entering[K]) put<FULL>(d.entering[K] + row_of(group.p, t, group.sample + m) * group.p.units + j, e, n);
    }
}
