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

static void lay_out(const Problem &p, long samples, Scratch &s, Arena &arena) {
    s.recur_stride = R * p.units;
    s.own_entering = arena.take(samples * s.stride);
    s.recur = arena.take(samples * s.recur_stride);
    s.normalized = arena.take(samples * p.units);
    s.d_result = arena.take(samples * (R + 1) * p.units);
    s.d_x = arena.take(samples * G * p.units);
    s.moments = arena.take(samples * 2 * ROWS);
    s.means = arena.take(samples * 2 * MOST);
}

void run_forward(const Problem &p) {
    pass_forward(p, [](const Problem &part) { run(part, false, room_for, lay_out, forward_group); });
}
void run_backward(const Problem &p) {
    pass_backward(p, PART, [](const Problem &part) { run(part, true, room_for, lay_out, backward_group); });
}
