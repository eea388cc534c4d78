#pragma once
#include "zoneout.h"
#include "../../templates/stages.h"

// The diagonal recurrence: a unit depends on itself alone, so a thread takes it through the whole sequence.
// An item of work is a few samples of a few vectors of units, over all steps; what the samples share is loaded once.
struct Item {
    const Problem &p;
    const Direction &d;
    long part, sample, unit;  // the index of its part of the sums; its first sample and unit
    int samples, blocks;
    long place[SAMPLES];  // of its samples, in the caller's batch
};

static long parts_of(const Problem &p) { return (p.batch + p.samples - 1) / p.samples; }
static long strips_of(const Problem &p) { return (p.units + W * p.blocks - 1) / (W * p.blocks); }
static Item item_of(const Problem &p, long i) {
    const long strips = strips_of(p), part = i / strips % parts_of(p), unit = i % strips * W * p.blocks;
    const long sample = part * p.samples, samples = p.batch - sample < p.samples ? p.batch - sample : p.samples;
    const long lanes = p.units - unit < W * p.blocks ? p.units - unit : W * p.blocks;
    const Direction &d = p.direction[i / strips / parts_of(p)];
    Item it = {p, d, part, sample, unit, (int)samples, (int)((lanes + W - 1) / W), {}};
    for (int m = 0; m < samples; m++) it.place[m] = place_of(p, sample + m);
    return it;
}
static long items_of(const Problem &p) { return p.directions * parts_of(p) * strips_of(p); }

// Prefetches memory. The address is computed with integers, as it may lie outside the array, or start from null.
template <int WRITE = 0> static INLINE void prefetch(const real *from, long offset) {
    __builtin_prefetch((const void *)((__UINTPTR_TYPE__)from + offset * sizeof(real)), WRITE);
}

template <bool FULL> static INLINE Weights weights_of(const Item &it, long j, int n) {
    Weights w;
    for (int g = 0; g < G; g++) {
        const long row = g * it.p.units + j;
        w.u[g] = get<FULL>(it.d.weight + row, n);
        w.bias_ih[g] = get_or_zero<FULL>(it.d.bias_ih, row, n);
        w.bias_hh[g] = get_or_zero<FULL>(it.d.bias_hh, row, n);
    }
    return w;
}

// What zoneout draws for the item at the four steps that the present one belongs to.
struct Four {
    long four = -1;
    Drawn kept[S][BLOCKS][SAMPLES];
};
static INLINE void draw_at(const Item &it, Four &drawn, long t) {
    if (!it.d.seed || t / 4 == drawn.four) return;
    drawn.four = t / 4;
    for (int s = 0; s < S; s++)
        for (int block = 0; draws(it.p, it.d, s) && block < it.blocks; block++)
            for (int m = 0; m < it.samples; m++)
                drawn.kept[s][block][m] = draw(it.p, it.d, t, it.place[m], it.unit + block * W, s);
}

// Where a step of an item lies: its row among those saved and in x, and how many of its samples have it.
struct Here {
    long t, row, x, ahead;  // the step that the item comes to next lies `ahead` in x
    int present;
};
static INLINE Here here(const Item &it, long t, long next) {
    const Problem &p = it.p;
    const long x = at_x(p, t, it.sample), then = next < 0 || next >= p.steps ? t : next;
    return {t, row_of(p, t, it.sample), x, at_x(p, then, it.sample) - x, present(p, t, it.sample, it.samples)};
}

struct Forward {
    Four drawn;
    vec state[BLOCKS][SAMPLES][S];
    bool begun[SAMPLES];
};

template <bool NOISY, bool FULL>
static INLINE void forward_block(const Item &it, Forward &f, const Here &at, int block, int n) {
    const Problem &p = it.p;
    const Direction &d = it.d;
    const long t = at.t, j = it.unit + block * W;
    const Weights w = weights_of<FULL>(it, j, n);
    real *const outputs = d.output + t * p.h_step + j;
    for (int m = 0; m < at.present; m++) {
        const long b = it.sample + m, place = it.place[m];
        vec *state = f.state[block][m];
        real *output = outputs + place * p.h_sample;
        if (NOISY && !counts(p, t, b)) {
            put<FULL>(output, p.hold && f.begun[m] ? state[0] : splat(0), n);
            continue;
        }
        vec before[S], x[G], recur[G], entering[Step::PHASES], next[S];
        for (int s = 0; s < S; s++) before[s] = NOISY && is_cut(p, d, t, b) ? splat(0) : state[s];
        for (int g = 0; g < G; g++) {
            const real *const from = d.x + at.x + m * p.x_sample + g * p.units + j;
            prefetch(from, at.ahead);
            x[g] = get<FULL>(from, n) + w.bias_ih[g];
        }
        const bool dropped = NOISY && d.dropout;
        const vec drop = dropped ? get<FULL>(d.dropout + place * p.units + j, n) : splat(1);
        recurrences<0>(w, drop, dropped, x, before, recur, entering);
        Step::advance(x, before, recur, next);
        if (NOISY) zoneout(p, d, t, before, next, [&](int s) { return f.drawn.kept[s][block][m].at[t % 4]; });
        for (int s = 0; s < S; s++) {
            state[s] = next[s];
            if (s > 0 && d.saved[s]) put<FULL>(d.saved[s] + (at.row + m) * p.units + j, next[s], n);
        }
        put<FULL>(output, next[0], n);
    }
    for (int m = at.present; m < it.samples; m++)
        put<FULL>(outputs + it.place[m] * p.h_sample, holds(p, d) ? f.state[block][m][0] : splat(0), n);
}

