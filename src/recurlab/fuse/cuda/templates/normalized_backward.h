#pragma once
#include "normalized_past.h"

// The backward of a layer with layer normalisation.

// Adds what one stage gives to the gradients.
template <int STAGE>
DEVICE void collect(Element &own, const float *from_x, const float *from_recur, const float *from_state) {
#pragma unroll
    for (int g = 0; g < G; g++)
        if (Step::X_EFFECT[STAGE][g]) own.d_x[g] += from_x[g];
#pragma unroll
    for (int g = 0; g < N; g++)
        if (Step::PHASE[g] >= 0 && Step::RECUR_EFFECT[STAGE][g]) own.d_recur[g] += from_recur[g];
#pragma unroll
    for (int s = 0; s < S; s++)
        if (Step::STATE_EFFECT[STAGE][s]) own.d_before[s] += from_state[s];
}

// The first stage: from the gradients of output and new states.
DEVICE void advance_back(Block &block, ThreadState &mine, long t) {
    const Problem &p = block.p;
    const Direction &d = *block.d;
    each_element(block, mine.of, [&](Element &own, int m, long b, long j) {
        const float d_output = d.d_output ? read(d.d_output[at_d(p, t, b) + j]) : 0;
#pragma unroll
        for (int g = 0; g < G; g++) own.d_x[g] = 0;
#pragma unroll
        for (int g = 0; g < N; g++) own.d_recur[g] = 0;
        if (NOISY && mine.origin[m] == SKIPPED) {
            if (p.hold) own.held += d_output;
            return;
        }
        read_past(block, mine, own, t, m, b, j);
        float d_next[S], from_x[G], from_recur[N], from_state[S];
#pragma unroll
        for (int s = 0; s < S; s++) d_next[s] = own.d_state[s], own.d_before[s] = 0;
        d_next[0] += d_output;
        if (NOISY) {
            d_next[0] += own.held;
            own.held = 0;
            Draws draws = mine.fresh;
            refresh(p, d, draws, t, b, j);
            zoneout_gradient(p, d, draws, t, d_next, own.d_before);
        }
        const Values values = values_of(d, own, j);
        Step::advance_gradient(values.x, own.state, values.recur, d_next, from_x, from_recur, from_state);
        collect<0>(own, from_x, from_recur, from_state);
    });
}

struct Inputs : Input {
    static INLINE float &gradient(Element &own, int i) { return own.d_x[i]; }
    static INLINE float &d_gain(Sums &sums, int i) { return sums.gain_ih[i]; }
    static INLINE float &d_bias(Sums &sums, int i) { return sums.bias_ih[i]; }
};
template <int K> struct Recurrences : Results<K> {
    static INLINE float &gradient(Element &own, int i) { return own.d_recur[Results<K>::gate(i)]; }
    static INLINE float &d_gain(Sums &sums, int i) { return sums.gain_hh[Results<K>::gate(i)]; }
    static INLINE float &d_bias(Sums &sums, int i) { return sums.bias_hh[Results<K>::gate(i)]; }
};

// Replaces each number by the sum of those of the team's blocks.
template <int COUNT> DEVICE void add_up_team(Block &block, float (&sum)[COUNT][SAMPLES]) {
    if constexpr (TEAM > 1) {
        const auto joined = join(block, sum);
#pragma unroll
        for (int i = 0; i < COUNT * SAMPLES; i++) {
            float total = 0;
            for (int r = 0; r < TEAM; r++) total += joined.of(r, i / SAMPLES, i % SAMPLES);
            sum[i / SAMPLES][i % SAMPLES] = total;
        }
    }
}

