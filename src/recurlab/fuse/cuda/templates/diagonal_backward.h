#pragma once
#include "diagonal.h"

// The backward of the diagonal recurrence. The gates are computed anew, from the projected input and the states before.
// The gradients follow a linear recurrence in these variables: the states, and the output that masked steps hold.
constexpr int VARS = NOISY ? S + 1 : S;

struct Past {
    Fetched<VECTOR> x[AHEAD][G], before[AHEAD][S], d_output[AHEAD];
};
// The origins say which steps the values are read from, so they are fetched one batch of steps before these.
DEVICE void fetch_origins(const Problem &p, const Item &at, long last, long from, int *origin) {
#pragma unroll
    for (int k = 0; k < AHEAD; k++)
        if (last - k >= from) origin[k] = origin_of(p, *at.d, at.direction, last - k, at.b);
}
// ALL: the chunk has at least AHEAD steps left, so none has to be checked.
template <bool ALL>
DEVICE void fetch(const Problem &p, const Item &at, long last, long from, const int *origin, Past &past) {
    const Direction &d = *at.d;
    const long way = at.direction ? 1 : -1, t = time_of(p, at.direction, last), size = p.batch * p.units;
    const Store *x = d.x + at_x(p, t, at.b) + at.j, *d_output = d.d_output + at_d(p, t, at.b) + at.j;
    const Store *output = d.output + at_h(p, t + way, at.b) + at.j;  // of the step before
    long row = ((t + way) * p.batch + at.b) * p.units + at.j;
#pragma unroll
    for (int k = 0; k < AHEAD; k++) {
        if (ALL || last - k >= from) {
#pragma unroll
            for (int g = 0; g < G; g++) past.x[k][g] = get<VECTOR>(x + g * p.units);
            if (d.d_output) past.d_output[k] = get<VECTOR>(d_output);
            if (NOISY && origin[k] >= 0) {
                output = d.output + at_h(p, origin[k], at.b) + at.j;
                row = (origin[k] * p.batch + at.b) * p.units + at.j;
            }
            if (NOISY ? origin[k] >= 0 : last - k > 0) {
                past.before[k][0] = get<VECTOR>(output);
#pragma unroll
                for (int s = 1; s < S; s++) past.before[k][s] = get<VECTOR>(d.saved[s] + row);
            }
        }
        x += way * p.x_step, d_output += way * p.d_step, output += way * p.h_step, row += way * size;
    }
}

// Waits for a batch of steps, as in the forward.
DEVICE Past arrived(Past past, unsigned nothing) {
#pragma unroll
    for (int k = 0; k < AHEAD; k++) {
#pragma unroll
        for (int g = 0; g < G; g++) past.x[k][g] = arrived(past.x[k][g], nothing);
#pragma unroll
        for (int s = 0; s < S; s++) past.before[k][s] = arrived(past.before[k][s], nothing);
        past.d_output[k] = arrived(past.d_output[k], nothing);
    }
    return past;
}

// A step of one unit as the backward sees it.
struct Moment {
    float x[G], before[S], d_output;
    bool skipped, cut;
};
DEVICE Moment moment_of(
    const Problem &p, const Item &at, const Unit &unit, const Past &past, int k, int v, int origin) {
    Moment m;
    m.skipped = NOISY && origin == SKIPPED, m.cut = NOISY && origin == CUT;
    m.d_output = at.d->d_output ? read(past.d_output[k][v]) : 0;
#pragma unroll
    for (int g = 0; g < G; g++) m.x[g] = read(past.x[k][g][v]) + unit.w.bias_ih[g];
#pragma unroll
    for (int s = 0; s < S; s++)
        m.before[s] = origin >= 0 ? read(past.before[k][s][v]) : origin == START ? unit.start[s] : 0;
    return m;
}

// What a step gives besides the gradient of the state before it.
struct Given {
    float d_x[G], d_recur[G], entering[MORE];
};

// Takes the gradient of the variables after a step and gives that of the variables before it.
DEVICE Given step_back(const Problem &p, const Item &at, const Unit &unit, const Draws &draws, long t, const Moment &m,
    float d_output, float *d) {
    Given given;
    float recur[G], d_next[S], kept[S], from_x[G], from_recur[G], from_state[S], d_before[S];
#pragma unroll
    for (int s = 0; s < S; s++) {
        d_next[s] = d[s];
        kept[s] = 0;
    }
    d_next[0] += d_output;
    if (NOISY) {
        d_next[0] += p.hold ? d[VARS - 1] : 0;
        zoneout_gradient(p, *at.d, draws, t, d_next, kept);
    }
    recurrences<0>(unit.w, unit.drop, NOISY, m.x, m.before, recur, given.entering);
    Step::advance_gradient(m.x, m.before, recur, d_next, from_x, from_recur, from_state);
    collect<0>(from_x, from_recur, from_state, given.d_x, given.d_recur, d_before);
    phase_gradients<PHASES - 1>(unit.w, unit.drop, NOISY, m.x, m.before, recur, given.d_x, given.d_recur, d_before);
    if (m.skipped) {
        if (p.hold) d[VARS - 1] += d_output;
#pragma unroll
        for (int g = 0; g < G; g++) given.d_x[g] = given.d_recur[g] = 0;
        return given;
    }
#pragma unroll
    for (int s = 0; s < S; s++) d[s] = m.cut ? 0 : d_before[s] + kept[s];
    if (NOISY) d[VARS - 1] = 0;
    return given;
}

