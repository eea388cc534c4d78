// From the slices of a team's blocks to the whole of what enters the next product, in each block.
// CLUSTERED: the blocks are a cluster and write into each other's shared memory; else they meet in the L2 cache.

// A slice is sent in pieces of 16 bytes, and each is that of a sample `n` and of `piece` OF_GATE of a gate.
constexpr int OF_GATE = UNITS / PER_PIECE, OF_SLICE = SAMPLES * OF_GATE;
struct Piece {
    int to, n, piece;  // to: the block of the team
};
// Piece number first + thread of OF_SLICE pieces for each block; `first` is a multiple of THREADS, and a constant if the loop
// is unrolled: then what follows from it is one too.
DEVICE Piece piece_of(int first, unsigned thread) {
    static_assert((THREADS % OF_SLICE == 0 || OF_SLICE % THREADS == 0) && THREADS % OF_GATE == 0, "");
    const int n = first % OF_SLICE / OF_GATE + thread % OF_SLICE / OF_GATE;
    return {int(first / OF_SLICE + thread / OF_SLICE), n, int(thread % OF_GATE)};
}

// Calls send(piece, gate, words) for those of BLOCKS slices that are the thread's, GATES each. Some words are read from the
// slice at once and then sent, so that not each has to be waited for.
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
// The place of a piece in the row of its sample.
DEVICE int in_row(const Team &team, int gate, int piece) { return (gate * PADDED + team.rank * UNITS) / PER_PIECE + piece; }

// The two buffers are filled in turn, by blocks that are at most one exchange apart: to send into a buffer again a block has
// needed the slices of the exchange between, and those were sent by blocks that no longer multiplied with it.
template <int GATES, int STRIDE, class F> DEVICE const unsigned *exchange_in_cluster(Team &team, const F &meanwhile) {
    const unsigned buffer = team.rounds % 2;
    unsigned *const full = team.full + buffer * team.full_size;
    Arrivals *const arrivals = team.arrivals + buffer;
    if (TEAM > 1 && team.thread == 0) arrivals_expect(arrivals, GATES * OF_SLICE * TEAM * sizeof(Words));
    block_barrier();  // the slice is complete
    each_piece<GATES, TEAM>(team, [&](const Piece &at, int gate, const Words &words) {
        Words *const place = (Words *)full + at.n * STRIDE / 4 + in_row(team, gate, at.piece);
        if (TEAM == 1) *place = words;
        else cluster_send(in_cluster(place, at.to), words, in_cluster(arrivals, at.to));
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
    block_barrier();  // all have stored, and none multiplies any more with what `full` holds
    if (team.thread == 0) signal(team.counter);
    meanwhile();
    if (team.thread == 0) await(team.counter, (team.rounds + 1) * TEAM, team.p.fault);  // modulo 2^32
    block_barrier();
    // A warp copies whole rows: the places of all its pieces differ by constants.
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

// Takes the slices of GATES gates, and returns rows of STRIDE words; meanwhile() is done while they are on their way. A
// signal waits until all that its block has written before has arrived, so that results are written here, after it.
template <int GATES, int STRIDE, class F> DEVICE const unsigned *exchange(Team &team, const F &meanwhile) {
    const unsigned *full;
    if (CLUSTERED) full = exchange_in_cluster<GATES, STRIDE>(team, meanwhile);
    else full = exchange_in_cache<GATES, STRIDE>(team, meanwhile);
    team.rounds++;
    return full;
}
