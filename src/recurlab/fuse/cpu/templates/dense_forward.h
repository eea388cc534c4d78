#pragma once
#include "dense_group.h"

// The forward of a group of samples.

// Computes what enters phase K for the units from j on, for the products and, if it is kept, for the weight's gradient.
template <int K, bool FULL> static INLINE void enter(Group &group, const Inputs &in, long t, int m, long j, int n) {
    const vec e = dropped<FULL>(group, Step::operand(Phase<K>{}, in.x, in.state, in.recur), m, j, n);
    put<FULL>(group.s.entering[K] + m * group.s.stride + j, e, n);
    if (group.d.entering[K])
        put<FULL>(group.d.entering[K] + row_of(group.p, t, group.sample + m) * group.p.units + j, e, n);
}

// One tile of phase K: its products, then the operand of the next phase or the end of the step.
template <int K> static INLINE void forward_tile(Group &group, const real *pack, long t, long head, long tile) {
    const Problem &p = group.p;
    const Direction &d = group.d;
    Scratch &s = group.s;
    constexpr int gates = gates_in(K), wide = across(gates);
    vec acc[GROUP][gates * wide];
    for (int m = 0; m < group.present; m++) {
        // What the tile will read and write is fetched while it multiplies.
        const long b = group.sample + m, j = head * p.width + tile * wide * W;
        for (int g = 0; g < G; g++) __builtin_prefetch(d.x + at_x(p, t, b) + g * p.units + j, 1);
        if (K + 1 == PHASES) __builtin_prefetch(d.output + at_h(p, t, b) + j, 1);
    }
    multiply_all(acc, true, group.present, s.entering[K] + head * p.width, s.stride, pack, p.width);
    for (int v = 0; v < wide && (tile * wide + v) * W < p.width; v++) {
        const long local = (tile * wide + v) * W, j = head * p.width + local;
        with_lanes(lanes(p.width, local), [&](auto full) {
            constexpr bool FULL = decltype(full)::value;
            const int n = lanes(p.width, local);
            vec bias_ih[G], bias_hh[G];
            read_bias<FULL>(d.bias_ih, p, j, n, bias_ih);
            read_bias<FULL>(d.bias_hh, p, j, n, bias_hh);
            real *x = d.x + at_x(p, t, group.sample) + j;
            for (int m = 0; m < group.present; m++, x += p.x_sample) {
                Inputs in;
                read_inputs<K, FULL>(group, x, bias_ih, m, j, n, in);
                read_states<FULL>(group, s.now, m, j, n, in);
                for (int i = 0; i < gates; i++) {
                    const int g = Step::SLOTS[Step::START[K] + i], kept = Step::KEPT_INDEX[g];
                    in.recur[g] = acc[m][v * gates + i] + bias_hh[g];
                    if (!p.grad && K + 1 == PHASES) continue;
                    if (kept < 0) put<FULL>(x + g * p.units, in.x[g] + in.recur[g], n);
                    else put<FULL>(s.recur + m * s.recur_stride + kept * p.units + j, in.recur[g], n);
                }
                if constexpr (K + 1 < PHASES) enter<K + 1, FULL>(group, in, t, m, j, n);
                else finish<FULL>(group, in, t, m, j, n);
            }
        });
    }
}

template <int K> static INLINE void forward_phases(Group &group, const real *pack, long t) {
    if constexpr (K < PHASES) {
        const Problem &p = group.p;
        constexpr int wide = across(gates_in(K));
        const long tiles = tiles_of(p.width, wide), size = forward_tile_size<K>(p);
        // In turns forwards and backwards: the weights that the caches hold are those that were read last.
        each_tile_of(p, wide, group.share, t % 2, [&](long head, long tile) {
            forward_tile<K>(group, pack + (head * tiles + tile) * size, t, head, tile);
        });
        group.meet();
        forward_phases<K + 1>(group, pack + p.units / p.width * tiles * size, t);
    }
}

static void forward_step(Group &group, long t) {
    const Direction &d = group.d;
    Scratch &s = group.s;
    bool wait = draw_at(group, t) || d.cuts;  // before another thread's units are read
    group.present = present(group.p, t, group.sample, group.samples);
    pad(group, t);
    clear_where_cut(group, s.now, t);
    for (int m = 0; m < group.present; m++) s.begun[m] |= counts(group.p, t, group.sample + m);
    const bool idle = !any_counts(group, t);
    if constexpr (PHASES > 0) {
        s.entering[0] = s.own_entering;
        if (Step::OPERAND_IS_STATE && !d.dropout && !d.entering[0]) s.entering[0] = s.now[0];
        else {
            each_vector(group, 0, group.present, [&](auto full, int m, long j, int n) {
                Inputs in;
                read_inputs<0, decltype(full)::value>(group, t, m, j, n, in);
                read_states<decltype(full)::value>(group, s.now, m, j, n, in);
                enter<0, decltype(full)::value>(group, in, t, m, j, n);
            });
            wait = true;
        }
        if (wait) group.meet();
        if (!idle) return forward_phases<0>(group, group.packed, t);
        each_vector(group, 0, group.present, [&](auto full, int m, long j, int n) {
            const long at = row_of(group.p, t, group.sample + m) * group.p.units + j;
            for (int k = 1; k < PHASES; k++)
                if (d.entering[k]) put<decltype(full)::value>(d.entering[k] + at, splat(0), n);
        });
    }
    each_vector(group, 0, group.present, [&](auto full, int m, long j, int n) {
        Inputs in;
        read_inputs<0, decltype(full)::value>(group, t, m, j, n, in);
        read_states<decltype(full)::value>(group, s.now, m, j, n, in);
        finish<decltype(full)::value>(group, in, t, m, j, n);
    });
    group.meet();
}

static void forward_group(Group &group) {
    const Problem &p = group.p;
    const Direction &d = group.d;
    Scratch &s = group.s;
    begin_states(group);
    group.meet();
    for (long i = p.from; i < p.until; i++) {
        const long t = time_of(p, d, i);
        if (d.recur) s.recur = d.recur + row_of(p, t, group.sample) * s.recur_stride;
        forward_step(group, t);
        swap_states(group);
    }
    end_states(group);
}
