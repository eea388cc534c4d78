#pragma once
#include "normalized.h"

// The forward of a group of samples in a layer with layer normalisation.

// The products of phase K, tile by tile.
template <int K> static INLINE void multiply_phase(Group &group, long t) {
    const Problem &p = group.p;
    constexpr int gates = gates_in(K), wide = across(gates);
    const real *const packed = group.packed + packed_size<0>(p, false) - packed_size<K>(p, false);
    // In turns forwards and backwards: the weights that the caches hold are those that were read last.
    each_tile_of(p, wide, group.share, t % 2, [&](long head, long tile) {
        const real *const pack = packed + (head * tiles_of(p.width, wide) + tile) * forward_tile_size<K>(p);
        vec acc[GROUP][gates * wide];
        for (int m = 0; m < group.present; m++) {
            // What the tile will write, and what the next step will read, is fetched while it multiplies.
            const long j = head * p.width + tile * wide * W;
            for (int i = 0; i < gates; i++)
                __builtin_prefetch(result_at(group, Step::SLOTS[Step::START[K] + i], m) + j, 1);
            const long next = t + ahead(p, group.d);
            for (int g = 0; K == 0 && next >= 0 && next < p.steps && g < G; g++)
                __builtin_prefetch(group.d.x + at_x(p, next, group.sample + m) + g * p.units + j);
        }
        multiply_all(acc, true, group.present, group.s.entering[K] + head * p.width, group.s.stride, pack, p.width);
        for (int v = 0; v < wide && (tile * wide + v) * W < p.width; v++) {
            const long local = (tile * wide + v) * W, j = head * p.width + local;
            for (int m = 0; m < group.present; m++)
                for (int i = 0; i < gates; i++)
                    store(result_at(group, Step::SLOTS[Step::START[K] + i], m) + j, acc[m][v * gates + i],
                        lanes(p.width, local));
        }
    });
}

template <int TURN> static INLINE void forward_turns(Group &group, long t) {
    const Problem &p = group.p;
    Scratch &s = group.s;
    constexpr int K = TURN < TURNS ? Step::ORDER[TURN] : -1;
    const bool ready = TURN == 0 && K == 0 && Step::OPERAND_IS_STATE && !DIAGONAL && !group.d.dropout &&
        !group.d.entering[0];
    if constexpr (K >= 0 && K < PHASES) s.entering[K] = ready ? s.now[0] : s.own_entering;
    if (!ready)
        each_row(group, [&](auto full, int m, long j, int n) {
            constexpr bool FULL = decltype(full)::value;
            Values in;
            read_values<TURN, FULL>(group, t, m, j, n, in);
            for (int i = 0; i < S; i++) in.state[i] = get<FULL>(s.now[i] + m * s.stride + j, n);
            if constexpr (TURN < TURNS) enter<TURN, FULL>(group, in, t, m, j, n);
            else finish<FULL>(group, in, t, m, j, n);
        });
    group.meet();
    if constexpr (TURN < TURNS) {
        if constexpr (K < PHASES && !DIAGONAL) {
            multiply_phase<K>(group, t);
            group.meet();
        }
        if constexpr (!INPUT_ALONE) {
            const int first = Step::SLOTS[Step::START[K]];
            each_of_team(group, [&](int m) {
                set_moments(group, result_at(group, first, m), gates_in(K), m, result_row(first));
            });
            group.meet();
        }
        forward_turns<TURN + 1>(group, t);
    }
}

static void forward_step(Group &group, long t) {
    const Problem &p = group.p;
    Scratch &s = group.s;
    draw_at(group, t);
    at_step(group, t);
    group.present = present(p, t, group.sample, group.samples);
    pad(group, t);
    clear_where_cut(group, s.now, t);
    for (int m = 0; m < group.present; m++) s.begun[m] |= counts(p, t, group.sample + m);
    each_of_team(group, [&](int m) { set_moments(group, group.d.x + at_x(p, t, group.sample + m), G, m, 0); });
    group.meet();
    forward_turns<0>(group, t);
}

static void forward_group(Group &group) {
    const Problem &p = group.p;
    begin_states(group);
    for (long i = p.from; i < p.until; i++) {
        forward_step(group, time_of(p, group.d, i));
        swap_states(group);
    }
    end_states(group);
}
