#pragma once
#include "diagonal.h"

// The forward of the diagonal recurrence.
struct Inputs {
    Fetched<VECTOR> x[AHEAD][G];
    Marks marks[AHEAD];
};
// ALL: the sequence has at least AHEAD steps left, so none has to be checked.
template <bool ALL> DEVICE void fetch(const Problem &p, const Item &at, long first, Inputs &in) {
    const long way = at.direction ? -1 : 1, t = time_of(p, at.direction, first);
    const Store *x = at.d->x + at_x(p, t, at.b) + at.j;
    long index = t * p.batch + at.b;
#pragma unroll
    for (int k = 0; k < AHEAD; k++, x += way * p.x_step, index += way * p.batch) {
        if (!ALL && first + k >= p.steps) continue;
#pragma unroll
        for (int g = 0; g < G; g++) in.x[k][g] = get<VECTOR>(x + g * p.units);
        if (NOISY) in.marks[k] = marks_of(p, *at.d, index);
    }
}

// Waits for a whole batch of steps before the next one is fetched. A warp counts all its loads together: to wait for a
// part of this batch later would be to wait for the whole next one too.
DEVICE Inputs arrived(Inputs in, unsigned nothing) {
#pragma unroll
    for (int k = 0; k < AHEAD; k++) {
#pragma unroll
        for (int g = 0; g < G; g++) in.x[k][g] = arrived(in.x[k][g], nothing);
        if (NOISY) in.marks[k] = arrived(in.marks[k], nothing);
    }
    return in;
}

struct Carried {
    float state[S][VECTOR];
    Draws draws[VECTOR];
    int last;  // the last step that has counted, or START
};

// Where the results of a step are written.
struct Outlets {
    Store *output;
    int *origin;
    bool keeps;  // whether this thread writes the origins: one of each sample does
    long row, t;
};

DEVICE void forward_step(
    const Problem &p, const Item &at, const Unit *units, const Inputs &in, int k, const Outlets &to, Carried &c) {
    const int origin = NOISY ? origin_of(in.marks[k], c.last) : 0;
    const bool skipped = NOISY && origin == SKIPPED, cut = NOISY && origin == CUT;
    Pack<VECTOR> output, saved[S];
    if (NOISY && to.keeps) *to.origin = origin;
    c.last = skipped ? c.last : (int)to.t;
#pragma unroll
    for (int v = 0; v < VECTOR; v++) {
        float before[S], x[G], recur[G], entering[MORE], next[S];
#pragma unroll
        for (int s = 0; s < S; s++) before[s] = cut ? 0 : c.state[s][v];
#pragma unroll
        for (int g = 0; g < G; g++) x[g] = read(in.x[k][g][v]) + units[v].w.bias_ih[g];
        recurrences<0>(units[v].w, units[v].drop, NOISY, x, before, recur, entering);
        Step::advance(x, before, recur, next);
        if (NOISY) zoneout(p, *at.d, c.draws[v], to.t, at.b, at.j + v, before, next);
#pragma unroll
        for (int s = 0; s < S; s++) {
            c.state[s][v] = skipped ? c.state[s][v] : next[s];
            saved[s].value[v] = write(c.state[s][v]);
        }
        output.value[v] = skipped && !(p.hold && c.last != START) ? write(0) : saved[0].value[v];
    }
    put(to.output, output);
#pragma unroll
    for (int s = 1; s < S; s++)
        if (p.grad) put(at.d->saved[s] + to.row, saved[s]);
}

// Takes AHEAD steps, or as many as are left.
template <bool ALL>
DEVICE void forward_steps(
    const Problem &p, const Item &at, const Unit *units, const Inputs &in, long first, Outlets &to, Carried &c) {
    const long way = at.direction ? -1 : 1;
#pragma unroll
    for (int k = 0; k < AHEAD; k++) {
        if (ALL || first + k < p.steps) forward_step(p, at, units, in, k, to, c);
        to.output += way * p.h_step, to.origin += way * p.batch, to.row += way * p.batch * p.units, to.t += way;
    }
}

DEVICE void run_forward(const Problem &p) {
    const Item at = item_of(p);
    if (!at.live) return;
    Unit units[VECTOR];
    read_units(p, at, units);
    const Draws fresh = no_draws(p, *at.d);
    Carried c;
    c.last = START;
    const long row = at.b * p.units + at.j;
#pragma unroll
    for (int v = 0; v < VECTOR; v++) {
        c.draws[v] = fresh;
#pragma unroll
        for (int s = 0; s < S; s++) c.state[s][v] = units[v].start[s];
    }
    const long t = time_of(p, at.direction, 0);
    const bool keeps = at.d->origin && at.j == 0;
    Outlets to = {at.d->output + at_h(p, t, at.b) + at.j, at.d->origin + t * p.batch + at.b, keeps,
        t * p.batch * p.units + row, t};
    Inputs now, later;
    fetch<false>(p, at, 0, later);
    for (long first = 0; first < p.steps; first += AHEAD) {
        now = arrived(later, nothing_in(p));
        if (first + 2 * AHEAD <= p.steps) fetch<true>(p, at, first + AHEAD, later);
        else fetch<false>(p, at, first + AHEAD, later);
        if (first + AHEAD <= p.steps) forward_steps<true>(p, at, units, now, first, to, c);
        else forward_steps<false>(p, at, units, now, first, to, c);
    }
#pragma unroll
    for (int v = 0; v < VECTOR; v++)
#pragma unroll
        for (int s = 0; s < S; s++) at.d->end[s][row + v] = c.state[s][v];
}
