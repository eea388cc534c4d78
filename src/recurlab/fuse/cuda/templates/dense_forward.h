#pragma once
#include "dense_product.h"
#include "dense_exchange.h"

// The forward of the dense recurrence.
// Row i * UNITS + u of a phase's weights is unit u of its i-th gate.
template <int K> struct Forward : Product<gates_in(K) * UNITS, PADDED> {
    static INLINE float weight(const Team &team, int row, int depth) {
        const int gate = row / UNITS, unit = team.rank * UNITS + row % UNITS;
        if (gate >= gates_in(K) || unit >= WIDTH || depth >= WIDTH) return 0;
        return team.d->weight[(Step::SLOTS[Step::START[K] + gate] * HIDDEN + team.unit + unit) * WIDTH + depth];
    }
};
using Sizes = Largest<Forward>;

// What a thread keeps of an element.
struct ElementState {
    float state[S], x[G], recur[G], drop;
    Draws draws;
    int origin, last;  // of the state before the step at hand; the last step that has counted, or START
    Store coming[G];   // the projected input of the next step, and its marks
    Marks coming_marks;
    Store output, saved[S], sums[G];  // of the last step, not yet written
    Store entering;                   // of the phase at hand, likewise
    long x_offset, h_offset;          // of the element in a step's x and output
};
struct ThreadState {
    ElementState of[CHUNKS * SHARE];
    float bias_ih[G], bias_hh[G];  // of the thread's one unit
};

DEVICE void start(const Team &team, ThreadState &mine) {
    const Problem &p = team.p;
    const int unit = team.rank * UNITS + own_unit(team);
#pragma unroll
    for (int g = 0; g < G; g++) {
        const long row = g * HIDDEN + team.unit + unit;
        mine.bias_ih[g] = unit < WIDTH && team.d->bias_ih ? team.d->bias_ih[row] : 0;
        mine.bias_hh[g] = unit < WIDTH && team.d->bias_hh ? team.d->bias_hh[row] : 0;
    }
    const Draws fresh = no_draws(p, *team.d);
    each_element(team, [&](int index, const Element &at) {
        ElementState &own = mine.of[index];
        own.x_offset = at.b * p.x_sample + at.j;
        own.h_offset = at.b * p.h_sample + at.j;
#pragma unroll
        for (int s = 0; s < S; s++) own.state[s] = team.d->start[s][at.row()];
        own.drop = NOISY && team.d->dropout ? team.d->dropout[at.row()] : 1;
        own.draws = fresh;
        own.last = START;
    });
    // Waited for here: otherwise the loop would wait for these and for what it has just fetched together.
#pragma unroll
    for (int g = 0; g < G; g++) {
        mine.bias_ih[g] = arrived(mine.bias_ih[g], nothing_in(p));
        mine.bias_hh[g] = arrived(mine.bias_hh[g], nothing_in(p));
    }
    each_element(team, [&](int index, const Element &) {
        ElementState &own = mine.of[index];
#pragma unroll
        for (int s = 0; s < S; s++) own.state[s] = arrived(own.state[s], nothing_in(p));
        if (NOISY) own.drop = arrived(own.drop, nothing_in(p));
    });
}

// Computes what enters phase K: for the exchange and, if it is kept, for the weight's gradient.
template <int K> DEVICE void enter(const Team &team, ElementState &own, const Element &at) {
    float operand = Step::operand(Phase<K>{}, own.x, own.state, own.recur);
    if (NOISY) operand *= own.drop;
    team.slice[at.n * UNITS + own_unit(team)] = write_operand(operand);
    own.entering = write(operand);
}

// The end of a step: zoneout and mask.
DEVICE void finish(const Team &team, ElementState &own, long t, const Element &at) {
    const bool skipped = NOISY && own.origin == SKIPPED;
    if (!skipped) {
        float next[S];
        Step::advance(own.x, own.state, own.recur, next);
        if (NOISY) zoneout(team.p, *team.d, own.draws, t, at.b, at.j, own.state, next);
#pragma unroll
        for (int s = 0; s < S; s++) own.state[s] = next[s];
        own.last = (int)t;
    }
    own.output = write(skipped && !(team.p.hold && own.last != START) ? 0 : own.state[0]);
#pragma unroll
    for (int s = 1; s < S; s++) own.saved[s] = write(own.state[s]);
}

// Completes a phase's recurrence for one element, and keeps what the backward needs of it.
template <int K> DEVICE void receive(const ThreadState &mine, ElementState &own, const float *sum) {
#pragma unroll
    for (int i = 0; i < gates_in(K); i++) {
        const int g = Step::SLOTS[Step::START[K] + i];
        own.recur[g] = sum[i] + mine.bias_hh[g];
        own.sums[g] = write(Step::KEPT_INDEX[g] < 0 ? own.x[g] + own.recur[g] : own.recur[g]);
    }
}

