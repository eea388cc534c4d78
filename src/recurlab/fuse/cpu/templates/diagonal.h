#pragma once
#include "pass.h"
#include "zoneout.h"
#include "../../templates/stages.h"

// The diagonal recurrence: a unit depends on itself alone, so a thread takes it through the whole sequence.
// An item of work is a few samples of a few vectors of units, over all steps; what the samples share is loaded once.
struct Item {
    const Problem &p;
    const Direction &d;
    long part, sample, unit;  // the index of its part of the sums; its first sample and unit
    int samples, blocks;
};

static long parts_of(const Problem &p) { return (p.batch + p.samples - 1) / p.samples; }
static long strips_of(const Problem &p) { return (p.units + W * p.blocks - 1) / (W * p.blocks); }
static Item item_of(const Problem &p, long i) {
    const long strips = strips_of(p), part = i / strips % parts_of(p), unit = i % strips * W * p.blocks;
    const long sample = part * p.samples, samples = p.batch - sample < p.samples ? p.batch - sample : p.samples;
    const long lanes = p.units - unit < W * p.blocks ? p.units - unit : W * p.blocks;
    return {p, p.direction[i / strips / parts_of(p)], part, sample, unit, (int)samples, (int)((lanes + W - 1) / W)};
}
static long items_of(const Problem &p) { return p.directions * parts_of(p) * strips_of(p); }

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
                drawn.kept[s][block][m] = draw(it.p, it.d, t, place_of(it.p, it.sample + m), it.unit + block * W, s);
}

// PACKED is whether the batch may be packed; NOISY, whether there is anything else but the plain step: masks or noise.
// SINGLE is whether an item is known to have one sample: then nothing is worth preparing for the next one.

struct Forward {
    Four drawn;
    vec state[BLOCKS][SAMPLES][S];
    bool begun[SAMPLES];
};

template <bool NOISY, bool PACKED, bool FULL>
static INLINE void forward_block(const Item &it, Forward &f, long t, int present, int block, int n) {
    const Problem &p = it.p;
    const Direction &d = it.d;
    const long j = it.unit + block * W;
    const Weights w = weights_of<FULL>(it, j, n);
    const long x_first = at_x(p, t, it.sample), x_next = distance<PACKED>(p, t, ahead(p, d), p.x_step, p.x_sample);
    for (int m = 0; m < (PACKED ? present : it.samples); m++) {
        const long b = it.sample + m, at = row_of<PACKED>(p, t, b) * p.units + j;
        vec *state = f.state[block][m];
        real *output = d.output + at_h<PACKED>(p, t, b) + j;
        prefetch<1>(output, ahead(p, d) * p.h_step);
        if (NOISY && !counts(p, t, b)) {
            put<FULL>(output, p.hold && f.begun[m] ? state[0] : splat(0), n);
            continue;
        }
        vec before[S], x[G], recur[G], entering[Step::PHASES], next[S];
        for (int s = 0; s < S; s++) before[s] = NOISY && is_cut(p, d, t, b) ? splat(0) : state[s];
        for (int g = 0; g < G; g++) {
            const real *const from = d.x + (PACKED ? x_first + m * p.x_sample : at_x<false>(p, t, b)) + g * p.units + j;
            prefetch(from, x_next);
            x[g] = get<FULL>(from, n) + w.bias_ih[g];
        }
        const bool dropped = NOISY && d.dropout;
        const vec drop = dropped ? get<FULL>(d.dropout + at_state(p, b) + j, n) : splat(1);
        recurrences<0>(w, drop, dropped, x, before, recur, entering);
        Step::advance(x, before, recur, next);
        if (NOISY) zoneout(p, d, t, before, next, [&](int s) { return f.drawn.kept[s][block][m].at[t % 4]; });
        for (int s = 0; s < S; s++) {
            state[s] = next[s];
            if (s > 0 && d.saved[s]) put<FULL>(d.saved[s] + at, next[s], n);
        }
        put<FULL>(output, next[0], n);
    }
    for (int m = present; PACKED && m < it.samples; m++) {  // padding
        real *const output = d.output + at_h(p, t, it.sample + m) + j;
        prefetch<1>(output, ahead(p, d) * p.h_step);
        put<FULL>(output, holds(p, d) ? f.state[block][m][0] : splat(0), n);
    }
}