template <bool NOISY> static void forward_item(const Item &it) {
    Forward f;
    const Problem &p = it.p;
    const Direction &d = it.d;
    const int tail = (p.units - it.unit) % W, full = p.units - it.unit < it.blocks * W ? it.blocks - 1 : it.blocks;
    for (int block = 0; block < it.blocks; block++)
        for (int m = 0; m < it.samples; m++)
            for (int s = 0; s < S; s++)
                f.state[block][m][s] =
                    load(d.start[s] + it.place[m] * p.units + it.unit + block * W, block < full ? W : tail);
    for (int m = 0; m < it.samples; m++) f.begun[m] = false;
    for (long i = 0; i < p.steps; i++) {
        const Here at = here(it, time_of(p, d, i), time_of(p, d, i + 1));
        if (NOISY) draw_at(it, f.drawn, at.t);
        for (int m = 0; NOISY && m < it.samples; m++) f.begun[m] |= counts(p, at.t, it.sample + m);
        for (int block = 0; block < full; block++) forward_block<NOISY, true>(it, f, at, block, W);
        if (full < it.blocks) forward_block<NOISY, false>(it, f, at, full, tail);
    }
    for (int block = 0; block < it.blocks; block++)
        for (int m = 0; m < it.samples; m++)
            for (int s = 0; s < S; s++)
                store(d.end[s] + it.place[m] * p.units + it.unit + block * W, f.state[block][m][s],
                    block < full ? W : tail);
}

struct Sums {
    vec u[G], bias_ih[G], bias_hh[G];
};
struct Backward {
    Four drawn;
    vec d_state[BLOCKS][SAMPLES][S], held[BLOCKS][SAMPLES];
    Sums sums[BLOCKS];
    long previous[SAMPLES];  // the last step before this one that counts, or -1
    long d_x, d_x_ahead;     // where the present step lies in d_x, and how far from there the next one
};

template <bool NOISY, bool FULL>
static INLINE void backward_block(const Item &it, Backward &k, const Here &at, int block, int n) {
    const Problem &p = it.p;
    const Direction &d = it.d;
    const long t = at.t, j = it.unit + block * W;
    const Weights w = weights_of<FULL>(it, j, n);
    Sums sums = k.sums[block];
    for (int m = 0; m < at.present; m++) {
        const long b = it.sample + m, place = it.place[m];
        vec *d_state = k.d_state[block][m];
        const long d_output_at = t * p.d_step + place * p.d_sample + j;
        const vec d_output = get_or_zero<FULL>(d.d_output, d_output_at, n);
        prefetch(d.d_output, d_output_at - ahead(p, d) * p.d_step);
        prefetch(d.output, (t - 2 * ahead(p, d)) * p.h_step + place * p.h_sample + j);
        real *d_input = d.d_x + k.d_x + m * p.d_x_sample + j;
        if (NOISY && !counts(p, t, b)) {
            if (p.hold) k.held[block][m] += d_output;
            for (int g = 0; g < G; g++) put<FULL>(d_input + g * p.units, splat(0), n);
            continue;
        }
        vec state[S], x[G], recur[G], entering[Step::PHASES], d_next[S], kept[S];
        const bool cut = NOISY && is_cut(p, d, t, b), dropped = NOISY && d.dropout;
        states_before<FULL>(p, d, k.previous[m], cut, b, j, n, state);
        for (int s = 0; s < S; s++) d_next[s] = d_state[s];
        d_next[0] += d_output;
        if (NOISY && p.hold) {
            d_next[0] += k.held[block][m];
            k.held[block][m] = splat(0);
        }
        if (NOISY) zoneout_gradient(p, d, t, d_next, kept, [&](int s) { return k.drawn.kept[s][block][m].at[t % 4]; });
        for (int g = 0; g < G; g++) {
            const real *const from = d.x + at.x + m * p.x_sample + g * p.units + j;
            prefetch(from, at.ahead);
            x[g] = get<FULL>(from, n) + w.bias_ih[g];
        }
        const vec drop = dropped ? get<FULL>(d.dropout + place * p.units + j, n) : splat(1);
        recurrences<0>(w, drop, dropped, x, state, recur, entering);
        vec from_x[G], from_recur[G], from_state[S], d_x[G], d_recur[G], d_before[S];
        Step::advance_gradient(x, state, recur, d_next, from_x, from_recur, from_state);
        collect<0>(from_x, from_recur, from_state, d_x, d_recur, d_before);
        phase_gradients<Step::PHASES - 1>(w, drop, dropped, x, state, recur, d_x, d_recur, d_before);
        for (int s = 0; s < S; s++) d_state[s] = cut ? splat(0) : NOISY ? d_before[s] + kept[s] : d_before[s];
        for (int g = 0; g < G; g++) {
            prefetch<1>(d_input, g * p.units + k.d_x_ahead);
            put<FULL>(d_input + g * p.units, d_x[g], n);
            sums.bias_ih[g] += d_x[g];
            if (Step::PHASE[g] < 0) continue;
            sums.u[g] += d_recur[g] * entering[Step::PHASE[g]];
            if (!Step::SAME[g]) sums.bias_hh[g] += d_recur[g];
        }
    }
    k.sums[block] = sums;
    for (int m = at.present; p.hold && d.d_output && m < it.samples; m++)
        k.held[block][m] += get<FULL>(d.d_output + t * p.d_step + it.place[m] * p.d_sample + j, n);
}

