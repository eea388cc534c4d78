#pragma once
#include "problem.h"

// The products of the dense kernels: weights packed once a call, multiplied in tiles of registers.
constexpr int R = Step::RECURRENT;
constexpr int TILE = sizeof(vec) == 64 ? 24 : 12;  // accumulators that fit into the registers
constexpr int gates_in(int k) { return Step::START[k + 1] - Step::START[k]; }
// Vectors of units in a tile of the forward and of the backward, and its samples.
constexpr int across(int gates) { return gates >= 3 ? 1 : gates == 2 ? 2 : 4; }
constexpr int rows(int columns) { return TILE / columns > 8 ? 8 : TILE / columns > 1 ? TILE / columns : 1; }
constexpr int BACK = 4;
constexpr int TERMS = 128;  // of a product that are worked on at a time

// A head's units in vectors, and in tiles of `wide` vectors.
static INLINE long vectors_of(long units) { return (units + W - 1) / W; }
static INLINE long tiles_of(long units, int wide) { return (vectors_of(units) + wide - 1) / wide; }

// acc[m][c] += sum over k of from[m][k] * pack[k][c], for M samples and C vectors.
template <int M, int C>
static INLINE void multiply(vec (*acc)[C], const real *from, long stride, const real *pack, long terms) {
    vec sum[M][C];  // in registers, since nothing refers to it
    for (int m = 0; m < M; m++)
        for (int c = 0; c < C; c++) sum[m][c] = acc[m][c];
    for (long k = 0; k < terms; k++) {
        vec w[C];
        for (int c = 0; c < C; c++) w[c] = load(pack + (k * C + c) * W);
        for (int m = 0; m < M; m++) {
            const vec e = splat(from[m * stride + k]);
            for (int c = 0; c < C; c++) sum[m][c] += e * w[c];
        }
    }
    for (int m = 0; m < M; m++)
        for (int c = 0; c < C; c++) acc[m][c] = sum[m][c];
}

// Calls f(Rows<M>, m) for all samples of a group, in tiles of M samples from sample m on.
template <int M> struct Rows {
    static constexpr int value = M;
};
template <int FULL, class F> static INLINE void each_tile(int samples, const F &f) {
    int m = 0, tiles = samples / FULL;
    // Two tiles of four are better than one of six and two single samples.
    if (FULL == 6 && tiles > 0 && samples % FULL == 2) tiles--;
    for (; m < tiles * FULL; m += FULL) f(Rows<FULL>{}, m);
    if constexpr (FULL > 4)
        for (; m + 4 <= samples; m += 4) f(Rows<4>{}, m);
    if constexpr (FULL > 1)
        for (; m < samples; m++) f(Rows<1>{}, m);
}

// The same for all samples of a group, as many terms at a time as fit into the L1 cache with their weights.
template <int C>
static INLINE void multiply_all(
    vec (*acc)[C], int samples, const real *from, long stride, const real *pack, long terms) {
    for (long k = 0; k < terms; k += TERMS) {
        const long some = terms - k < TERMS ? terms - k : TERMS;
        each_tile<rows(C)>(samples, [&](auto count, int m) {
            multiply<decltype(count)::value>(acc + m, from + m * stride + k, stride, pack + k * C * W, some);
        });
    }
}

// Packing: for each phase, head and tile of units, the weights in the order in which a tile reads them.
template <int K> static long packed_size(const Problem &p, bool back) {
    if constexpr (K == PHASES) return 0;
    else {
        const int wide = back ? BACK : across(gates_in(K)), columns = back ? BACK : wide * gates_in(K);
        const long terms = back ? gates_in(K) * p.width : p.width, heads = p.units / p.width;
        return heads * tiles_of(p.width, wide) * columns * W * terms + packed_size<K + 1>(p, back);
    }
}

// The weight from unit `from` to gate g of unit `to`, both counted within the head; 0 beyond it.
static INLINE real weight_at(const Problem &p, const Direction &d, int g, long head, long to, long from) {
    return to < p.width ? d.weight[(g * p.units + head * p.width + to) * p.width + from] : 0;
}

template <int K> static void pack_forward(const Problem &p, const Direction &d, real *out) {
    if constexpr (K < PHASES) {
        constexpr int gates = gates_in(K), wide = across(gates);
        for (long head = 0; head < p.units / p.width; head++)
            for (long tile = 0; tile < tiles_of(p.width, wide); tile++, out += p.width * gates * wide * W)
                for (int c = 0; c < wide * gates; c++)
                    for (int lane = 0; lane < W; lane++) {
                        const long to = (tile * wide + c / gates) * W + lane;
                        const int g = Step::SLOTS[Step::START[K] + c % gates];
                        for (long k = 0; k < p.width; k++)
                            out[(k * wide * gates + c) * W + lane] = weight_at(p, d, g, head, to, k);
                    }
        pack_forward<K + 1>(p, d, out);
    }
}

template <int K> static void pack_backward(const Problem &p, const Direction &d, real *out) {
    if constexpr (K < PHASES) {
        for (long head = 0; head < p.units / p.width; head++)
            for (long tile = 0; tile < tiles_of(p.width, BACK); tile++)
                for (int i = 0; i < gates_in(K); i++)
                    for (long k = 0; k < p.width; k++, out += BACK * W)
                        for (int lane = 0; lane < BACK * W; lane++) {
                            const long from = tile * BACK * W + lane;
                            out[lane] =
                                from < p.width ? weight_at(p, d, Step::SLOTS[Step::START[K] + i], head, k, from) : 0;
                        }
        pack_backward<K + 1>(p, d, out);
    }
}
