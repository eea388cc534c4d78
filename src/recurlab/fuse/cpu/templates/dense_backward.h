#pragma once
#include "dense_group.h"

// The backward of a group of samples.

// Sums of the gradients of the biases over the samples of a part.
struct Sums {
    vec ih[G], hh[G];
};

static INLINE real *d_recur_of(const Group &group, int g, long t, int m) {
    const Problem &p = group.p;
    const long b = group.sample + m;
    if (Step::SAME[g]) return group.d.d_x + at_d_x(p, t, b) + g * p.units;
    return group.d.d_recur + ((row_of(p, t, b) - row_of(p, p.from, 0)) * Step::OWN + Step::OWN_INDEX[g]) * p.units;
}

// Writes what a stage of the backward gives to the gradients in memory, which the products read, and to the sums.
template <int STAGE, bool FULL>
static INLINE void give_all(Group &group, const vec *x, const vec *recur, Sums &sums, long t, int m, long j, int n) {
    const Problem &p = group.p;
    for (int g = 0; g < G; g++) {
        const Step::Effect effect = Step::X_EFFECT[STAGE][g], own = Step::RECUR_EFFECT[STAGE][g];
        give<FULL>(effect, group.d.d_x + at_d_x(p, t, group.sample + m) + g * p.units + j, x[g], n);
        if (effect) sums.ih[g] += x[g];
        if (Step::SAME[g] || Step::PHASE[g] < 0 || !own) continue;
        give<FULL>(own, d_recur_of(group, g, t, m) + j, recur[g], n);
        sums.hh[g] += recur[g];
    }
}

// Calls f(m, sums) for the samples of a group that are present, and adds up the sums of each part.
template <int STAGE, bool FULL, class F> static INLINE void each_sample(Group &group, long j, int n, const F &f) {
    for (int first = 0; first < group.present; first += PART) {
        Sums sums;
        for (int g = 0; g < G; g++) sums.ih[g] = sums.hh[g] = splat(0);
        for (int m = first; m < first + PART && m < group.present; m++) f(m, sums);
        const long row = (group.sample + first) / PART * G;
        for (int g = 0; g < G; g++) {
            const long at = (row + g) * group.p.units + j;
            if (Step::X_EFFECT[STAGE][g]) give<FULL>(Step::ADD, group.d.d_bias_ih + at, sums.ih[g], n);
            if (Step::RECUR_EFFECT[STAGE][g] && !Step::SAME[g])
                give<FULL>(Step::ADD, group.d.d_bias_hh + at, sums.hh[g], n);
        }
    }
}

template <bool FULL>
static INLINE void read_states_before(const Group &group, long t, int m, long j, int n, Inputs &in) {
    const long b = group.sample + m;
    states_before<FULL>(group.p, group.d, group.s.previous[m], is_cut(group.p, group.d, t, b), b, j, n, in.state);
}

// Stage 0 of the backward at a step, for the units from j on.
template <bool FULL> static INLINE void advance_back(Group &group, Sums &sums, long t, int m, long j, int n) {
    const Problem &p = group.p;
    const Direction &d = group.d;
    const long b = group.sample + m;
    const vec d_output = get_or_zero<FULL>(d.d_output, at_d(p, t, b) + j, n);
    fetch_next(group, t, b, j);
    if (!counts(p, t, b))
        return skip_back<FULL>(group, d_output, t, m, j, n, [&](int g) { return d_recur_of(group, g, t, m); });
    Inputs in;
    read_inputs<PHASES, FULL>(group, t, m, j, n, in);
    read_states_before<FULL>(group, t, m, j, n, in);
    vec d_next[S], kept[S], x[G], recur[G], state[S];
    read_next_gradient<FULL>(group, d_output, t, m, j, n, d_next, kept);
    Step::advance_gradient(in.x, in.state, in.recur, d_next, x, recur, state);
    give_all<0, FULL>(group, x, recur, sums, t, m, j, n);
    put_state_gradients<FULL>(group, kept, state, m, j, n);
}