// Pointers to the tensors of a step. Moving them on costs less than multiplying the step's number by a stride.
struct Rows {
    const Store *coming;  // the projected input of the next step
    long coming_row;      // of the next step and the first sample in a (T, B)
    Store *x, *output, *saved[S], *recur, *entering[MORE];
    bool keeps[MORE];  // whether what enters a phase is kept
    long way;
};
DEVICE Rows rows_of(const Team &team) {
    const Direction &d = *team.d;
    const long t = time_of(team.p, team.direction, 0), row = t * team.p.batch * HIDDEN;
    Rows rows = {d.x + t * team.p.x_step, t * team.p.batch, d.x + t * team.p.x_step, d.output + t * team.p.h_step};
#pragma unroll
    for (int s = 1; s < S; s++) rows.saved[s] = d.saved[s] + row;
    rows.recur = d.recur + row * Step::KEPT;
#pragma unroll
    for (int k = 0; k < PHASES; k++) {
        rows.keeps[k] = (k > 0 || NOISY || !Step::OPERAND_IS_STATE) && d.entering[k];
        rows.entering[k] = d.entering[k] + row;
    }
    rows.way = team.direction ? -1 : 1;
    return rows;
}
DEVICE void move_on(const Team &team, Rows &rows) {
    const long row = rows.way * team.p.batch * HIDDEN;
    rows.x += rows.way * team.p.x_step;
    rows.output += rows.way * team.p.h_step;
#pragma unroll
    for (int s = 1; s < S; s++) rows.saved[s] += row;
    rows.recur += row * Step::KEPT;
}

DEVICE void fetch(const Team &team, const Rows &rows, ElementState &own, const Element &at) {
#pragma unroll
    for (int g = 0; g < G; g++) own.coming[g] = rows.coming[own.x_offset + g * HIDDEN];
    if (NOISY) own.coming_marks = marks_of(team.p, *team.d, rows.coming_row + at.b);
}

// Writes the results of the step that the rows point at.
DEVICE void store(const Team &team, const Rows &rows, const ElementState &own, const Element &at) {
    rows.output[own.h_offset] = own.output;
    if (!team.p.grad) return;
#pragma unroll
    for (int s = 1; s < S; s++) rows.saved[s][at.row()] = own.saved[s];
#pragma unroll
    for (int g = 0; g < G; g++) {
        if (Step::PHASE[g] < 0) continue;
        if (Step::KEPT_INDEX[g] < 0) rows.x[own.x_offset + g * HIDDEN] = own.sums[g];
        else rows.recur[at.b * HIDDEN * Step::KEPT + Step::KEPT_INDEX[g] * HIDDEN + at.j] = own.sums[g];
    }
}

template <int K>
DEVICE void forward_phases(
    Team &team, ThreadState &mine, const AllWeights<Forward> &weights, Rows &rows, long i, unsigned left) {
    if constexpr (K < PHASES) {
        const bool more = left > 1;
        const unsigned *full = exchange<1, Forward<K>::STRIDE>(team, [&] {
            const long here = rows.coming_row;
            if (K == 0 && more) rows.coming += rows.way * team.p.x_step, rows.coming_row += rows.way * team.p.batch;
            if (K == 0)
                each_element(team, [&](int index, const Element &at) { fetch(team, rows, mine.of[index], at); });
            each_element(team, [&](int index, const Element &at) {
                if (K == 0 && i > 0) store(team, rows, mine.of[index], at);
                // By one thread alone: that of the sample's first unit.
                if (K == 0 && NOISY && at.j == 0 && team.d->origin) team.d->origin[here + at.b] = mine.of[index].origin;
                if (rows.keeps[K]) rows.entering[K][at.row()] = mine.of[index].entering;
            });
            if (K == 0 && i > 0) move_on(team, rows);
            if (rows.keeps[K]) rows.entering[K] += rows.way * team.p.batch * HIDDEN;
        });
        const long t = NOISY ? time_of(team.p, team.direction, i) : 0;
        multiply_all<gates_in(K)>(
            team, weights.template phase<K>(), full, [&](int index, const Element &at, const float *sum) {
                ElementState &own = mine.of[index];
                receive<K>(mine, own, sum);
                if constexpr (K + 1 < PHASES) enter<K + 1>(team, own, at);
                else finish(team, own, t, at);
            });
        forward_phases<K + 1>(team, mine, weights, rows, i, left);
    }
}

DEVICE void run_forward(const Problem &p) {
    Team team = team_of<Sizes::stride, Sizes::sums, 1>(p);
    for (long item = team.team; take(team, item); item += block_count() / TEAM) {
        AllWeights<Forward> weights;
        ThreadState mine;
        weights.load(team, team.rest);
        start(team, mine);
        Rows rows = rows_of(team);
        each_element(team, [&](int index, const Element &at) { fetch(team, rows, mine.of[index], at); });
        // Counted down, since the compiler would look up the number of steps in each of them.
        unsigned left = loaded(p.steps, nothing_in(p));
        for (long i = 0; left > 0; i++, left--) {
            if (CHUNKS * SHARE > 1) await_fetched(team, [&](int index) -> Store & { return mine.of[index].coming[0]; });
            each_element(team, [&](int index, const Element &at) {
                ElementState &own = mine.of[index];
                own.origin = NOISY ? origin_of(arrived(own.coming_marks, nothing_in(p)), own.last) : 0;
#pragma unroll
                for (int g = 0; g < G; g++) own.x[g] = read(own.coming[g]) + mine.bias_ih[g];
                if (NOISY && own.origin == CUT)
#pragma unroll
                    for (int s = 0; s < S; s++) own.state[s] = 0;
                enter<0>(team, own, at);
            });
            forward_phases<0>(team, mine, weights, rows, i, left);
        }
        each_element(team, [&](int index, const Element &at) {
            store(team, rows, mine.of[index], at);
#pragma unroll
            for (int s = 0; s < S; s++) team.d->end[s][at.row()] = mine.of[index].state[s];
        });
    }
}
