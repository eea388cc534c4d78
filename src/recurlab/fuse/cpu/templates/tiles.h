#pragma once
#include "threads.h"

// Products in tiles of rows by vectors of columns, held in registers.
constexpr int TILE = sizeof(vec) == 64 ? 24 : 12;  // accumulators that fit into the registers
constexpr int rows(int columns) { return TILE / columns > 8 ? 8 : TILE / columns > 1 ? TILE / columns : 1; }
constexpr int TERMS = 256;  // of a product that are worked on at a time

static INLINE long least(long a, long b) { return a < b ? a : b; }

// The strides of a matrix whose rows are multiplied.
struct Strides {
    long row, term;
};

// acc[m][c] += sum over k of from[m][k] * pack[k][c], for M rows and C vectors; FIRST: nothing is in acc yet.
template <int M, int C, bool FIRST>
static INLINE void multiply(vec (*acc)[C], const real *from, Strides by, const real *pack, long terms) {
    vec sum[M][C];  // in registers, since nothing refers to it
    for (int m = 0; m < M; m++)
        for (int c = 0; c < C; c++) sum[m][c] = FIRST ? splat(0) : acc[m][c];
#pragma GCC unroll 2  // a small tile's terms are too short for a loop each
    for (long k = 0; k < terms; k++) {
        vec w[C];
        for (int c = 0; c < C; c++) w[c] = load(pack + (k * C + c) * W);
        for (int m = 0; m < M; m++) {
            const vec e = splat(from[m * by.row + k * by.term]);
            for (int c = 0; c < C; c++) sum[m][c] += e * w[c];
        }
    }
    for (int m = 0; m < M; m++)
        for (int c = 0; c < C; c++) acc[m][c] = sum[m][c];
}

template <int N> struct Count {
    static constexpr int value = N;
};

// Calls f(Count<M>, m) for all of some rows, in tiles of M rows from row m on.
template <int FULL, class F> static INLINE void each_tile(int count, const F &f) {
    int m = 0, tiles = count / FULL;
    // Two tiles of four are better than one of six and one of two.
    if (FULL == 6 && tiles > 0 && count % FULL == 2) tiles--;
    for (; m < tiles * FULL; m += FULL) f(Count<FULL>{}, m);
    if constexpr (FULL > 4)
        for (; m + 4 <= count; m += 4) f(Count<4>{}, m);
    if constexpr (FULL > 3)
        if (count - m == 3) return f(Count<3>{}, m);
    if constexpr (FULL > 2)
        if (count - m == 2) return f(Count<2>{}, m);
    if constexpr (FULL > 1)
        if (count - m == 1) f(Count<1>{}, m);
}

// The same for all of some rows, so many terms at a time that their weights stay in the first caches.
template <int C>
static INLINE void multiply_all(
    vec (*acc)[C], bool first, int count, const real *from, long stride, const real *pack, long terms) {
    const auto part = [&](auto first, long k) {
        each_tile<rows(C)>(count, [&](auto tile, int m) {
            multiply<decltype(tile)::value, C, decltype(first)::value>(
                acc + m, from + m * stride + k, {stride, 1}, pack + k * C * W, least(TERMS, terms - k));
        });
    };
    if (first) part(Count<1>{}, 0);
    else part(Count<0>{}, 0);
    for (long k = TERMS; k < terms; k += TERMS) part(Count<0>{}, k);
}

// ---- transposition -----------------------------------------------------------------------------------------

// Two vectors as one, their lanes in turns.
INLINE void interleave(vec a, vec b, vec &low, vec &high) {
#if defined(__clang__)
    for (int i = 0; i < W; i++) {
        low[i] = (i % 2 ? b : a)[i / 2];
        high[i] = (i % 2 ? b : a)[(W + i) / 2];
    }
#else
    mask lane = {};
    for (int i = 0; i < W; i++) lane[i] = i / 2 + i % 2 * W;
    low = __builtin_shuffle(a, b, lane);
    high = __builtin_shuffle(a, b, lane + W / 2);
#endif
}

// Makes rows of columns: interleaving row i with row i + W / 2 moves one bit of the row's number into the column's.
INLINE void transpose(vec (&square)[W]) {
    for (int bit = 1; bit < W; bit *= 2) {
        vec next[W];
        for (int i = 0; i < W / 2; i++) interleave(square[i], square[i + W / 2], next[2 * i], next[2 * i + 1]);
        for (int i = 0; i < W; i++) square[i] = next[i];
    }
}

// ---- packing -----------------------------------------------------------------------------------------------

INLINE vec load_some(const real *from, long n) { return n >= W ? load(from) : load(from, n > 0 ? (int)n : 0); }
INLINE void store_some(real *to, vec v, long n) { n >= W ? store(to, v) : store(to, v, (int)n); }

// Writes the terms of `wide` vectors of columns one after the other, `step` numbers apart, and 0 for the columns from
// `columns` on. `by` says where columns and terms lie; one of its strides is 1, that of columns where `which` picks the terms.
struct Spread {
    long column, term;
};
static void pack(const real *from, Spread by, long columns, int wide, long terms, real *out, long step,
    const long *which = nullptr) {
    if (by.column == 1) {
        for (long k = 0; k < terms; k++)
            for (int c = 0; c < wide; c++)
                store(out + k * step + c * W, load_some(from + (which ? which[k] : k) * by.term + c * W, columns - c * W));
        return;
    }
    for (int c = 0; c < wide; c++)
        for (long k = 0; k < terms; k += W) {
            vec square[W] = {};
            for (int i = 0; i < W && c * W + i < columns; i++)
                square[i] = load_some(from + (c * W + i) * by.column + k, terms - k);
            transpose(square);
            for (int i = 0; i < W && k + i < terms; i++) store(out + (k + i) * step + c * W, square[i]);
        }
}