template <bool NOISY, bool PACKED> static void forward_item(const Item &it) {
    Forward f;
    const int tail = (it.p.units - it.unit) % W;
    const int full = it.p.units - it.unit < it.blocks * W ? it.blocks - 1 : it.blocks;
    for (int block = 0; block < it.blocks; block++)
        for (int m = 0; m < it.samples; m++)
            for (int s = 0; s < S; s++)
                f.state[block][m][s] =
                    load(it.d.start[s] + at_state(it.p, it.sample + m) + it.unit + block * W, block < full ? W : tail);
    for (int m = 0; m < it.samples; m++) f.begun[m] = false;
    for (long i = 0; i < it.p.steps; i++) {
        const long t = time_of(it.p, it.d, i);
        if (NOISY) draw_at(it, f.drawn, t);
        for (int m = 0; NOISY && m < it.samples; m++) f.begun[m] |= counts(it.p, t, it.sample + m);
        const int some = present<PACKED>(it.p, t, it.sample, it.samples);
        for (int block = 0; block < full; block++) forward_block<NOISY, PACKED, true>(it, f, t, some, block, W);
        if (full < it.blocks) forward_block<NOISY, PACKED, false>(it, f, t, some, full, tail);
    }
    for (int block = 0; block < it.blocks; block++)
        for (int m = 0; m < it.samples; m++)
            for (int s = 0; s < S; s++)
                store(it.d.end[s] + at_state(it.p, it.sample + m) + it.unit + block * W, f.state[block][m][s],
                    block < full ? W : tail);
}

struct Sums {
    vec u[G], bias_ih[G], bias_hh[G];
};
// Vector by vector, which stay in registers: for the whole struct a compiler calls memcpy, at each step.
static INLINE void copy(const Sums &from, Sums &to) {
    for (int g = 0; g < G; g++) {
        to.u[g] = from.u[g];
        to.bias_ih[g] = from.bias_ih[g];
        to.bias_hh[g] = from.bias_hh[g];
    }
}
struct Backward {
    Four drawn;
    vec d_state[BLOCKS][SAMPLES][S], held[BLOCKS][SAMPLES];
    Sums sums[BLOCKS];
    long previous[SAMPLES];  // the last step before this one that counts, or -1
};

template <bool NOISY, bool PACKED, bool FULL, bool SINGLE>
static INLINE void backward_block(const Item &it, Backward &k, long t, int present, int block, int n) {
    const Problem &p = it.p;
    const Direction &d = it.d;
    const long j = it.unit + block * W;
    const Weights w = weights_of<FULL>(it, j, n);
    Sums sums;
    copy(k.sums[block], sums);
    const long x_first = at_x(p, t, it.sample), x_next = distance<PACKED>(p, t, -ahead(p, d), p.x_step, p.x_sample);
    const long d_x_first = at_d_x(p, t, it.sample);
    const long d_x_next = distance<PACKED>(p, t, -ahead(p, d), p.d_x_step, p.d_x_sample);
    for (int m = 0; m < (SINGLE ? 1 : PACKED ? present : it.samples); m++) {
        const long b = it.sample + m;
        vec *d_state = k.d_state[block][m];
        const vec d_output = get_or_zero<FULL>(d.d_output, at_d<PACKED>(p, t, b) + j, n);
        prefetch(d.d_output, at_d<PACKED>(p, t, b) + j - ahead(p, d) * p.d_step);
        prefetch(d.output, at_h<PACKED>(p, t, b) + j - 2 * ahead(p, d) * p.h_step);
        real *d_input = d.d_x + (PACKED ? d_x_first + m * p.d_x_sample : at_d_x<false>(p, t, b)) + j;
        if (NOISY && !counts(p, t, b)) {
            if (p.hold) k.held[block][m] += d_output;
            for (int g = 0; g < G; g++) put<FULL>(d_input + g * p.units, splat(0), n);
            continue;
        }
        vec state[S], x[G], recur[G], entering[Step::PHASES], d_next[S], kept[S];
        const bool cut = NOISY && is_cut(p, d, t, b), dropped = NOISY && d.dropout;
        states_before<FULL, PACKED>(p, d, k.previous[m], cut, b, j, n, state);
        for (int s = 0; s < S; s++) d_next[s] = d_state[s];
        d_next[0] += d_output;
        if ((NOISY || PACKED) && p.hold) {
            d_next[0] += k.held[block][m];
            k.held[block][m] = splat(0);
        }
        if (NOISY) zoneout_gradient(p, d, t, d_next, kept, [&](int s) { return k.drawn.kept[s][block][m].at[t % 4]; });
        for (int g = 0; g < G; g++) {
            const real *const from = d.x + (PACKED ? x_first + m * p.x_sample : at_x<false>(p, t, b)) + g * p.units + j;
            prefetch(from, x_next);
            x[g] = get<FULL>(from, n) + w.bias_ih[g];
        }
        const vec drop = dropped ? get<FULL>(d.dropout + at_state(p, b) + j, n) : splat(1);
        recurrences<0>(w, drop, dropped, x, state, recur, entering);
        vec from_x[G], from_recur[G], from_state[S], d_x[G], d_recur[G], d_before[S];
        Step::advance_gradient(x, state, recur, d_next, from_x, from_recur, from_state);
        collect<0>(from_x, from_recur, from_state, d_x, d_recur, d_before);
        phase_gradients<Step::PHASES - 1>(w, drop, dropped, x, state, recur, d_x, d_recur, d_before);
        for (int s = 0; s < S; s++) d_state[s] = cut ? splat(0) : NOISY ? d_before[s] + kept[s] : d_before[s];
        for (int g = 0; g < G; g++) {
            prefetch<1>(d_input, g * p.units + d_x_next);
            put<FULL>(d_input + g * p.units, d_x[g], n);
            sums.bias_ih[g] += d_x[g];
            if (Step::PHASE[g] < 0) continue;
            sums.u[g] += d_recur[g] * entering[Step::PHASE[g]];
            if (!Step::SAME[g]) sums.bias_hh[g] += d_recur[g];
        }
    }
    copy(sums, k.sums[block]);
    for (int m = present; PACKED && p.hold && m < it.samples; m++)  // padding, which repeats an output
        k.held[block][m] += get_or_zero<FULL>(d.d_output, at_d(p, t, it.sample + m) + j, n);
}