// From the gradients of what has been normalised to those of what was to be, and to the sums for gains and biases. For
// a row v of numbers whose normal form is n, with the gradient d of gain * n:
// (d * gain - mean(d * gain) - n * mean(d * gain * n)) * scale.
template <class What> DEVICE void normalize_back(Block &block, ThreadState &mine) {
    constexpr float numbers = What::TOGETHER * HIDDEN;
    constexpr int rows = What::ROWS_OF;
    float mean[2 * rows][SAMPLES] = {};  // of the rows' gradients, then of their products with the rows
    if (What::NORMAL) {
        each_counting(block, mine, [&](Element &own, int m, long, long j, Sums &) {
#pragma unroll
            for (int i = 0; i < What::COUNT; i++) {
                const float v = What::gradient(own, i) * What::gain(*block.d)[What::gate(i) * HIDDEN + j];
                if (CENTERED) mean[i / What::TOGETHER][m] += v;
                mean[rows + i / What::TOGETHER][m] += v * What::number(own, i);
            }
        });
        add_up(block, mean);
        add_up_team(block, mean);
#pragma unroll
        for (int i = 0; i < 2 * rows * SAMPLES; i++) mean[i / SAMPLES][i % SAMPLES] /= numbers;
    }
    each_counting(block, mine, [&](Element &own, int m, long, long j, Sums &sums) {
#pragma unroll
        for (int i = 0; i < What::COUNT; i++) {
            float &gradient = What::gradient(own, i);
            const int row = i / What::TOGETHER;
            What::d_bias(sums, i) += gradient;
            if (!What::NORMAL) continue;
            const float number = What::number(own, i), gain = What::gain(*block.d)[What::gate(i) * HIDDEN + j];
            What::d_gain(sums, i) += gradient * number;
            gradient = (gradient * gain - mean[row][m] - mean[rows + row][m] * number) *
                mine.moments[m][What::row(row)].scale;
        }
    });
}

// Adds what the gradient of a phase's operand gives to the others.
template <int K> DEVICE void operand_back(const Block &block, Element &own, long j, float d_operand) {
    float from_x[G], from_recur[N], from_state[S];
    const Values values = values_of(*block.d, own, j);
    Step::operand_gradient(
        Phase<K>{}, values.x, own.state, values.recur, d_operand, from_x, from_recur, from_state);
    collect<K + 1>(own, from_x, from_recur, from_state);
}

template <int K> DEVICE void diagonal_back(Block &block, ThreadState &mine) {
    each_counting(block, mine, [&](Element &own, int, long, long j, Sums &sums) {
        const Values values = values_of(*block.d, own, j);
        const float operand = Step::operand(Phase<K>{}, values.x, own.state, values.recur);
        const float drop = NOISY ? own.drop : 1;
        float d_operand = 0;
#pragma unroll
        for (int i = 0; i < gates_in(K); i++) {
            const int g = Results<K>::gate(i);
            d_operand += block.d->weight[g * HIDDEN + j] * own.d_recur[g];
            sums.weight[g] += own.d_recur[g] * operand * drop;
        }
        operand_back<K>(block, own, j, d_operand * drop);
    });
}

template <int K> DEVICE void dense_back(Block &block, ThreadState &mine, long t) {
    const Direction &d = *block.d;
    each_element(block, mine.of, [&](Element &own, int m, long b, long j) {
#pragma unroll
        for (int i = 0; i < gates_in(K); i++) {
            const int g = Results<K>::gate(i);
            block.entering[i * PADDED + j].of[m] = own.d_recur[g];
            const long row = (t * block.p.batch + b) * R + Step::OWN_INDEX[g];
            d.d_recur[row * HIDDEN + j] = write(own.d_recur[g]);
        }
    });
    gather<UNITS * SAMPLES>(block, (float *)block.entering, gates_in(K));
    multiply<1>(
        block,
        [&](long j, Numbers *sum) {
            for (int i = 0; i < gates_in(K); i++)
                add_product(block, block.entering + i * PADDED, Results<K>::gate(i), j, *sum);
        },
        [&](int e, long j, const Numbers *sum) {
#pragma unroll
            for (int m = 0; m < SAMPLES; m++) {
                Element &own = mine.of[e][m];
                if (m < block.live && !(NOISY && mine.origin[m] == SKIPPED))
                    operand_back<K>(block, own, j, NOISY ? sum->of[m] * own.drop : sum->of[m]);
            }
        });
}

