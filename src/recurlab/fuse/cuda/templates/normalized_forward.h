#pragma once
#include "normalized.h"

// The forward of a layer with layer normalisation. The recurrent weights of a gate are transposed: what they multiply
// is their first dimension.

// What a thread keeps of an element.
struct Element {
    float state[S], drop;
    float x[G], recur[N];  // of the step at hand
};
struct ThreadState {
    Element of[SHARE][SAMPLES];
    Draws fresh;
    int last[SAMPLES], origin[SAMPLES];  // the last step that has counted, or START
};

// Replaces the sums of a block, and those of the squares of how far its numbers are off their mean, by the team's.
template <int COUNT, class F>
DEVICE void join_moments(
    Block &block, float (&sum)[COUNT][SAMPLES], float (&square)[COUNT][SAMPLES], const F &numbers_in) {
    float both[2 * COUNT][SAMPLES];
#pragma unroll
    for (int i = 0; i < COUNT * SAMPLES; i++) {
        both[i / SAMPLES][i % SAMPLES] = sum[i / SAMPLES][i % SAMPLES];
        both[COUNT + i / SAMPLES][i % SAMPLES] = square[i / SAMPLES][i % SAMPLES];
    }
    const auto joined = join(block, both);
#pragma unroll
    for (int i = 0; i < COUNT * SAMPLES; i++) {
        const int row = i / SAMPLES, m = i % SAMPLES;
        float total = 0, numbers = 0, squares = 0;
        for (int r = 0; r < TEAM; r++) total += joined.of(r, row, m), numbers += numbers_in(r);
        for (int r = 0; r < TEAM; r++) {
            const float off = joined.of(r, row, m) / numbers_in(r) - total / numbers;
            squares += joined.of(r, COUNT + row, m) + numbers_in(r) * off * off;
        }
        sum[row][m] = total;
        square[row][m] = squares;
    }
}

// The moments of rows. Each block takes the squares of how far its numbers are off their own mean.
template <class What> DEVICE void find_moments(Block &block, ThreadState &mine, Moments (&of)[What::ROWS_OF][SAMPLES]) {
    constexpr int rows = What::ROWS_OF;
    const auto numbers_in = [](int rank) {
        const int left = HIDDEN - rank * UNITS;
        return float(What::TOGETHER * (left < UNITS ? left : UNITS));
    };
    float sum[rows][SAMPLES] = {}, square[rows][SAMPLES] = {};
    if (CENTERED) {
        each_element(block, mine.of, [&](Element &own, int m, long, long) {
#pragma unroll
            for (int i = 0; i < What::COUNT; i++) sum[i / What::TOGETHER][m] += What::number(own, i);
        });
        add_up(block, sum);
    }
    each_element(block, mine.of, [&](Element &own, int m, long, long) {
#pragma unroll
        for (int i = 0; i < What::COUNT; i++) {
            const float off = What::number(own, i) - sum[i / What::TOGETHER][m] / numbers_in(block.rank);
            square[i / What::TOGETHER][m] += off * off;
        }
    });
    add_up(block, square);
    constexpr float numbers = What::TOGETHER * HIDDEN;
    if constexpr (TEAM > 1) join_moments<rows>(block, sum, square, numbers_in);
#pragma unroll
    for (int i = 0; i < rows * SAMPLES; i++) {
        const int row = i / SAMPLES, m = i % SAMPLES;
        of[row][m] = {sum[row][m] / numbers, 1 / sqrt(square[row][m] / numbers + EPSILON)};
    }
}

template <class What> DEVICE void normalize(Block &block, ThreadState &mine, long t) {
    const Direction &d = *block.d;
    Moments of[What::ROWS_OF][SAMPLES];
    if constexpr (What::NORMAL) find_moments<What>(block, mine, of);
    each_element(block, mine.of, [&](Element &own, int m, long b, long j) {
#pragma unroll
        for (int i = 0; i < What::COUNT; i++) {
            float &number = What::number(own, i);
            if (What::NORMAL) number = (number - of[i / What::TOGETHER][m].mean) * of[i / What::TOGETHER][m].scale;
            number = scaled<What>(d, number, i, j);
        }
        if (!What::NORMAL || j > 0 || !d.moments) return;  // one thread keeps them
        Moments *const kept = (Moments *)d.moments + (t * block.p.batch + b) * ROWS;
#pragma unroll
        for (int row = 0; row < What::ROWS_OF; row++) kept[What::row(row)] = of[row][m];
    });
}