// One tile of stage K + 1: the gradient of what entered phase K, and what it adds to other gradients.
template <int K> static INLINE void backward_tile(Group &group, const real *pack, long t, long head, long tile) {
    const Problem &p = group.p;
    Scratch &s = group.s;
    vec acc[GROUP][BACK];
    for (int slot = Step::START[K]; slot < Step::START[K + 1]; slot++, pack += p.width * BACK * W) {
        const int g = Step::SLOTS[slot];
        const long stride = Step::SAME[g] ? p.d_x_sample : Step::OWN * p.units;
        const real *const from = d_recur_of(group, g, t, 0) + head * p.width;
        multiply_all(acc, slot == Step::START[K], group.present, from, stride, pack, p.width);
    }
    for (int v = 0; v < BACK && (tile * BACK + v) * W < p.width; v++) {
        const long local = (tile * BACK + v) * W, j = head * p.width + local;
        with_lanes(lanes(p.width, local), [&](auto full) {
            constexpr bool FULL = decltype(full)::value;
            const int n = lanes(p.width, local);
            each_sample<K + 1, FULL>(group, j, n, [&](int m, Sums &sums) __attribute__((always_inline)) {
                if (!counts(p, t, group.sample + m)) return;
                Inputs in;
                vec x[G], recur[G], state[S];
                read_inputs<PHASES, FULL>(group, t, m, j, n, in);
                read_states_before<FULL>(group, t, m, j, n, in);
                const vec d_operand = dropped<FULL>(group, acc[m][v], m, j, n);
                Step::operand_gradient(Phase<K>{}, in.x, in.state, in.recur, d_operand, x, recur, state);
                give_all<K + 1, FULL>(group, x, recur, sums, t, m, j, n);
                for (int i = 0; i < S; i++)
                    if (Step::STATE_EFFECT[K + 1][i])
                        give<FULL>(Step::ADD, s.d_state[i] + m * s.stride + j, state[i], n);
            });
        });
    }
}

template <int K> static INLINE void backward_phases(Group &group, long t) {
    if constexpr (K >= 0) {
        const Problem &p = group.p;
        const real *const pack = group.packed + packed_size<0>(p, true) - packed_size<K>(p, true);
        const long tiles = tiles_of(p.width, BACK), size = backward_tile_size<K>(p);
        each_tile_of(p, BACK, group.share, t % 2, [&](long head, long tile) {
            backward_tile<K>(group, pack + (head * tiles + tile) * size, t, head, tile);
        });
        group.meet();
        backward_phases<K - 1>(group, t);
    }
}

static void backward_group(Group &group) {
    const Problem &p = group.p;
    const Direction &d = group.d;
    Scratch &s = group.s;
    each_vector(group, 0, group.samples, [&](auto, int m, long j, int n) {
        const long at = at_state(p, group.sample + m) + j;
        for (int i = 0; i < S; i++)
            store(s.d_state[i] + m * s.stride + j, d.d_end[i] ? load(d.d_end[i] + at, n) : splat(0), n);
        store(s.held + m * s.stride + j, d.d_held ? load(d.d_held + at, n) : splat(0), n);
    });
    for (long i = p.until - 1; i >= p.from; i--) {
        const long t = time_of(p, d, i);
        group.present = present(p, t, group.sample, group.samples);
        hold_back(group, t);
        draw_at(group, t);
        for (int m = 0; m < group.present; m++)
            if (counts(p, t, group.sample + m)) s.previous[m] = previous_step(p, d, i, group.sample + m);
        s.recur = d.recur + row_of(p, t, group.sample) * s.recur_stride;
        each_vector(group, [&](auto full, long j, int n) {
            constexpr bool FULL = decltype(full)::value;
            each_sample<0, FULL>(
                group, j, n, [&](int m, Sums &sums) __attribute__((always_inline)) { advance_back<FULL>(group, sums, t, m, j, n); });
        });
        group.meet();
        if (any_counts(group, t)) backward_phases<PHASES - 1>(group, t);
        clear_where_cut(group, s.d_state, t);
    }
    each_vector(group, 0, group.samples, [&](auto, int m, long j, int n) {
        const long at = at_state(p, group.sample + m) + j;
        for (int i = 0; i < S; i++) store(d.d_start[i] + at, load(s.d_state[i] + m * s.stride + j, n), n);
        if (d.d_held) store(d.d_held + at, load(s.held + m * s.stride + j, n), n);
    });
}
