// From the slices of a team's blocks to the whole of what enters the next product, in each block.
// CLUSTERED: the blocks are a cluster and write into each other's shared memory; else they meet in the L2 cache.

// Calls f(i) for the numbers below TOTAL that are a thread's.
template <int TOTAL, class F> DEVICE void each_of(int thread, const F &f) {
#pragma unroll 4
    for (int first = 0; first < TOTAL; first += THREADS)
        if (first + THREADS <= TOTAL || first + thread < TOTAL) f(first + thread);
}

// 16 bytes of the slice: `piece` counts those of a sample.
DEVICE const Words *piece_of(const Team &team, int gates, int n, int piece) {
    return (const Words *)(team.slice + n * gates * UNITS) + piece;
}

template <int GATES, int STRIDE> DEVICE const unsigned *exchange_in_cluster(Team &team) {
    constexpr int OF_GATE = UNITS / PER_PIECE, PIECES = GATES * OF_GATE;
    // Two buffers in turn: while one is filled, a block that is late may still multiply with the other.
    unsigned *const full = team.full + team.rounds % 2 * team.full_size;
    block_barrier();  // the slice is complete
    each_of<SAMPLES * PIECES * TEAM>(team.thread, [&](int i) {
        const int piece = i % PIECES, n = i / PIECES % SAMPLES, to = i / PIECES / SAMPLES;
        if (n >= team.live) return;
        unsigned *const place = full + n * STRIDE + (piece / OF_GATE * PADDED + team.rank * UNITS) / PER_WORD + piece % OF_GATE * 4;
        if (TEAM == 1) *(Words *)place = *piece_of(team, GATES, n, piece);
        else cluster_store(in_cluster(place, to), *piece_of(team, GATES, n, piece));
    });
    if (TEAM == 1) block_barrier();
    else cluster_barrier();
    return full;
}

template <int GATES, int STRIDE> DEVICE const unsigned *exchange_in_cache(Team &team) {
    constexpr int OF_GATE = UNITS / PER_PIECE, PIECES = GATES * OF_GATE, OF_ROW = GATES * PADDED / PER_PIECE;
    // Two buffers in turn, as above.
    Words *const shared = team.p.exchange + (team.team * 2 + team.rounds % 2) * team.p.exchange_size;
    block_barrier();  // the slice is complete
    each_of<SAMPLES * PIECES>(team.thread, [&](int i) {
        const int piece = i % PIECES, n = i / PIECES;
        if (n >= team.live) return;
        const int place = n * OF_ROW + (piece / OF_GATE * PADDED + team.rank * UNITS) / PER_PIECE + piece % OF_GATE;
        store_coherent(shared + place, *piece_of(team, GATES, n, piece));
    });
    block_barrier();  // all have stored, and none multiplies any more with what `full` holds
    if (team.thread == 0) {
        signal(team.p.counters + team.team);
        await(team.p.counters + team.team, (team.rounds + 1u) * TEAM, team.p.fault);  // modulo 2^32
    }
    block_barrier();
    each_of<SAMPLES * OF_ROW>(team.thread, [&](int i) {
        if (i / OF_ROW < team.live) *(Words *)(team.full + i / OF_ROW * STRIDE + i % OF_ROW * 4) = load_coherent(shared + i);
    });
    block_barrier();
    return team.full;
}

// Takes the slices of GATES gates, and returns rows of STRIDE words.
template <int GATES, int STRIDE> DEVICE const unsigned *exchange(Team &team) {
    const unsigned *const full = CLUSTERED ? exchange_in_cluster<GATES, STRIDE>(team) : exchange_in_cache<GATES, STRIDE>(team);
    team.rounds++;
    return full;
}
