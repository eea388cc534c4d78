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

static void lay_out(const Problem &p, long samples, Scratch &s, Arena &arena) {
    s.recur_stride = Step::KEPT * p.units;
    for (int k = 0; k < PHASES; k++) s.entering[k] = arena.take(samples * s.stride);
    if (PHASES) s.own_entering = s.entering[0];
    s.recur = arena.take(samples * s.recur_stride);
}

void run_forward(const Problem &p) {
    pass_forward(p, [](const Problem &part) { run(part, false, room_for, lay_out, forward_group); });
}
void run_backward(const Problem &p) {
    pass_backward(p, PART, [](const Problem &part) { run(part, true, room_for, lay_out, backward_group); });
}