struct Sums {
    float u[G][VECTOR], bias_ih[G][VECTOR], bias_hh[G][VECTOR];
};
DEVICE void add(Sums &sums, int v, const Given &given) {
#pragma unroll
    for (int g = 0; g < G; g++) {
        sums.bias_ih[g][v] += given.d_x[g];
        if (Step::PHASE[g] < 0) continue;
        sums.u[g][v] += given.d_recur[g] * given.entering[Step::PHASE[g] < 0 ? 0 : Step::PHASE[g]];
        if (!Step::SAME[g]) sums.bias_hh[g][v] += given.d_recur[g];
    }
}
DEVICE void write_sums(const Problem &p, const Item &at, const Sums &sums) {
#pragma unroll
    for (int g = 0; g < G; g++)
#pragma unroll
        for (int v = 0; v < VECTOR; v++) {
            const long to = ((at.chunk * p.batch + at.b) * G + g) * p.units + at.j + v;
            at.d->d_weight[to] = sums.u[g][v];
            at.d->d_bias_ih[to] = sums.bias_ih[g][v];
            at.d->d_bias_hh[to] = sums.bias_hh[g][v];
        }
}

// Calls step(past, k, i, origin) for each step of the thread's chunk, the last one first. ALL: the chunk has at least
// AHEAD steps left and a step before each of them, so without masks no origin has to be checked.
template <bool ALL, class F>
DEVICE void steps_back(const Past &past, long last, long from, const int *origin, const F &step) {
#pragma unroll
    for (int k = 0; k < AHEAD; k++)
        if (ALL || last - k >= from) step(past, k, last - k, ALL && !NOISY ? 0 : origin[k]);
}
DEVICE long first_step(const Problem &p, const Item &at) { return at.chunk * p.chunk_steps; }
DEVICE long last_step(const Problem &p, const Item &at) {
    const long end = first_step(p, at) + p.chunk_steps;
    return (end < p.steps ? end : p.steps) - 1;
}
template <class F> DEVICE void each_step_back(const Problem &p, const Item &at, const F &step) {
    const long from = first_step(p, at);
    Past now, later;
    int origin[AHEAD], next[AHEAD], after[AHEAD];
    long last = last_step(p, at);
    fetch_origins(p, at, last, from, next);
    fetch<false>(p, at, last, from, next, later);
    fetch_origins(p, at, last - AHEAD, from, after);
    for (; last >= from; last -= AHEAD) {
        now = arrived(later, nothing_in(p));
#pragma unroll
        for (int k = 0; k < AHEAD; k++) {
            origin[k] = next[k];
            next[k] = NOISY ? (int)loaded((unsigned)after[k], nothing_in(p)) : after[k];
        }
        if (last - 2 * AHEAD + 1 >= from) fetch<true>(p, at, last - AHEAD, from, next, later);
        else fetch<false>(p, at, last - AHEAD, from, next, later);
        fetch_origins(p, at, last - 2 * AHEAD, from, after);
        if (last - AHEAD + 1 >= (from > 0 ? from : 1)) steps_back<true>(now, last, from, origin, step);
        else steps_back<false>(now, last, from, origin, step);
    }
}

DEVICE void run_backward(const Problem &p) {
    const Item at = item_of(p);
    if (!at.live) return;
    Unit units[VECTOR];
    read_units(p, at, units);
    Sums sums = {};
    const Draws fresh = no_draws(p, *at.d);
    Draws draws[VECTOR];
    float d[VECTOR][VARS] = {};
    const long row = at.b * p.units + at.j, all = p.batch * p.units, way = at.direction ? p.d_x_step : -p.d_x_step;
    Store *to = at.d->d_x + at_d_x(p, time_of(p, at.direction, last_step(p, at)), at.b) + at.j;
#pragma unroll
    for (int v = 0; v < VECTOR; v++) {
        draws[v] = fresh;
#pragma unroll
        for (int s = 0; s < VARS; s++)
            if (p.chunks > 1) d[v][s] = at.d->carry[(at.chunk * VARS + s) * all + row + v];
            else if (s < S) d[v][s] = at.d->d_end[s][row + v];
    }
    each_step_back(p, at, [&](const Past &past, int k, long i, int origin) {
        const long t = time_of(p, at.direction, i);
        Pack<VECTOR> d_x[G];
#pragma unroll
        for (int v = 0; v < VECTOR; v++) {
            if (NOISY) refresh(p, *at.d, draws[v], t, at.b, at.j + v);
            const Moment m = moment_of(p, at, units[v], past, k, v, origin);
            const Given given = step_back(p, at, units[v], draws[v], t, m, m.d_output, d[v]);
            add(sums, v, given);
#pragma unroll
            for (int g = 0; g < G; g++) d_x[g].value[v] = write(given.d_x[g]);
        }
#pragma unroll
        for (int g = 0; g < G; g++) put(to + g * p.units, d_x[g]);
        to += way;
    });
    write_sums(p, at, sums);
    if (at.chunk > 0) return;
#pragma unroll
    for (int v = 0; v < VECTOR; v++)
#pragma unroll
        for (int s = 0; s < S; s++) at.d->d_start[s][row + v] = d[v][s];
}
