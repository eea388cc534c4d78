#pragma once
#include "normalized_forward.h"
#include "normalized_backward.h"
#include "dense_threads.h"
#include "pass.h"

// Memory for the groups of a layer with layer normalisation, and their run.

// The numbers that a group of some samples takes.
static long room_for(const Problem &p, long samples) {
    const long count = samples * ((7 * S + 2) * row_stride(p) + (R + R + 2 + G) * p.units + 2 * (ROWS + MOST));
    return (count + W - 1) / W * W;
}

static void run_group(const Problem &p, const Groups &groups, const real *packed, long item, Arena arena, bool back,
    Share share, Meeting *meeting) {
    const long sample = groups.first[item % groups.count];
    const int samples = (int)groups.size(item % groups.count);
    const long row = samples * row_stride(p);
    Group group = {p, p.direction[item / groups.count], packed, sample, samples, samples, {}, share, meeting};
    long previous[GROUP];
    bool begun[GROUP] = {};
    Scratch &s = group.s;
    s.stride = row_stride(p);
    s.recur_stride = R * p.units;
    for (int i = 0; i < S; i++) s.now[i] = arena.take(row), s.next[i] = arena.take(row), s.d_state[i] = arena.take(row);
    for (int i = 0; i < S; i++) s.drawn[i] = arena.take(4 * row);
    s.own_entering = arena.take(row);
    s.held = arena.take(row);
    s.recur = arena.take(samples * s.recur_stride);
    s.normalized = arena.take(samples * p.units);
    s.d_result = arena.take(samples * (R + 1) * p.units);
    s.d_x = arena.take(samples * G * p.units);
    s.moments = arena.take(samples * 2 * ROWS);
    s.means = arena.take(samples * 2 * MOST);
    s.previous = previous;
    s.begun = begun;
    s.four = -1;
    back ? backward_group(group) : forward_group(group);
}

void run_forward(const Problem &p) {
    pass_forward(p, [](const Problem &part) { run(part, false, room_for, run_group); });
}
void run_backward(const Problem &p) {
    pass_backward(p, PART, [](const Problem &part) { run(part, true, room_for, run_group); });
}
