#pragma once
#include "dense_forward.h"
#include "dense_backward.h"
#include "dense_threads.h"
#include "pass.h"

// Memory for the groups, and their run.

// The numbers that a group of some samples takes.
static long room_for(const Problem &p, long samples) {
    const long count = samples * ((7 * S + PHASES + 1) * row_stride(p) + Step::KEPT * p.units);
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
    s.recur_stride = Step::KEPT * p.units;
    for (int i = 0; i < S; i++) s.now[i] = arena.take(row), s.next[i] = arena.take(row), s.d_state[i] = arena.take(row);
    for (int i = 0; i < S; i++) s.drawn[i] = arena.take(4 * row);
    for (int k = 0; k < PHASES; k++) s.entering[k] = arena.take(row);
    if (PHASES) s.own_entering = s.entering[0];
    s.held = arena.take(row);
    s.recur = arena.take(samples * s.recur_stride);
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
