#pragma once
#include "dense.h"

// The product of a block's weights with what enters a phase, on the tensor cores. PRODUCT says how, see
// Multiplication; sums are float32.

// A word of an operand: two half-precision numbers, or one float.
DEVICE unsigned word_of(float a, float b) {
    if (PRODUCT == STORED) return (unsigned)write(a) | (unsigned)write(b) << 16;
    return PRODUCT == TF32 ? round_tf32(a) : bits_of(a);  // of a weight; what is in a slice has been rounded there
}

// A number of an operand in a slice.
DEVICE Store write_operand(float x) { return write(PRODUCT == TF32 ? float_of(round_tf32(x)) : x); }

// c (16 rows of weights, 8 samples) += a (16 rows, 8 words) * b (8 words, 8 samples)
DEVICE void multiply(float (&c)[4], const unsigned (&a)[4], unsigned b0, unsigned b1) {
    if (PRODUCT == STORED && STORAGE == BFLOAT16) multiply_bf16(c, a, b0, b1);
    else if (PRODUCT == STORED) multiply_f16(c, a, b0, b1);
    else multiply_tf32(c, a, b0, b1);
}

// A float as the sum of two tf32 numbers: 22 of its 24 bits.
struct Parts {
    unsigned high, low;
};
DEVICE Parts parts_of(unsigned word) {
    const unsigned high = round_tf32(float_of(word));
    return {high, round_tf32(float_of(word) - float_of(high))};
}

// The weights of a warp. A sum does not depend on the order of its terms, as long as it is the same for both operands:
// lane q of a row takes words 4q to 4q + 3 of each group, which it reads at once. The first HELD groups of each
// warp are in registers, the rest in shared memory, where each thread reads what it wrote itself.
template <class P> struct Fragments {
    static constexpr int HERE = P::GROUPS_OF_WARP < HELD ? P::GROUPS_OF_WARP : HELD;
    Words here[P::TILES_OF_WARP][HERE > 0 ? HERE : 1][2];
    Words *rest;

    INLINE Words *address(int m, int g, int tile) const {
        return rest + ((m * (P::GROUPS_OF_WARP - HERE) + g - HERE) * 2 + tile) * THREADS;
    }
    INLINE Words get(int m, int g, int tile) const { return g < HERE ? here[m][g][tile] : *address(m, g, tile); }
};
struct Lane {
    int row, q, warp_m, warp_k;
};
DEVICE Lane lane_of(int thread) {
    const int warp = thread / 32;
    return {thread % 32 / 4, thread % 4, warp % WARPS_M, warp / WARPS_M};
}

// Fills the fragments, and returns the address after them in shared memory.
template <class P> DEVICE Words *load_fragments(Fragments<P> &f, Words *rest, const Team &team) {
    const Lane lane = lane_of(team.thread);
    f.rest = rest;
#pragma unroll
    for (int m = 0; m < P::TILES_OF_WARP; m++)
#pragma unroll
        for (int g = 0; g < P::GROUPS_OF_WARP; g++)
#pragma unroll
            for (int tile = 0; tile < 2; tile++) {
                Words words;
#pragma unroll
                for (int i = 0; i < 4; i++) {  // 1 and 3 are 8 rows down, 2 and 3 a word on
                    const int row = (lane.warp_m + m * WARPS_M) * 16 + lane.row + i % 2 * 8;
                    const int depth =
                        ((lane.warp_k * P::GROUPS_OF_WARP + g) * 16 + 4 * lane.q + 2 * tile + i / 2) * PER_WORD;
                    words.w[i] =
                        word_of(P::weight(team, row, depth), PER_WORD == 2 ? P::weight(team, row, depth + 1) : 0);
                }
                if (g < Fragments<P>::HERE) f.here[m][g][tile] = words;
                else *f.address(m, g, tile) = words;
            }
    // Waited for here: otherwise the loop would wait for these and for what it has just fetched together.
#pragma unroll
    for (int m = 0; m < P::TILES_OF_WARP; m++)
#pragma unroll
        for (int g = 0; g < Fragments<P>::HERE; g++)
#pragma unroll
            for (int i = 0; i < 8; i++)
                f.here[m][g][i / 4].w[i % 4] = loaded(f.here[m][g][i / 4].w[i % 4], nothing_in(team.p));
    return rest + P::TILES_OF_WARP * (P::GROUPS_OF_WARP - Fragments<P>::HERE) * 2 * THREADS;
}

// c += a * b for one tile: b's two words, and their parts where the product is split.
DEVICE void multiply_tile(float (&c)[4], const Words &a, const Parts (&parts)[4], unsigned b0, unsigned b1,
    const Parts &p0, const Parts &p1) {
    if (PRODUCT != SPLIT) return multiply(c, a.w, b0, b1);
    const unsigned high[4] = {parts[0].high, parts[1].high, parts[2].high, parts[3].high};
    const unsigned low[4] = {parts[0].low, parts[1].low, parts[2].low, parts[3].low};
    multiply(c, low, p0.high, p1.high);
    multiply(c, high, p0.low, p1.low);
    multiply(c, high, p0.high, p1.high);
}

