#pragma once
#include "dense_forward.h"
#include "dense_backward.h"

// Memory for the groups, and the threads that run them.

// Rows of the state's length, and a little longer so that they don't share cache sets, for a group of p.samples.
static long row_stride(const Problem &p) { return vectors_of(p.units) * W + W; }
static long room_for(const Problem &p) {
    const long count = p.samples * ((7 * S + PHASES + 1) * row_stride(p) + Step::KEPT * p.units);
    return (count + W - 1) / W * W;
}

// Memory for one group.
struct Arena {
    real *at;
    real *take(long count) {
        real *const taken = at;
        at += count;
        return taken;
    }
};

static void run_group(
    const Problem &p, const real *packed, long item, Arena arena, bool back, Share share, Meeting *meeting) {
    const long groups = (p.batch + p.samples - 1) / p.samples, sample = item % groups * p.samples;
    const int samples = (int)least(p.samples, p.batch - sample);
    const long row = samples * row_stride(p);
    Group group = {p, p.direction[item / groups], packed, sample, samples, samples, {}, share, meeting};
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

// All threads pack the weights together. Then each takes one group after the other, or, if there are fewer groups than
// threads, they form a team for each.
static void run(const Problem &p, bool back) {
    const long groups = (p.batch + p.samples - 1) / p.samples, items = p.directions * groups;
    const long size = packed_size<0>(p, back), room = room_for(p), places = least(items, p.threads);
    const long weights = p.directions * size, meetings = (places + 1) * sizeof(Meeting) / sizeof(real);
    const Block block(meetings + weights + places * room);
    Meeting *const meeting = (Meeting *)block.at;
    real *const packed = block.at + meetings, *const rooms = packed + weights;
    for (long i = 0; i <= places; i++) meeting[i] = {};
    long next = 0;
    together(p.threads, [&](int rank, int threads) {
        const Share part = {rank, threads};
        for (int d = 0; d < p.directions; d++)
            back ? pack_backward(p, p.direction[d], packed + d * size, part)
                 : pack_forward(p, p.direction[d], packed + d * size, part);
        meeting[places].wait(threads);
        const auto work = [&](long item, long place, const Share &share) {
            run_group(p, packed + item / groups * size, item, {rooms + place * room}, back, share, meeting + place);
        };
        const int members = (int)(threads / items);
        if (members > 1) {
            if (rank < items * members) work(rank / members, rank / members, {rank % members, members});
            return;
        }
        for (long item; (item = __atomic_fetch_add(&next, 1, __ATOMIC_RELAXED)) < items;)
            work(item, places < threads ? item : rank, {0, 1});
    });
}

void run_forward(const Problem &p) { run(p, false); }
void run_backward(const Problem &p) { run(p, true); }
