#pragma once
#include "storage.h"
#include "arithmetic.h"
#include "../../templates/philox.h"
#include "generated.h"

// What all kernels need of a Problem: strides, masks and resets, zoneout.

// Where the state before a step comes from: the step whose output it is, or one of these.
enum Origin { START = -1, CUT = -2, SKIPPED = -3 };  // the first states; zeros; the step does not count

// What the mask and the resets (`cuts`) say of a step of a sample.
struct Marks {
    unsigned counts, cut;
};
// `index` is that of the step and the sample in a (T, B).
DEVICE Marks marks_of(const Problem &p, const Direction &d, long index) {
    return {p.mask ? p.mask[index] : 1u, d.cuts ? d.cuts[index] : 0u};
}
// `last` is the last step that counted, or START.
DEVICE int origin_of(const Marks &marks, int last) { return !marks.counts ? SKIPPED : marks.cut ? CUT : last; }

// Returns 0, without the compiler knowing it.
DEVICE unsigned nothing_in(const Problem &p) { return (unsigned)p.directions >> 2; }

// As in storage.h; both words are in one register from then on.
DEVICE Marks arrived(const Marks &marks, unsigned nothing) {
    const unsigned both = loaded(marks.counts | marks.cut << 1, nothing);
    return {both & 1, both >> 1};
}

DEVICE long at_x(const Problem &p, long t, long b) { return t * p.x_step + b * p.x_sample; }
DEVICE long at_h(const Problem &p, long t, long b) { return t * p.h_step + b * p.h_sample; }
DEVICE long at_d(const Problem &p, long t, long b) { return t * p.d_step + b * p.d_sample; }
DEVICE long at_d_x(const Problem &p, long t, long b) { return t * p.d_x_step + b * p.d_x_sample; }

// The time of the i-th step that a direction takes, and the origin of its state where nothing is masked or cut.
DEVICE long time_of(const Problem &p, int direction, long i) { return direction ? p.steps - 1 - i : i; }
DEVICE int plain_origin(const Problem &p, int direction, long i) {
    return i ? (int)time_of(p, direction, i - 1) : START;
}
DEVICE int origin_of(const Problem &p, const Direction &d, int direction, long i, long b) {
    return NOISY && d.origin ? d.origin[time_of(p, direction, i) * p.batch + b] : plain_origin(p, direction, i);
}

// The draws of zoneout: a word for each step, unit, sample and state, four steps at a time; see recurlab.cells.zoneout.
struct Draws {
    unsigned of[S][4], seed[2];
    long four;  // the steps that they are for, divided by 4
};
// Before the first draw. The seed is waited for here: otherwise the loop would wait for it and for what it has fetched.
DEVICE Draws no_draws(const Problem &p, const Direction &d) {
    Draws draws = {};
    draws.four = -1;
    if (!NOISY || !d.seed) return draws;
    draws.seed[0] = loaded(d.seed[0], nothing_in(p)), draws.seed[1] = loaded(d.seed[1], nothing_in(p));
    return draws;
}
DEVICE void refresh(const Problem &p, const Direction &d, Draws &draws, long t, long b, long j) {
    if (!d.seed || t / 4 == draws.four) return;
    draws.four = t / 4;
#pragma unroll
    for (int s = 0; s < S; s++) {
        if (p.zoneout[s] == 0) continue;
        const auto drawn = philox(counter_of(word(t / 4), word(b), word(j), word(s)), draws.seed[0], draws.seed[1]);
        draws.of[s][0] = drawn.a, draws.of[s][1] = drawn.b, draws.of[s][2] = drawn.c, draws.of[s][3] = drawn.d;
    }
}
DEVICE bool drawn(const Problem &p, const Draws &draws, int s, long t) {
    const unsigned *of = draws.of[s];  // chosen by comparisons: an index at run time would put the array into memory
    const unsigned word = t & 2 ? (t & 1 ? of[3] : of[2]) : (t & 1 ? of[1] : of[0]);
    return p.zoneout[s] > 0 && word <= p.limit[s];
}

// The state after zoneout: in training units are kept at random, in evaluation the expectation is taken.
DEVICE void zoneout(
    const Problem &p, const Direction &d, Draws &draws, long t, long b, long j, const float *before, float *next) {
    refresh(p, d, draws, t, b, j);
#pragma unroll
    for (int s = 0; s < S; s++) {
        if (d.seed) next[s] = drawn(p, draws, s, t) ? before[s] : next[s];
        else if (!p.training && p.zoneout[s] != 0) next[s] = p.zoneout[s] * before[s] + (1 - p.zoneout[s]) * next[s];
    }
}

// Splits the gradient of the state after zoneout: `kept` goes to the state before the step, the rest stays in d_next.
DEVICE void zoneout_gradient(
    const Problem &p, const Direction &d, const Draws &draws, long t, float *d_next, float *kept) {
#pragma unroll
    for (int s = 0; s < S; s++) {
        kept[s] = 0;
        if (d.seed && drawn(p, draws, s, t)) {
            kept[s] = d_next[s];
            d_next[s] = 0;
        } else if (!p.training && p.zoneout[s] != 0) {
            kept[s] = p.zoneout[s] * d_next[s];
            d_next[s] = (1 - p.zoneout[s]) * d_next[s];
        }
    }
}