// Multiplies for the samples of a chunk, and writes each warp's sums over its share of the depth to shared memory.
template <class P> DEVICE void multiply_chunk(Team &team, const Fragments<P> &f, const unsigned *full, int chunk) {
    constexpr int SIDE = CHUNK / 8;
    const Lane lane = lane_of(team.thread);
    float sum[P::TILES_OF_WARP][SIDE][4] = {};
#pragma unroll
    for (int g = 0; g < P::GROUPS_OF_WARP; g++) {
        Words b[SIDE];
        Parts b_parts[SIDE][4] = {}, a_parts[4] = {};
#pragma unroll
        for (int s = 0; s < SIDE; s++) {
            const int n = chunk * CHUNK + s * 8 + lane.row;
            b[s] = *(const Words *)(full + n * P::STRIDE + (lane.warp_k * P::GROUPS_OF_WARP + g) * 16 + 4 * lane.q);
#pragma unroll
            for (int i = 0; i < 4; i++)
                if (PRODUCT == SPLIT) b_parts[s][i] = parts_of(b[s].w[i]);
        }
#pragma unroll
        for (int m = 0; m < P::TILES_OF_WARP; m++)
#pragma unroll
            for (int tile = 0; tile < 2; tile++) {
                const Words a = f.get(m, g, tile);
#pragma unroll
                for (int i = 0; i < 4; i++)
                    if (PRODUCT == SPLIT) a_parts[i] = parts_of(a.w[i]);
#pragma unroll
                for (int s = 0; s < SIDE; s++) {
                    const Parts &p0 = b_parts[s][2 * tile], &p1 = b_parts[s][2 * tile + 1];
                    multiply_tile(sum[m][s], a, a_parts, b[s].w[2 * tile], b[s].w[2 * tile + 1], p0, p1);
                }
            }
    }
    float *const to = team.sums + (team.turn % 2 * WARPS_K + lane.warp_k) * CHUNK * P::SUMS;
#pragma unroll
    for (int m = 0; m < P::TILES_OF_WARP; m++) {
        const int row = (lane.warp_m + m * WARPS_M) * 16 + lane.row;
        if (row >= P::TILES * 16) continue;
#pragma unroll
        for (int s = 0; s < SIDE; s++) {
            float *const at = to + (s * 8 + 2 * lane.q) * P::SUMS + row;
            at[0] = sum[m][s][0];
            at[P::SUMS] = sum[m][s][1];
            at[8] = sum[m][s][2];
            at[P::SUMS + 8] = sum[m][s][3];
        }
    }
}

// The whole sum for a row of the weights and a sample, after all warps have written theirs.
template <class P> DEVICE float total(const Team &team, int row, int n) {
    const float *from = team.sums + team.turn % 2 * WARPS_K * CHUNK * P::SUMS + n % CHUNK * P::SUMS + row;
    float sum = 0;
#pragma unroll
    for (int k = 0; k < WARPS_K; k++) sum += from[k * CHUNK * P::SUMS];
    return sum;
}

// Calls use(index, element, sums) for each live element with the totals of its sample: `sums` has that of its unit in
// each of the ROWS parts of the weights' rows.
template <int ROWS, class P, class F>
DEVICE void multiply_all(Team &team, const Fragments<P> &f, const unsigned *full, const F &use) {
#pragma unroll
    for (int chunk = 0; chunk < CHUNKS; chunk++) {
        if (chunk > 0 && chunk * CHUNK >= team.live) break;
        multiply_chunk<P>(team, f, full, chunk);
        block_barrier();  // one is enough, since the sums of the next chunk lie elsewhere
        float sums[SHARE][ROWS];
#pragma unroll
        for (int e = 0; e < SHARE; e++)
#pragma unroll
            for (int row = 0; row < ROWS; row++)
                sums[e][row] = total<P>(team, row * UNITS + own_unit(team), element_of(team, chunk, e).n);
        warp_barrier();
        each_element(team, chunk, [&](int index, const Element &at) { use(index, at, sums[index - chunk * SHARE]); });
        team.turn++;
    }
}

// The weights of all phases; PhaseOf<K> is the product of phase K, and says what they are: weight(team, row, depth), 0
// where padded.
template <template <int> class PhaseOf, int K = 0, bool = K<PHASES> struct AllWeights {
    Fragments<PhaseOf<K>> own;
    AllWeights<PhaseOf, K + 1> later;
    INLINE void load(const Team &team, Words *rest) {
        rest = load_fragments(own, rest, team);
        later.load(team, rest);
    }
    template <int WANTED> INLINE const Fragments<PhaseOf<WANTED>> &phase() const {
        if constexpr (WANTED == K) return own;
        else return later.template phase<WANTED>();
    }
};
template <template <int> class PhaseOf, int K> struct AllWeights<PhaseOf, K, false> {
    INLINE void load(const Team &, Words *) {}
};