template <bool NOISY> static void backward_item(const Item &it) {
    const Problem &p = it.p;
    const Direction &d = it.d;
    Backward k;
    const int tail = (p.units - it.unit) % W, full = p.units - it.unit < it.blocks * W ? it.blocks - 1 : it.blocks;
    for (int block = 0; block < it.blocks; block++) {
        const int n = block < full ? W : tail;
        for (int g = 0; g < G; g++) {
            const long row = (it.part * G + g) * p.units + it.unit + block * W;
            k.sums[block].u[g] = load(d.d_weight + row, n);
            k.sums[block].bias_ih[g] = load(d.d_bias_ih + row, n);
            k.sums[block].bias_hh[g] = load(d.d_bias_hh + row, n);
        }
        for (int m = 0; m < it.samples; m++) {
            const long at = it.place[m] * p.units + it.unit + block * W;
            k.held[block][m] = d.d_held ? load(d.d_held + at, n) : splat(0);
            for (int s = 0; s < S; s++) k.d_state[block][m][s] = d.d_end[s] ? load(d.d_end[s] + at, n) : splat(0);
        }
    }
    for (long i = p.until - 1; i >= p.from; i--) {
        const Here at = here(it, time_of(p, d, i), time_of(p, d, i - 1));
        k.d_x = at_d_x(p, at.t, it.sample);
        k.d_x_ahead = at_d_x(p, time_of(p, d, i > p.from ? i - 1 : i), it.sample) - k.d_x;
        if (NOISY) draw_at(it, k.drawn, at.t);
        for (int m = 0; m < at.present; m++)
            if (counts(p, at.t, it.sample + m)) k.previous[m] = previous_step(p, d, i, it.sample + m);
        for (int block = 0; block < full; block++) backward_block<NOISY, true>(it, k, at, block, W);
        if (full < it.blocks) backward_block<NOISY, false>(it, k, at, full, tail);
    }
    for (int block = 0; block < it.blocks; block++) {
        const int n = block < full ? W : tail;
        const long j = it.unit + block * W;
        for (int m = 0; m < it.samples; m++) {
            const long at = it.place[m] * p.units + j;
            for (int s = 0; s < S; s++) store(d.d_start[s] + at, k.d_state[block][m][s], n);
            if (d.d_held) store(d.d_held + at, k.held[block][m], n);
        }
        for (int g = 0; g < G; g++) {
            const long row = (it.part * G + g) * p.units + j;
            store(d.d_weight + row, k.sums[block].u[g], n);
            store(d.d_bias_ih + row, k.sums[block].bias_ih[g], n);
            store(d.d_bias_hh + row, k.sums[block].bias_hh[g], n);
        }
    }
}

static bool is_noisy(const Problem &p) {
    bool noisy = p.mask;
    for (int i = 0; i < p.directions; i++) {
        noisy |= p.direction[i].cuts || p.direction[i].dropout || p.direction[i].seed;
        for (int s = 0; s < S; s++) noisy |= p.zoneout[s] != 0;
    }
    return noisy;
}

void run_forward(const Problem &p) {
    const bool noisy = is_noisy(p);
    parallel(items_of(p), p.threads,
        [&](long i) { noisy ? forward_item<true>(item_of(p, i)) : forward_item<false>(item_of(p, i)); });
}
void run_backward(const Problem &p) {
    const bool noisy = is_noisy(p);
    parallel(items_of(p), p.threads,
        [&](long i) { noisy ? backward_item<true>(item_of(p, i)) : backward_item<false>(item_of(p, i)); });
}
