#pragma once
#include "dense_group.h"

// Memory for the groups, and the threads that run them.

// The groups of a direction: their first samples, and the batch's size after the last one. They are of p.samples, or,
// in a packed batch, of about as many steps in this call, so that threads with a group each are ready at the same time.
struct Groups {
    long count = 0, *const first;
    explicit Groups(const Problem &p) : first((long *)__builtin_calloc(p.batch / PART + 2, sizeof(long))) {
        const long wanted = (p.batch + p.samples - 1) / p.samples, steps = p.until - p.from;
        const long all = p.rows ? p.rows[p.until] - p.rows[p.from] : steps * p.batch;
        long done = 0, length = steps;
        for (long b = 0; b < p.batch; b++) {
            while (length > 0 && present(p, p.from + length - 1) <= b) length--;  // until it is that of sample b
            const long size = b - first[count], rest = wanted * (done + length * PART / 2);
            const bool full = p.rows ? size >= GROUP || rest >= (count + 1) * all : size >= p.samples;
            if (size > 0 && b % PART == 0 && full) first[++count] = b;
            done += length;
        }
        first[++count] = p.batch;
    }
    ~Groups() { __builtin_free(first); }
    Groups(const Groups &) = delete;
    long size(long i) const { return first[i + 1] - first[i]; }
    long most() const {
        long found = 0;
        for (long i = 0; i < count; i++) found = size(i) > found ? size(i) : found;
        return found;
    }
};

// Rows of the state's length, and a little longer so that they don't share cache sets, for a group of some samples.
static long row_stride(const Problem &p) { return vectors_of(p.units) * W + W; }

// Memory for one group.
struct Arena {
    real *at;
    real *take(long count) {
        real *const taken = at;
        at += count;
        return taken;
    }
};

// Memory that a group of any loop needs; lay_out gives it what else one takes, and go runs it.
template <class LayOut, class Go>
static void run_group(
    const Problem &p, const Groups &groups, const real *packed, long item, Arena arena, Share share, Meeting *meeting,
    const LayOut &lay_out, const Go &go) {
    const long sample = groups.first[item % groups.count];
    const int samples = (int)groups.size(item % groups.count);
    const long row = samples * row_stride(p);
    Group group = {p, p.direction[item / groups.count], packed, sample, samples, samples, {}, share, meeting};
    long previous[GROUP];
    bool begun[GROUP] = {};
    Scratch &s = group.s;
    s.stride = row_stride(p);
    for (int i = 0; i < S; i++) s.now[i] = arena.take(row), s.next[i] = arena.take(row), s.d_state[i] = arena.take(row);
    for (int i = 0; i < S; i++) s.drawn[i] = arena.take(4 * row);
    s.held = arena.take(row);
    s.previous = previous;
    s.begun = begun;
    s.four = -1;
    lay_out(p, samples, s, arena);
    go(group);
}

// All threads pack the weights together. Then each takes one group after the other, or, if there are fewer groups than
// threads, they form a team for each. room_for(p, samples) gives the numbers that a group takes.
template <class Room, class LayOut, class Go>
static void run(const Problem &p, bool back, const Room &room_for, const LayOut &lay_out, const Go &go) {
    const Groups groups(p);
    const long items = p.directions * groups.count;
    const long size = DIAGONAL ? 0 : packed_size<0>(p, back);
    const long room = room_for(p, groups.most()), places = least(items, p.threads);
    const long weights = p.directions * size, meetings = (places + 1) * sizeof(Meeting) / sizeof(real);
    const Block block(meetings + weights + places * room);
    Meeting *const meeting = (Meeting *)block.at;
    real *const packed = block.at + meetings, *const rooms = packed + weights;
    for (long i = 0; i <= places; i++) meeting[i] = {};
    long next = 0;
    together(p.threads, [&](int rank, int threads) {
        const Share part = {rank, threads};
        for (int d = 0; !DIAGONAL && d < p.directions; d++)
            back ? pack_backward(p, p.direction[d], packed + d * size, part)
                 : pack_forward(p, p.direction[d], packed + d * size, part);
        meeting[places].wait(threads);
        const auto work = [&](long item, long place, const Share &share) {
            const real *const weights = packed + item / groups.count * size;
            run_group(p, groups, weights, item, Arena{rooms + place * room}, share, meeting + place, lay_out, go);
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
