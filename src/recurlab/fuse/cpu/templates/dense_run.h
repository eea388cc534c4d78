#pragma once
#include "dense_forward.h"
#include "dense_backward.h"

// Memory for the groups, and the threads that run them.

// Memory for one group, all zero: rows of the state's length, and a little longer so that they don't share cache sets.
struct Arena {
    real *at;
    real *take(long count) {
        real *const taken = at;
        at += count;
        return taken;
    }
};

static void run_group(const Problem &p, const real *const *packed, long item, bool back) {
    const long groups = (p.batch + p.samples - 1) / p.samples, sample = item % groups * p.samples;
    const long left = p.batch - sample, samples = left < p.samples ? left : p.samples;
    const long stride = vectors_of(p.units) * W + W, row = samples * stride;
    Group group = {p, p.direction[item / groups], packed[item / groups], sample, (int)samples, (int)samples, {}};
    const Block room((7 * S + PHASES + 1) * row + samples * Step::KEPT * p.units, true);
    long *const previous = (long *)__builtin_calloc(samples, sizeof(long));
    bool *const begun = (bool *)__builtin_calloc(samples, sizeof(bool));
    Arena arena = {room.at};
    Scratch &s = group.s;
    s.stride = stride;
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
    __builtin_free(previous);
    __builtin_free(begun);
}

static void run(const Problem &p, bool back) {
    const Block rooms[2] = {Block(packed_size<0>(p, back)), Block(p.directions > 1 ? packed_size<0>(p, back) : 0)};
    const real *const packed[2] = {rooms[0].at, rooms[1].at};
    parallel(p.directions, p.threads, [&](long i) {
        back ? pack_backward<0>(p, p.direction[i], rooms[i].at) : pack_forward<0>(p, p.direction[i], rooms[i].at);
    });
    const long groups = (p.batch + p.samples - 1) / p.samples;
    parallel(p.directions * groups, p.threads, [&](long i) { run_group(p, packed, i, back); });
}

void run_forward(const Problem &p) { run(p, false); }
void run_backward(const Problem &p) { run(p, true); }
