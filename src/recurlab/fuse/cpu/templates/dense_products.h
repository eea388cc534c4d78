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
