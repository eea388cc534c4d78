#pragma once
#include "zoneout.h"
#include "dense_products.h"

// The dense and the block recurrence: a step needs the whole state of a head, so an item of work is a group of samples
// of one direction over all steps, and threads wait for each other inside the loop over time
// only where there are fewer groups than threads. The products with
// the recurrent weight are computed in tiles of samples by vectors of units, held in registers, and each tile goes
// through the step's arithmetic before the next one is begun.
struct Scratch {
    real *now[S], *next[S], *entering[PHASES], *own_entering, *recur, *d_state[S], *held;
    real *moments, *means, *normalized, *d_x, *d_result;  // of layer normalisation, see normalized.h
    real *drawn[S];  // the words that zoneout draws, at steps 4 * four to 4 * four + 3
    long four;
    long stride, recur_stride;  // of a sample
    long *previous;
    bool *begun;
};

struct Group {
    const Problem &p;
    const Direction &d;
    const real *packed;
    long sample;
    int samples, present;  // of the group, and those that have the present step, which come first
    Scratch s;
    // Where several threads share a group each does its share of the units, in vectors or in tiles, and waits for the
    // others before it reads what they have written.
    Share share;
    Meeting *meeting;
    const bool plain = is_plain(p, d);  // whether all steps count and nothing is drawn

    static bool is_plain(const Problem &p, const Direction &d) {
        bool kept = d.seed;
        for (int s = 0; s < S; s++) kept |= p.zoneout[s] != 0;
        return !p.mask && !p.rows && !kept;
    }

    void meet() {
        if (share.size > 1) meeting->wait(share.size);
    }
};

static INLINE int lanes(long units, long from) { return units - from < W ? (int)(units - from) : W; }

// The inputs of one sample's step for the units from j on.
struct Inputs {
    vec x[G], state[S], recur[G];
};
// What a bias adds to the inputs of all samples; x is where those of the sample lie.
template <bool FULL> static INLINE void read_bias(const real *bias, const Problem &p, long j, int n, vec *to) {
    for (int g = 0; g < G; g++) to[g] = get_or_zero<FULL>(bias, g * p.units + j, n);
}
template <int K, bool FULL>
static INLINE void read_inputs(
    const Group &group, const real *x, const vec *bias_ih, int m, long j, int n, Inputs &in) {
    const real *const recur = group.s.recur + m * group.s.recur_stride + j;
    for (int g = 0; g < G; g++) {
        const bool known = Step::PHASE[g] >= 0 && Step::PHASE[g] < K;
        in.x[g] = get<FULL>(x + g * group.p.units, n);
        if (known && Step::KEPT_INDEX[g] < 0) {
            in.recur[g] = splat(0);  // x holds the sum
            continue;
        }
        in.x[g] += bias_ih[g];
        if (known) in.recur[g] = get<FULL>(recur + Step::KEPT_INDEX[g] * group.p.units, n);
    }
}
template <int K, bool FULL>
static INLINE void read_inputs(const Group &group, long t, int m, long j, int n, Inputs &in) {
    vec bias_ih[G];
    read_bias<FULL>(group.d.bias_ih, group.p, j, n, bias_ih);
    const real *const x = group.d.x + at_x(group.p, t, group.sample + m) + j;
    read_inputs<K, FULL>(group, x, bias_ih, m, j, n, in);
}
template <bool FULL>
static INLINE void read_states(const Group &group, real *const *state, int m, long j, int n, Inputs &in) {
    for (int s = 0; s < S; s++) in.state[s] = get<FULL>(state[s] + m * group.s.stride + j, n);
}

template <bool FULL> static INLINE vec dropped(const Group &group, vec v, int m, long j, int n) {
    return group.d.dropout ? v * get<FULL>(group.d.dropout + at_state(group.p, group.sample + m) + j, n) : v;
}

template <bool B> struct Full {
    static constexpr bool value = B;
};

// Calls f(Full) with a type that says whether a vector is full.
template <class F> static INLINE void with_lanes(int n, const F &f) {
    if (n == W) f(Full<true>{});
    else f(Full<false>{});
}