template <bool NOISY, bool PACKED, bool SINGLE> static void backward_item(const Item &it) {
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
            const long at = at_state(p, it.sample + m) + it.unit + block * W;
            k.held[block][m] = d.d_held ? load(d.d_held + at, n) : splat(0);
            for (int s = 0; s < S; s++) k.d_state[block][m][s] = d.d_end[s] ? load(d.d_end[s] + at, n) : splat(0);
        }
    }
    for (long i = p.until - 1; i >= p.from; i--) {
        const long t = time_of(p, d, i);
        if (NOISY) draw_at(it, k.drawn, t);
        const int some = present<PACKED>(p, t, it.sample, it.samples);
        for (int m = 0; m < some; m++)
            if (!NOISY || counts(p, t, it.sample + m)) k.previous[m] = previous_step(p, d, i, it.sample + m);
        for (int block = 0; block < full; block++)
            backward_block<NOISY, PACKED, true, SINGLE>(it, k, t, some, block, W);
        if (full < it.blocks) backward_block<NOISY, PACKED, false, SINGLE>(it, k, t, some, full, tail);
    }
    for (int block = 0; block < it.blocks; block++) {
        const int n = block < full ? W : tail;
        const long j = it.unit + block * W;
        for (int m = 0; m < it.samples; m++) {
            const long at = at_state(p, it.sample + m) + j;
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

template <bool B> struct Is {
    static constexpr bool value = B;
};
static bool is_noisy(const Problem &p) {
    bool noisy = p.mask;
    for (int i = 0; i < p.directions; i++) {
        noisy |= p.direction[i].cuts || p.direction[i].dropout || p.direction[i].seed;
        for (int s = 0; s < S; s++) noisy |= p.zoneout[s] != 0;
    }
    return noisy;
}

// Calls f(NOISY, PACKED) with types of these values, see above.
template <class F> static void with_kind(const Problem &p, const F &f) {
    if (is_noisy(p)) f(Is<true>{}, Is<true>{});
    else if (p.rows) f(Is<false>{}, Is<true>{});
    else f(Is<false>{}, Is<false>{});
}

void run_forward(const Problem &p) {
    pass_forward(p, [](const Problem &part) {
        with_kind(part, [&](auto noisy, auto packed) {
            parallel(items_of(part), part.threads,
                [&](long i) { forward_item<decltype(noisy)::value, decltype(packed)::value>(item_of(part, i)); });
        });
    });
}
void run_backward(const Problem &p) {
    pass_backward(p, SAMPLES, [](const Problem &part) {
        with_kind(part, [&](auto noisy, auto packed) {
            parallel(items_of(part), part.threads, [&](long i) {
                constexpr bool NOISY = decltype(noisy)::value, PACKED = decltype(packed)::value;
                const Item it = item_of(part, i);
                if (it.samples == 1) backward_item<NOISY, PACKED, !NOISY && !PACKED>(it);
                else backward_item<NOISY, PACKED, false>(it);
            });
        });
    });
}
