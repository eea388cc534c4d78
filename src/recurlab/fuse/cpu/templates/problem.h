#pragma once
#include "../../templates/philox.h"
#include "generated.h"
#include "threads.h"

// What all kernels need of a Problem: strides, masks and resets.

// All lanes of a vector, or the first n; where FULL, the compiler drops n.
template <bool FULL> static INLINE vec get(const real *p, int n) {
    if constexpr (FULL) return load(p);
    else return load(p, n);
}
template <bool FULL> static INLINE void put(real *p, vec v, int n) {
    if constexpr (FULL) store(p, v);
    else store(p, v, n);
}
template <bool FULL> static INLINE vec get_or_zero(const real *p, long offset, int n) {
    return p ? get<FULL>(p + offset, n) : splat(0);
}

// Prefetches memory. The address is computed with integers, as it may lie outside the array, or start from null.
template <int WRITE = 0> static INLINE void prefetch(const real *from, long offset) {
    __builtin_prefetch((const void *)((__UINTPTR_TYPE__)from + offset * sizeof(real)), WRITE);
}

// A batch with lengths is packed: its samples b are sorted by length, the longest first, so that those that have a step
// t are the first ones, rows[t + 1] - rows[t] of them, and what a call keeps has rows for these alone. What belongs to
// the caller, as output and states do, stays in the caller's order, where sample b is at place_of(p, b).
// PACKED is false where the caller knows that the batch is not.
template <bool PACKED = true> static INLINE long place_of(const Problem &p, long b) {
    return PACKED && p.order ? p.order[b] : b;
}
static INLINE long present(const Problem &p, long t) { return p.rows ? p.rows[t + 1] - p.rows[t] : p.batch; }
// How many of the `samples` from `first` on have step t.
template <bool PACKED = true> static INLINE int present(const Problem &p, long t, long first, int samples) {
    if (!PACKED) return samples;
    const long left = present(p, t) - first;
    return left > samples ? samples : left > 0 ? (int)left : 0;
}

// Where sample b's step t lies: among rows of the recurrence and of what is saved, which have no strides; in x, d_x,
// the output and d_output; b's states, and what else there is for each sample.
template <bool PACKED = true> static INLINE long row_of(const Problem &p, long t, long b) {
    return (PACKED && p.rows ? p.rows[t] : t * p.batch) + b;
}
template <bool PACKED = true> static INLINE long at_x(const Problem &p, long t, long b) {
    const long step = PACKED && p.rows ? (p.rows[t] - p.rows[p.x_from]) * p.x_sample : (t - p.x_from) * p.x_step;
    return step + b * p.x_sample;
}
// How far in x, or in d_x, a sample's step t + by lies from step t.
template <bool PACKED = true> static INLINE long distance(const Problem &p, long t, long by, long step, long sample) {
    if (!PACKED || !p.rows) return by * step;
    return t + by < 0 ? 0 : (p.rows[t + by] - p.rows[t]) * sample;
}
template <bool PACKED = true> static INLINE long at_d_x(const Problem &p, long t, long b) {
    const long step = PACKED && p.rows ? (p.rows[t] - p.rows[p.from]) * p.d_x_sample : (t - p.from) * p.d_x_step;
    return step + b * p.d_x_sample;
}
template <bool PACKED = true> static INLINE long at_h(const Problem &p, long t, long b) {
    return t * p.h_step + place_of<PACKED>(p, b) * p.h_sample;
}
template <bool PACKED = true> static INLINE long at_d(const Problem &p, long t, long b) {
    return t * p.d_step + place_of<PACKED>(p, b) * p.d_sample;
}
template <bool PACKED = true> static INLINE long at_state(const Problem &p, long b) {
    return place_of<PACKED>(p, b) * p.units;
}
static INLINE bool is_reverse(const Problem &p, const Direction &d) { return &d == &p.direction[1]; }
static INLINE long time_of(const Problem &p, const Direction &d, long i) {
    return is_reverse(p, d) ? p.steps - 1 - i : i;
}
// How far a direction's next step lies from the present one.
static INLINE long ahead(const Problem &p, const Direction &d) { return is_reverse(p, d) ? -1 : 1; }
// Whether a direction repeats its last output at the padding of a packed batch: the reverse one has not begun there.
static INLINE bool holds(const Problem &p, const Direction &d) { return p.hold && !is_reverse(p, d); }
// Whether a sample's step counts: of those that are present in a packed batch all do.
static INLINE bool counts(const Problem &p, long t, long b) {
    return p.rows ? b < present(p, t) : !p.mask || p.mask[t * p.batch + b];
}
static INLINE bool is_cut(const Problem &p, const Direction &d, long t, long b) {
    return d.cuts && d.cuts[t * p.batch + place_of(p, b)];
}

// The step that a direction takes before its i-th one and that counts for sample b, or -1.
static INLINE long previous_step(const Problem &p, const Direction &d, long i, long b) {
    for (long before = i - 1; before >= 0; before--) {
        const long t = time_of(p, d, before);
        if (counts(p, t, b)) return t;
        if (p.rows) break;  // nor do those before it: a sample's steps lie side by side
    }
    return -1;
}

// The states that a step of sample b starts from, `previous` being its previous_step.
template <bool FULL, bool PACKED = true>
static INLINE void states_before(
    const Problem &p, const Direction &d, long previous, bool cut, long b, long j, int n, vec *state) {
    for (int s = 0; s < Step::STATES; s++)
        state[s] = cut            ? splat(0)
                   : previous < 0 ? get<FULL>(d.start[s] + at_state<PACKED>(p, b) + j, n)
                   : s == 0       ? get<FULL>(d.output + at_h<PACKED>(p, previous, b) + j, n)
                                  : get<FULL>(d.saved[s] + row_of<PACKED>(p, previous, b) * p.units + j, n);
}