// Calls f(Full, unit, lanes) for every vector of units that is this thread's.
template <class F> static INLINE void each_vector(const Group &group, const F &f) {
    const long count = vectors_of(group.p.units), until = group.share.until(count);
    for (long v = group.share.from(count); v < until; v++)
        with_lanes(lanes(group.p.units, v * W), [&](auto full) { f(full, v * W, lanes(group.p.units, v * W)); });
}
// Calls f(Full, sample, unit, lanes) for those of the states of samples `from` to `until` - 1.
template <class F> static INLINE void each_vector(const Group &group, int from, int until, const F &f) {
    each_vector(group, [&](auto full, long j, int n) {
        for (int m = from; m < until; m++) f(full, m, j, n);
    });
}

static INLINE bool any_counts(const Group &group, long t) {
    bool any = false;
    for (int m = 0; m < group.present; m++) any |= counts(group.p, t, group.sample + m);
    return any;
}

static void clear_where_cut(const Group &group, real *const *rows, long t) {
    if (!group.d.cuts) return;
    each_vector(group, 0, group.present, [&](auto full, int m, long j, int n) {
        for (int s = 0; s < S; s++)
            if (is_cut(group.p, group.d, t, group.sample + m))
                put<decltype(full)::value>(rows[s] + m * group.s.stride + j, splat(0), n);
    });
}

static INLINE real *drawn_at(const Group &group, int state, long t, int m, long j) {
    return group.s.drawn[state] + (t % 4 * group.samples + m) * group.s.stride + j;
}
// Draws for zoneout, each time that the group comes to another four steps; returns whether it did.
static bool draw_at(Group &group, long t) {
    Scratch &s = group.s;
    if (!group.d.seed || t / 4 == s.four) return false;
    s.four = t / 4;
    const int some = present(group.p, t / 4 * 4, group.sample, group.samples);  // at a later one of the four no more
    for (int i = 0; i < S; i++)
        if (draws(group.p, group.d, i))
            each_vector(group, 0, some, [&](auto, int m, long j, int) {
                const Drawn drawn = draw(group.p, group.d, t, place_of(group.p, group.sample + m), j, i);
                for (int k = 0; k < 4; k++) store(drawn_at(group, i, k, m, j), (vec)drawn.at[k]);
            });
    return true;
}

// What becomes of the samples that a step of a packed batch lacks: the state stays, and the output is padding.
static void pad(Group &group, long t) {
    const Problem &p = group.p;
    Scratch &s = group.s;
    each_vector(group, group.present, group.samples, [&](auto full, int m, long j, int n) {
        constexpr bool FULL = decltype(full)::value;
        const long at = m * s.stride + j;
        for (int i = 0; i < S; i++) put<FULL>(s.next[i] + at, get<FULL>(s.now[i] + at, n), n);
        const vec value = holds(p, group.d) ? get<FULL>(s.now[0] + at, n) : splat(0);
        real *const output = group.d.output + at_h(p, t, group.sample + m) + j;
        prefetch<1>(output, ahead(p, group.d) * p.h_step);
        put<FULL>(output, value, n);
    });
}

// Sets a gradient in memory or adds to it, as the effect says.
template <bool FULL> static INLINE void give(Step::Effect effect, real *to, vec v, int n) {
    if (effect) put<FULL>(to, effect == Step::SET ? v : get<FULL>(to, n) + v, n);
}

// Gathers the gradient of the outputs that are repeated where a step of a packed batch lacks samples.
static void hold_back(Group &group, long t) {
    const Problem &p = group.p;
    if (!p.hold || !group.d.d_output) return;
    each_vector(group, group.present, group.samples, [&](auto full, int m, long j, int n) {
        constexpr bool FULL = decltype(full)::value;
        const real *const d_output = group.d.d_output + at_d(p, t, group.sample + m) + j;
        give<FULL>(Step::ADD, group.s.held + m * group.s.stride + j, get<FULL>(d_output, n), n);
    });
}

// The end of a step for the units from j on: applies zoneout and mask, and writes state and output.
template <bool FULL, class In>
static INLINE void finish(Group &group, const In &in, long t, int m, long j, int n) {
    const Problem &p = group.p;
    const Direction &d = group.d;
    const long b = group.sample + m, at = row_of(p, t, b) * p.units + j;
    vec next[S], output;
    if (group.plain || counts(p, t, b)) {
        Step::advance(in.x, in.state, in.recur, next);
        if (!group.plain)
            zoneout(p, d, t, in.state, next, [&](int s) { return (bits)load(drawn_at(group, s, t, m, j)); });
        output = next[0];
        for (int s = 1; s < S; s++)
            if (d.saved[s]) put<FULL>(d.saved[s] + at, next[s], n);
    } else {
        for (int s = 0; s < S; s++) next[s] = in.state[s];
        output = p.hold && group.s.begun[m] ? next[0] : splat(0);
    }
    for (int s = 0; s < S; s++) put<FULL>(group.s.next[s] + m * group.s.stride + j, next[s], n);
    put<FULL>(d.output + at_h(p, t, b) + j, output, n);
}

