#pragma once
#include "threads.h"

// The rows of a packed batch, see recurlab/fuse/packing.py.
struct Packed {
    const long *sizes;            // (T,), samples that have each step
    long *lengths;                // (B,), each from 1 to T
    long *rows, *order, *places;  // (T + 1,), (B,), (N,)
    char *padded, *packed;
    long by_step, by_sample;  // in `padded`, from a step, and from a sample, to the next one
    long bytes;               // of a sample's step
    long steps, batch;
    int threads;
};

static INLINE long place_of(const Packed &p, long t, long b) { return t * p.by_step + p.order[b] * p.by_sample; }
static INLINE long present(const Packed &p, long t) { return p.rows[t + 1] - p.rows[t]; }

// Finds rows and order; of samples of one length the first one comes first.
static void run_plan(const Packed &p) {
    for (long t = 0; t <= p.steps; t++) p.rows[t] = 0;
    for (long b = 0; b < p.batch; b++) p.rows[p.lengths[b]]++;
    long longer = 0;  // how many samples are longer than t, which is the place of the first one of length t
    for (long t = p.steps; t > 0; t--) {
        const long ending = p.rows[t];
        p.rows[t] = longer;
        longer += ending;
    }
    for (long b = 0; b < p.batch; b++) p.order[p.rows[p.lengths[b]]++] = b;
    // Now those of length t are counted too: rows[t + 1] samples have step t.
    for (long t = 0; t < p.steps; t++) p.rows[t + 1] += p.rows[t];
}

// Finds rows and lengths of the samples that each step of a packed batch has, in this order of samples. Where that is
// no packed batch, the last row is -1.
static void run_read(const Packed &p) {
    bool wrong = false;
    for (long b = 0; b < p.batch; b++) p.lengths[b] = 0;
    p.rows[0] = 0;
    for (long t = 0; t < p.steps; t++) {
        wrong |= p.sizes[t] < 1 || p.sizes[t] > (t > 0 ? p.sizes[t - 1] : p.batch);
        p.rows[t + 1] = p.rows[t] + p.sizes[t];
    }
    for (long b = 0, t = p.steps; b < p.batch && !wrong; b++) {
        while (t > 0 && p.sizes[t - 1] <= b) t--;
        wrong |= t == 0 || p.order[b] < 0 || p.order[b] >= p.batch || p.lengths[p.order[b]] != 0;
        if (!wrong) p.lengths[p.order[b]] = t;
    }
    if (wrong) p.rows[p.steps] = -1;
}

static void run_find_places(const Packed &p) {
    long *to = p.places;
    for (long t = 0; t < p.steps; t++)
        for (long b = 0; b < present(p, t); b++) *to++ = place_of(p, t, b);
}

// Calls f(t) for all steps, on threads if there are many of so many bytes.
template <class F> static void each_step(const Packed &p, const F &f) {
    constexpr long SMALL = 1 << 18, SOME = 16;  // bytes that are not worth a thread; steps of an item
    const long items = (p.steps + SOME - 1) / SOME;
    parallel(items, p.steps * p.batch * p.bytes < SMALL ? 1 : p.threads, [&](long i) {
        for (long t = i * SOME; t < p.steps && t < (i + 1) * SOME; t++) f(t);
    });
}

// Sets padding to zero.
static INLINE void clear_step(const Packed &p, long t) {
    for (long b = present(p, t); b < p.batch; b++) __builtin_memset(p.padded + place_of(p, t, b), 0, p.bytes);
}
static void run_clear(const Packed &p) {
    each_step(p, [&](long t) { clear_step(p, t); });
}

// Copies the rows of a padded batch to those of a packed one, and back, where zeros become its padding.
static void run_pack(const Packed &p) {
    each_step(p, [&](long t) {
        for (long b = 0; b < present(p, t); b++)
            __builtin_memcpy(p.packed + (p.rows[t] + b) * p.bytes, p.padded + place_of(p, t, b), p.bytes);
    });
}
static void run_unpack(const Packed &p) {
    each_step(p, [&](long t) {
        for (long b = 0; b < present(p, t); b++)
            __builtin_memcpy(p.padded + place_of(p, t, b), p.packed + (p.rows[t] + b) * p.bytes, p.bytes);
        clear_step(p, t);
    });
}
