#pragma once
#include "normalized.h"

// The forward of a layer with layer normalisation. The recurrent weights of a gate are transposed: what they multiply is
// their first dimension.

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

template <class What> DEVICE void normalize(const Block &block, ThreadState &mine, long t) {
    const Direction &d = block.d;
    constexpr float numbers = What::TOGETHER * HIDDEN;
    float mean[What::ROWS_OF][SAMPLES] = {}, scale[What::ROWS_OF][SAMPLES] = {};
    if (What::NORMAL && CENTERED) {
        each_element(block, mine.of, [&](Element &own, int m, long, long) {
#pragma unroll
            for (int i = 0; i < What::COUNT; i++) mean[i / What::TOGETHER][m] += What::number(own, i);
        });
        add_up(block, mean);
#pragma unroll
        for (int i = 0; i < What::ROWS_OF * SAMPLES; i++) mean[i / SAMPLES][i % SAMPLES] /= numbers;
    }
    if (What::NORMAL) {
        each_element(block, mine.of, [&](Element &own, int m, long, long) {
#pragma unroll
            for (int i = 0; i < What::COUNT; i++) {
                const float off = What::number(own, i) - mean[i / What::TOGETHER][m];
                scale[i / What::TOGETHER][m] += off * off;
            }
        });
        add_up(block, scale);
#pragma unroll
        for (int i = 0; i < What::ROWS_OF * SAMPLES; i++) {
            float &each = scale[i / SAMPLES][i % SAMPLES];
            each = 1 / sqrt(each / numbers + EPSILON);
        }
    }
    each_element(block, mine.of, [&](Element &own, int m, long b, long j) {
#pragma unroll
        for (int i = 0; i < What::COUNT; i++) {
            const int row = i / What::TOGETHER;
            float &number = What::number(own, i);
            if (What::NORMAL) number = (number - mean[row][m]) * scale[row][m];
            number = scaled<What>(d, number, i, j);
        }
        if (!What::NORMAL || j > 0 || !d.moments) return;  // one thread keeps them
        Moments *const kept = (Moments *)d.moments + (t * block.p.batch + b) * ROWS;
#pragma unroll
        for (int row = 0; row < What::ROWS_OF; row++) kept[What::row(row)] = {mean[row][m], scale[row][m]};
    });
}

// The products of phase K with what has entered it.
template <int K> DEVICE void multiply(const Block &block, ThreadState &mine, long t) {
    const Direction &d = block.d;
    block_barrier();  // all of it has entered
    each_unit(block, [&](int e, long j) {
#pragma unroll
        for (int i = 0; i < gates_in(K); i++) {
            const int g = Step::SLOTS[Step::START[K] + i];
            float sum[SAMPLES] = {};
            add_product(d, block.entering, g, j, sum);
#pragma unroll
            for (int m = 0; m < SAMPLES; m++) {
                mine.of[e][m].recur[g] = sum[m];
                const long row = (t * block.p.batch + block.first + m) * R + Step::KEPT_INDEX[g];
                if (d.recur && m < block.live) d.recur[row * HIDDEN + j] = write(sum[m]);
            }
        }
    });
    if (PHASES > 1 && INPUT_ALONE) block_barrier();  // else those of sums come before what is multiplied is replaced
}

template <int TURN> DEVICE void forward_turns(const Block &block, ThreadState &mine, long t) {
    const Direction &d = block.d;
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
        if constexpr (K < PHASES && !DIAGONAL) multiply<K>(block, mine, t);
        normalize<Results<K>>(block, mine, t);
        forward_turns<TURN + 1>(block, mine, t);
    }
}

// The end of a step: applies zoneout and mask, and writes output and states.
DEVICE void finish(const Block &block, ThreadState &mine, long t) {
    const Problem &p = block.p;
    const Direction &d = block.d;
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

DEVICE void forward_step(const Block &block, ThreadState &mine, long t) {
    const Problem &p = block.p;
    const Direction &d = block.d;
#pragma unroll
    for (int m = 0; m < SAMPLES; m++) {
        if (!NOISY || m >= block.live) continue;
        const long index = t * p.batch + block.first + m;
        mine.origin[m] = origin_of(marks_of(p, d, index), mine.last[m]);
        if (mine.origin[m] != SKIPPED) mine.last[m] = (int)t;
        if (d.origin && block.thread == 0) d.origin[index] = mine.origin[m];
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
    const Block block = block_of(p, MOST * SAMPLES);
    const Direction &d = block.d;
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