template <int TURN> DEVICE void backward_turns(Block &block, ThreadState &mine, long t) {
    if constexpr (TURN >= 0) {
        constexpr int K = Step::ORDER[TURN];
        normalize_back<Recurrences<K>>(block, mine);
        if constexpr (K == PHASES)
            each_counting(block, mine, [&](Element &own, int, long, long j, Sums &) {
                operand_back<K>(block, own, j, own.d_recur[G]);
            });
        else if constexpr (DIAGONAL) diagonal_back<K>(block, mine);
        else dense_back<K>(block, mine, t);
        backward_turns<TURN - 1>(block, mine, t);
    }
}

DEVICE void backward_step(Block &block, ThreadState &mine, long i) {
    const Problem &p = block.p;
    const Direction &d = *block.d;
    const long t = time_of(p, block.direction, i);
#pragma unroll
    for (int m = 0; m < SAMPLES; m++) {
        if (m >= block.live) continue;
        const long b = block.first + m;
        mine.origin[m] = origin_of(p, d, block.direction, i, b);
#pragma unroll
        for (int row = 0; row < ROWS; row++)
            mine.moments[m][row] = ((const Moments *)d.moments)[(t * p.batch + b) * ROWS + row];
    }
    advance_back(block, mine, t);
    backward_turns<TURNS - 1>(block, mine, t);
    normalize_back<Inputs>(block, mine);
    each_element(block, mine.of, [&](Element &own, int m, long b, long j) {
#pragma unroll
        for (int g = 0; g < G; g++) d.d_x[at_d_x(p, t, b) + g * HIDDEN + j] = write(own.d_x[g]);
        if (NOISY && mine.origin[m] == SKIPPED) return;
#pragma unroll
        for (int s = 0; s < S; s++) own.d_state[s] = NOISY && mine.origin[m] == CUT ? 0 : own.d_before[s];
    });
}

DEVICE void write_sums(const Block &block, const ThreadState &mine) {
    const Direction &d = *block.d;
    each_unit(block, [&](int e, long j) {
        const Sums &sums = mine.sums[e];
        const long first = block.group * N * HIDDEN + j;
#pragma unroll
        for (int g = 0; g < N; g++) {
            const long at = first + g * HIDDEN;
            d.d_gain_hh[at] = sums.gain_hh[g];
            d.d_bias_hh[at] = sums.bias_hh[g];
            if (g == G) continue;
            d.d_gain_ih[at] = sums.gain_ih[g];
            d.d_bias_ih[at] = sums.bias_ih[g];
            if (DIAGONAL) d.d_weight[at] = sums.weight[g];
        }
    });
}

DEVICE void run_backward(const Problem &p) {
    Block block = block_of<2 * MOST * SAMPLES, most_gates()>(p);
    for (long item = block.team; take(block, item); item += block_count() / TEAM) {
        const Direction &d = *block.d;
        ThreadState mine;
        mine.fresh = no_draws(p, d);
#pragma unroll
        for (int e = 0; e < SHARE; e++) mine.sums[e] = {};
        each_element(block, mine.of, [&](Element &own, int, long b, long j) {
#pragma unroll
            for (int s = 0; s < S; s++) own.d_state[s] = d.d_end[s][b * HIDDEN + j];
            own.drop = NOISY && d.dropout ? d.dropout[b * HIDDEN + j] : 1;
            own.held = 0;
        });
        for (long i = p.steps - 1; i >= 0; i--) backward_step(block, mine, i);
        write_sums(block, mine);
        each_element(block, mine.of, [&](Element &own, int, long b, long j) {
#pragma unroll
            for (int s = 0; s < S; s++) d.d_start[s][b * HIDDEN + j] = own.d_state[s];
        });
    }
}
