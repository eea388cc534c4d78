#pragma once
#include "problem.h"

// Zoneout: in training a unit keeps its previous value at random, in evaluation the expectation is taken. The random
// word depends on seed, step, sample, unit and state alone, so it is not stored but computed anew in the backward.
constexpr int HALVES = sizeof(word) / sizeof(real);  // `words` that hold one for each lane

static INLINE bool draws(const Problem &p, const Direction &d, int s) { return d.seed && p.limit[s] >= 0; }

// Returns the words of unit j and those after it, for the four steps from t / 4 * 4 on.
struct Drawn {
    bits at[4];
};
static INLINE Drawn draw(const Problem &p, const Direction &d, long t, long b, long j, int s) {
    const unsigned k0 = *d.seed, k1 = *d.seed >> 32;
    words lane, drawn[4] = {};
    for (int i = 0; i < W / HALVES; i++) lane[i] = i * HALVES;
    for (int half = 0; half < HALVES; half++) {  // every second unit
        const auto found = philox(counter_of(word(t / 4), word(b), lane + word(j + half), word(s)), k0, k1);
        const words four[] = {found.a, found.b, found.c, found.d};
        for (int k = 0; k < 4; k++) drawn[k] |= half ? four[k] << 32 : four[k] & 0xffffffff;
    }
    return {{(bits)drawn[0], (bits)drawn[1], (bits)drawn[2], (bits)drawn[3]}};
}

// The state after zoneout; drawn(s) gives what was drawn for a state.
template <class F>
static INLINE void zoneout(const Problem &p, const Direction &d, long t, const vec *before, vec *next, const F &drawn) {
    for (int s = 0; s < Step::STATES; s++) {
        if (p.training) {
            if (draws(p, d, s)) next[s] = where(drawn(s) <= natural(p.limit[s]), before[s], next[s]);
        } else if (p.zoneout[s] != 0) {
            next[s] = p.zoneout[s] * before[s] + (1 - p.zoneout[s]) * next[s];
        }
    }
}

// Splits the gradient of the state after zoneout: `kept` goes to the state before the step, the rest stays in d_next.
template <class F>
static INLINE void zoneout_gradient(
    const Problem &p, const Direction &d, long t, vec *d_next, vec *kept, const F &drawn) {
    for (int s = 0; s < Step::STATES; s++) {
        kept[s] = splat(0);
        if (p.training) {
            if (!draws(p, d, s)) continue;
            const mask keep = drawn(s) <= natural(p.limit[s]);
            kept[s] = where(keep, d_next[s], splat(0));
            d_next[s] = where(keep, splat(0), d_next[s]);
        } else if (p.zoneout[s] != 0) {
            kept[s] = p.zoneout[s] * d_next[s];
            d_next[s] = (1 - p.zoneout[s]) * d_next[s];
        }
    }
}