// The products of phase K with what has entered it.
template <int K> DEVICE void multiply_phase(Block &block, ThreadState &mine, long t) {
    const Direction &d = *block.d;
    gather<UNITS * SAMPLES>(block, (float *)block.entering, 1);
    multiply<gates_in(K)>(
        block,
        [&](long j, Numbers *sum) {
#pragma unroll
            for (int i = 0; i < gates_in(K); i++)
                add_product(block, block.entering, Results<K>::gate(i), j, sum[i]);
        },
        [&](int e, long j, const Numbers *sum) {
#pragma unroll
            for (int i = 0; i < gates_in(K); i++) {
                const int g = Results<K>::gate(i);
#pragma unroll
                for (int m = 0; m < SAMPLES; m++) {
                    mine.of[e][m].recur[g] = sum[i].of[m];
                    const long row = (t * block.p.batch + block.first + m) * R + Step::KEPT_INDEX[g];
                    if (d.recur && m < block.live) d.recur[row * HIDDEN + j] = write(sum[i].of[m]);
                }
            }
        });
}

template <int TURN> DEVICE void forward_turns(Block &block, ThreadState &mine, long t) {
    const Direction &d = *block.d;
    if constexpr (TURN < TURNS) {
        constexpr int K = Step::ORDER[TURN];
        each_element(block, mine.of, [&](Element &own, int m, long b, long j) {
            const float operand = Step::operand(Phase<K>{}, own.x, own.state, own.recur);
            if constexpr (K == PHASES) own.recur[G] = operand;
            else {
                const float e = NOISY ? operand * own.drop : operand;
                if (DIAGONAL)
#pragma unroll
                    for (int i = Step::START[K]; i < Step::START[K + 1]; i++)
                        own.recur[Step::SLOTS[i]] = d.weight[Step::SLOTS[i] * HIDDEN + j] * e;
                else {
                    block.entering[j].of[m] = e;
                    if (d.entering[K]) d.entering[K][(t * block.p.batch + b) * HIDDEN + j] = write(e);
                }
            }
        });
        if constexpr (K < PHASES && !DIAGONAL) multiply_phase<K>(block, mine, t);
        normalize<Results<K>>(block, mine, t);
        forward_turns<TURN + 1>(block, mine, t);
    }
}

// The end of a step: applies zoneout and mask, and writes output and states.
DEVICE void finish(Block &block, ThreadState &mine, long t) {
    const Problem &p = block.p;
    const Direction &d = *block.d;
    each_element(block, mine.of, [&](Element &own, int m, long b, long j) {
        const bool skipped = NOISY && mine.origin[m] == SKIPPED;
        float next[S];
        Step::advance(own.x, own.state, own.recur, next);
        if (NOISY) {
            Draws draws = mine.fresh;
            zoneout(p, d, draws, t, b, j, own.state, next);
        }
#pragma unroll
        for (int s = 0; s < S; s++) own.state[s] = skipped ? own.state[s] : next[s];
        const bool empty = skipped && !(p.hold && mine.last[m] != START);
        d.output[at_h(p, t, b) + j] = write(empty ? 0 : own.state[0]);
#pragma unroll
        for (int s = 1; s < S; s++)
            if (d.saved[s]) d.saved[s][(t * p.batch + b) * HIDDEN + j] = write(own.state[s]);
    });
}

DEVICE void forward_step(Block &block, ThreadState &mine, long t) {
    const Problem &p = block.p;
    const Direction &d = *block.d;
#pragma unroll
    for (int m = 0; m < SAMPLES; m++) {
        if (!NOISY || m >= block.live) continue;
        const long index = t * p.batch + block.first + m;
        mine.origin[m] = origin_of(marks_of(p, d, index), mine.last[m]);
        if (mine.origin[m] != SKIPPED) mine.last[m] = (int)t;
        if (d.origin && block.rank == 0 && block.thread == 0) d.origin[index] = mine.origin[m];
    }
    each_element(block, mine.of, [&](Element &own, int m, long b, long j) {
#pragma unroll
        for (int g = 0; g < G; g++) own.x[g] = read(d.x[at_x(p, t, b) + g * HIDDEN + j]);
#pragma unroll
        for (int s = 0; s < S; s++) own.state[s] = NOISY && mine.origin[m] == CUT ? 0 : own.state[s];
    });
    normalize<Input>(block, mine, t);
    forward_turns<0>(block, mine, t);
    finish(block, mine, t);
}

DEVICE void run_forward(const Problem &p) {
    Block block = block_of<(TEAM > 1 ? 2 : 1) * MOST * SAMPLES, 1>(p);
    for (long item = block.team; take(block, item); item += block_count() / TEAM) {
        const Direction &d = *block.d;
        ThreadState mine;
        mine.fresh = no_draws(p, d);
#pragma unroll
        for (int m = 0; m < SAMPLES; m++) mine.last[m] = START;
        each_element(block, mine.of, [&](Element &own, int, long b, long j) {
#pragma unroll
            for (int s = 0; s < S; s++) own.state[s] = d.start[s][b * HIDDEN + j];
            own.drop = NOISY && d.dropout ? d.dropout[b * HIDDEN + j] : 1;
        });
        for (long i = 0; i < p.steps; i++) forward_step(block, mine, time_of(p, block.direction, i));
        each_element(block, mine.of, [&](Element &own, int, long b, long j) {
#pragma unroll
            for (int s = 0; s < S; s++) d.end[s][b * HIDDEN + j] = own.state[s];
        });
    }
}
