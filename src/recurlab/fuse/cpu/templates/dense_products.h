#pragma once
#include "problem.h"
#include "tiles.h"

// The products of the dense kernels: weights packed once a call, multiplied in tiles of registers.
constexpr int R = Step::RECURRENT;
constexpr int gates_in(int k) { return Step::START[k + 1] - Step::START[k]; }
// Vectors of units in a tile of the forward and of the backward, and its samples.
constexpr int across(int gates) { return gates >= 3 ? 1 : gates == 2 ? 2 : 4; }
constexpr int BACK = 4;

// A head's units in vectors, and in tiles of `wide` vectors.
static INLINE long vectors_of(long units) { return (units + W - 1) / W; }
static INLINE long tiles_of(long units, int wide) { return (vectors_of(units) + wide - 1) / wide; }

// Packing: for each phase, head and tile of units, the weights in the order in which a tile reads them.
template <int K> static long packed_size(const Problem &p, bool back) {
    if constexpr (K == PHASES) return 0;
    else {
        const int wide = back ? BACK : across(gates_in(K)), columns = back ? BACK : wide * gates_in(K);
        const long terms = back ? gates_in(K) * p.width : p.width, heads = p.units / p.width;
        return heads * tiles_of(p.width, wide) * columns * W * terms + packed_size<K + 1>(p, back);
    }
}

// Where the weights lie from a head's first unit to gate `slot` of its unit `to`.
static INLINE const real *weights_at(const Problem &p, const Direction &d, int slot, long head, long to) {
    return d.weight + (Step::SLOTS[slot] * p.units + head * p.width + to) * p.width;
}

// Calls f(head, tile) for one thread's share of the tiles of all heads, in order or backwards.
template <class F>
static INLINE void each_tile_of(const Problem &p, int wide, const Share &share, bool backwards, const F &f) {
    const long tiles = tiles_of(p.width, wide), count = p.units / p.width * tiles;
    const long from = share.from(count), until = share.until(count);
    for (long i = from; i < until; i++) {
        const long tile = backwards ? until - 1 - (i - from) : i;
        f(tile / tiles, tile % tiles);
    }
}

// The sizes of a tile's pack in phase K.
template <int K> static INLINE long forward_tile_size(const Problem &p) {
    return p.width * gates_in(K) * across(gates_in(K)) * W;
}
template <int K> static INLINE long backward_tile_size(const Problem &p) { return gates_in(K) * p.width * BACK * W; }

template <int K = 0> static void pack_forward(const Problem &p, const Direction &d, real *out, const Share &share) {
    if constexpr (K < PHASES) {
        constexpr int gates = gates_in(K), wide = across(gates);
        each_tile_of(p, wide, share, false, [&](long head, long tile) {
            real *const at = out + (head * tiles_of(p.width, wide) + tile) * forward_tile_size<K>(p);
            for (int c = 0; c < wide * gates; c++) {
                const long to = (tile * wide + c / gates) * W;
                const real *const from = weights_at(p, d, Step::START[K] + c % gates, head, to);
                pack(from, {p.width, 1}, p.width - to, 1, p.width, at + c * W, wide * gates * W);
            }
        });
        out += p.units / p.width * tiles_of(p.width, wide) * forward_tile_size<K>(p);
        pack_forward<K + 1>(p, d, out, share);
    }
}

template <int K = 0> static void pack_backward(const Problem &p, const Direction &d, real *out, const Share &share) {
    if constexpr (K < PHASES) {
        each_tile_of(p, BACK, share, false, [&](long head, long tile) {
            real *const at = out + (head * tiles_of(p.width, BACK) + tile) * backward_tile_size<K>(p);
            const long from = tile * BACK * W;
            for (int i = 0; i < gates_in(K); i++)
                pack(weights_at(p, d, Step::START[K] + i, head, 0) + from, {1, p.width}, p.width - from, BACK, p.width,
                    at + i * p.width * BACK * W, BACK * W);
        });
        out += p.units / p.width * tiles_of(p.width, BACK) * backward_tile_size<K>(p);
        pack_backward<K + 1>(p, d, out, share);
    }
}