// Before the first step, after each one and after the last: the states are taken, those after the step become those
// before the next, and they are given back.
static void begin_states(Group &group) {
    const Problem &p = group.p;
    const Direction &d = group.d;
    Scratch &s = group.s;
    each_vector(group, 0, group.samples, [&](auto, int m, long j, int n) {
        for (int i = 0; i < S; i++)
            store(s.now[i] + m * s.stride + j, load(d.start[i] + at_state(p, group.sample + m) + j, n), n);
    });
    for (int m = 0; m < group.samples; m++) s.begun[m] = previous_step(p, d, p.from, group.sample + m) >= 0;
}
static void swap_states(Group &group) {
    Scratch &s = group.s;
    for (int k = 0; k < S; k++) {
        real *const before = s.now[k];
        s.now[k] = s.next[k];
        s.next[k] = before;
    }
}
static void end_states(Group &group) {
    const Problem &p = group.p;
    const Direction &d = group.d;
    Scratch &s = group.s;
    each_vector(group, 0, group.samples, [&](auto, int m, long j, int n) {
        for (int i = 0; i < S; i++)
            store(d.end[i] + at_state(p, group.sample + m) + j, load(s.now[i] + m * s.stride + j, n), n);
    });
}

// Fetches what the next steps of the backward read of the output and of its gradient, for sample b's units from j on:
// the samples of a packed batch lie there in an order that no processor foresees.
static INLINE void fetch_next(const Group &group, long t, long b, long j) {
    const Problem &p = group.p;
    const Direction &d = group.d;
    if (!p.rows) return;
    if (d.d_output) prefetch(d.d_output, at_d(p, t, b) + j - ahead(p, d) * p.d_step);
    prefetch(d.output, at_h(p, t, b) + j - 2 * ahead(p, d) * p.h_step);
}

// The gradient of the states after a step, and what zoneout keeps of it for those before.
template <bool FULL>
static INLINE void read_next_gradient(
    const Group &group, vec d_output, long t, int m, long j, int n, vec *d_next, vec *kept) {
    const Scratch &s = group.s;
    real *const held = s.held + m * s.stride + j;
    for (int i = 0; i < S; i++) d_next[i] = get<FULL>(s.d_state[i] + m * s.stride + j, n);
    d_next[0] += d_output;
    if (group.p.hold) {
        d_next[0] += get<FULL>(held, n);
        put<FULL>(held, splat(0), n);
    }
    zoneout_gradient(group.p, group.d, t, d_next, kept, [&](int i) { return (bits)load(drawn_at(group, i, t, m, j)); });
}
// What becomes of the gradient at a step of a sample that does not count; product_at(g) is where that of gate g's is.
template <bool FULL, class F>
static INLINE void skip_back(Group &group, vec d_output, long t, int m, long j, int n, const F &product_at) {
    const Problem &p = group.p;
    if (p.hold) give<FULL>(Step::ADD, group.s.held + m * group.s.stride + j, d_output, n);
    real *const d_x = group.d.d_x + at_d_x(p, t, group.sample + m) + j;
    for (int g = 0; g < G; g++) put<FULL>(d_x + g * p.units, splat(0), n);
    for (int slot = 0; slot < Step::RECURRENT; slot++) put<FULL>(product_at(Step::SLOTS[slot]) + j, splat(0), n);
}
// The gradient of the states before a step after stage 0: what zoneout keeps, and what the step gives.
template <bool FULL>
static INLINE void put_state_gradients(const Group &group, const vec *kept, const vec *state, int m, long j, int n) {
    for (int i = 0; i < S; i++) {
        const vec d_state = Step::STATE_EFFECT[0][i] ? kept[i] + state[i] : kept[i];
        put<FULL>(group.s.d_state[i] + m * group.s.stride + j, d_state, n);
    }
}
