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

static INLINE long at_x(const Problem &p, long t, long b) { return t * p.x_step + b * p.x_sample; }
static INLINE long at_h(const Problem &p, long t, long b) { return t * p.h_step + b * p.h_sample; }
static INLINE long at_d(const Problem &p, long t, long b) { return t * p.d_step + b * p.d_sample; }
static INLINE long at_d_x(const Problem &p, long t, long b) { return (t - p.from) * p.d_x_step + b * p.d_x_sample; }
static INLINE long time_of(const Problem &p, const Direction &d, long i) {
    return &d == &p.direction[1] ? p.steps - 1 - i : i;
}
// How far a direction's next step lies from the present one.
static INLINE long ahead(const Problem &p, const Direction &d) { return &d == &p.direction[1] ? -1 : 1; }
static INLINE bool counts(const Problem &p, long t, long b) { return !p.mask || p.mask[t * p.batch + b]; }
static INLINE bool is_cut(const Problem &p, const Direction &d, long t, long b) {
    return d.cuts && d.cuts[t * p.batch + b];
}

// The step that a direction takes before its i-th one and that counts for sample b, or -1.
static INLINE long previous_step(const Problem &p, const Direction &d, long i, long b) {
    for (long before = i - 1; before >= 0; before--) {
        const long t = time_of(p, d, before);
        if (counts(p, t, b)) return t;
    }
    return -1;
}

// The states that a step of sample b starts from, `previous` being its previous_step.
template <bool FULL>
static INLINE void states_before(
    const Problem &p, const Direction &d, long previous, bool cut, long b, long j, int n, vec *state) {
    for (int s = 0; s < Step::STATES; s++)
        state[s] = cut            ? splat(0)
                   : previous < 0 ? get<FULL>(d.start[s] + b * p.units + j, n)
                   : s == 0       ? get<FULL>(d.output + at_h(p, previous, b) + j, n)
                                  : get<FULL>(d.saved[s] + (previous * p.batch + b) * p.units + j, n);
}
