#pragma once
#include "dense.h"

// Gathers the slices of a team's blocks into all that enters the next product, in each block.
// CLUSTERED: the blocks are a cluster and write into each other's shared memory; else they meet in the L2 cache.

// A slice is sent in pieces of 16 bytes: for sample `n`, piece number `piece` of the OF_GATE pieces of a gate.
constexpr int OF_GATE = UNITS / PER_PIECE, OF_SLICE = SAMPLES * OF_GATE;
struct Piece {
    int to, n, piece;  // to: the block of the team
};
// Piece number first + thread, counting OF_SLICE pieces for each block. `first` is a multiple of THREADS, and a
// constant where the loop is unrolled: then what is computed from it is a constant too.
DEVICE Piece piece_of(int first, unsigned thread) {
    static_assert((THREADS % OF_SLICE == 0 || OF_SLICE % THREADS == 0) && THREADS % OF_GATE == 0, "");
    const int n = first % OF_SLICE / OF_GATE + thread % OF_SLICE / OF_GATE;
    return {int(first / OF_SLICE + thread / OF_SLICE), n, int(thread % OF_GATE)};
}

// Calls send(piece, gate, words) for the thread's pieces of BLOCKS slices, GATES each. Several words are read from the
// slice before the first is sent, so that the thread does not wait for each.
template <int GATES, int BLOCKS, class F> DEVICE void each_piece(const Team &team, const F &send) {
    constexpr int TOTAL = BLOCKS * OF_SLICE, COUNT = (TOTAL + THREADS - 1) / THREADS, MOST = GATES > 2 ? 1 : 4 / GATES;
    constexpr int BATCH = COUNT < MOST ? COUNT : MOST;
#pragma unroll 4
    for (int first = 0; first < COUNT; first += BATCH) {
        Words words[BATCH][GATES];
#pragma unroll
        for (int k = 0; k < BATCH * GATES; k++) {
            const Piece at = piece_of((first + k / GATES) * THREADS, team.thread);
            words[k / GATES][k % GATES] = ((const Words *)team.slice)[(at.n * GATES + k % GATES) * OF_GATE + at.piece];
        }
#pragma unroll
        for (int k = 0; k < BATCH * GATES; k++) {
            const Piece at = piece_of((first + k / GATES) * THREADS, team.thread);
            if (TOTAL % (BATCH * THREADS) == 0 || at.to < BLOCKS) send(at, k % GATES, words[k / GATES][k % GATES]);
        }
    }
}
// The index of a piece in the row of its sample.
DEVICE int in_row(const Team &team, int gate, int piece) {
    return (gate * PADDED + team.rank * UNITS) / PER_PIECE + piece;
}

// The two buffers are filled in turn, by blocks that are at most one exchange apart: before a block sends into a buffer
// again, it has received the slices of the exchange between, whose senders had finished multiplying with that buffer.
template <int GATES, int STRIDE, class F> DEVICE const unsigned *exchange_in_cluster(Team &team, const F &meanwhile) {
    const unsigned buffer = team.rounds % 2;
    unsigned *const full = team.full + buffer * team.full_size;
    Arrivals *const arrivals = team.arrivals + buffer;
    if (TEAM > 1 && team.thread == 0) arrivals_expect(arrivals, GATES * OF_SLICE * TEAM * sizeof(Words));
    block_barrier();  // the slice is complete
    each_piece<GATES, TEAM>(team, [&](const Piece &at, int gate, const Words &words) {
        Words *const to = (Words *)full + at.n * STRIDE / 4 + in_row(team, gate, at.piece);
        if (TEAM == 1) *to = words;
        else cluster_send(in_cluster(to, at.to), words, in_cluster(arrivals, at.to));
    });
    meanwhile();
    if (TEAM == 1) block_barrier();
    else arrivals_await(arrivals, team.rounds / 2 % 2, team.p.fault);
    return full;
}

template <int GATES, int STRIDE, class F> DEVICE const unsigned *exchange_in_cache(Team &team, const F &meanwhile) {
    constexpr int OF_ROW = GATES * PADDED / PER_PIECE;
    // Two buffers in turn, as above.
    Words *const shared = team.exchange + team.rounds % 2 * team.exchange_size;
    block_barrier();  // the slice is complete
    each_piece<GATES, 1>(team, [&](const Piece &at, int gate, const Words &words) {
        store_coherent(shared + at.n * OF_ROW + in_row(team, gate, at.piece), words);
    });
    block_barrier();  // all have stored, and none still multiplies with what `full` holds
    if (team.thread == 0) signal(team.counter);
    meanwhile();
    if (team.thread == 0) await(team.counter, (team.rounds + 1) * TEAM, team.p.fault);  // modulo 2^32
    block_barrier();
    // A warp copies whole rows: the addresses of all its pieces differ by constants.
    const unsigned warp = team.thread / 32, lane = team.thread % 32;
    const Words *const from = shared + warp * OF_ROW + lane;
    Words *const to = (Words *)(team.full + warp * STRIDE) + lane;
#pragma unroll 2
    for (int n = 0; n < SAMPLES; n += THREADS / 32) {
        if (n + warp >= team.live) break;
#pragma unroll
        for (int piece = 0; piece < OF_ROW; piece += 32)
            if (piece + 32 <= OF_ROW || piece + lane < OF_ROW)
                copy_coherent(to + n * STRIDE / 4 + piece, from + n * OF_ROW + piece);
    }
    copies_arrived();
    block_barrier();
    return team.full;
}

// Exchanges the slices of GATES gates and returns rows of STRIDE words; meanwhile() runs while they are on their way. A
// signal waits for everything that its block has written before, so results are written in meanwhile(), after it.
template <int GATES, int STRIDE, class F> DEVICE const unsigned *exchange(Team &team, const F &meanwhile) {
    const unsigned *full;
    if (CLUSTERED) full = exchange_in_cluster<GATES, STRIDE>(team, meanwhile);
    else full = exchange_in_cache<GATES, STRIDE>(team, meanwhile);
    team.rounds++;
    return full;
}
