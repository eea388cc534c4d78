#pragma once
#include "dense_product.h"
#include "dense_exchange.h"

// The backward of the dense recurrence. The gates are computed anew from the sums that the forward left in place of the
// projected input; the gradient of what entered a phase is the product of its gates' gradients with the weights.
// Row u of a phase's weights is unit u of what enters; the depth runs over the phase's gates and their units.
template <int K> struct Backward : Product<UNITS, gates_in(K) * PADDED> {
    static INLINE float weight(const Team &team, int row, int depth) {
        const int gate = depth / PADDED, unit = team.rank * UNITS + row, from = depth % PADDED;
        if (gate >= gates_in(K) || row >= UNITS || unit >= WIDTH || from >= WIDTH) return 0;
        return team.d->weight[(Step::SLOTS[Step::START[K] + gate] * HIDDEN + team.unit + from) * WIDTH + unit];
    }
};
using Sizes = Largest<Backward>;

// What a thread reads of one step of an element.
struct Past {
    Store x[G], recur[G], d_output;
    unsigned before[S];  // words of Store, or of a float where the origin is START
    int origin;
};
// What a thread keeps of an element.
struct ElementState {
    float x[G], recur[G], state[S], drop;   // of the step at hand; `state` is that before it
    float d_x[G], d_recur[G], d_before[S];  // their gradients
    float d_state[S], held;                 // of the states after it, and of the outputs that masked steps hold
    Draws draws;
    Past coming;
    int origin;
    Store left_x[G], left_recur[G];                 // gradients of the last step, not yet written
    long x_offset, h_offset, d_offset, d_x_offset;  // of the element in a step's x, output, d_output and d_x
};
struct ThreadState {
    ElementState of[CHUNKS * SHARE];
    float bias_ih[G], sum_ih[G], sum_hh[G];  // of the thread's one unit; the sums are over time and its samples
};

// Where the tensors of a step are; see those of the forward.
struct Rows {
    const Store *x, *recur, *d_output;  // of the step that is fetched next
    const Store *output, *saved[S];     // the states before it
    Store *d_x, *d_recur;               // of the step that is written next
    bool given;                         // whether there is a gradient of the output
    long way;
};
DEVICE Rows rows_of(const Team &team) {
    const Problem &p = team.p;
    const Direction &d = *team.d;
    const long t = time_of(p, team.direction, p.steps - 1), way = team.direction ? 1 : -1, row = t * p.batch * HIDDEN;
    Rows rows = {
        d.x + t * p.x_step, d.recur + row * Step::KEPT, d.d_output + t * p.d_step, d.output + (t + way) * p.h_step};
#pragma unroll
    for (int s = 1; s < S; s++) rows.saved[s] = d.saved[s] + row + way * p.batch * HIDDEN;
    rows.d_x = d.d_x + t * p.d_x_step;
    rows.d_recur = d.d_recur + row * Step::OWN;
    rows.given = d.d_output;
    rows.way = way;
    return rows;
}
DEVICE void move_fetched(const Team &team, Rows &rows) {
    const Problem &p = team.p;
    const long row = rows.way * p.batch * HIDDEN;
    rows.x += rows.way * p.x_step;
    rows.recur += row * Step::KEPT;
    rows.d_output += rows.way * p.d_step;
    rows.output += rows.way * p.h_step;
#pragma unroll
    for (int s = 1; s < S; s++) rows.saved[s] += row;
}
DEVICE void move_written(const Team &team, Rows &rows) {
    rows.d_x += rows.way * team.p.d_x_step;
    rows.d_recur += rows.way * team.p.batch * HIDDEN * Step::OWN;
}

DEVICE void fetch(const Team &team, const Rows &rows, ElementState &own, const Element &at, long i) {
    Past &past = own.coming;
#pragma unroll
    for (int g = 0; g < G; g++) {
        past.x[g] = rows.x[own.x_offset + g * HIDDEN];
        if (Step::KEPT_INDEX[g] >= 0)
            past.recur[g] = rows.recur[at.b * HIDDEN * Step::KEPT + Step::KEPT_INDEX[g] * HIDDEN + at.j];
    }
    past.d_output = rows.given ? rows.d_output[own.d_offset] : write(0);
    past.origin = NOISY ? origin_of(team.p, *team.d, team.direction, i, at.b) : i > 0 ? 0 : START;
#pragma unroll
    for (int s = 0; s < S; s++) {
        if (past.origin == START) past.before[s] = bits_of(team.d->start[s][at.row()]);
        if (past.origin < 0) continue;
        if (!NOISY) past.before[s] = word_in(s ? rows.saved[s][at.row()] : rows.output[own.h_offset]);
        else if (s) past.before[s] = word_in(team.d->saved[s][past.origin * team.p.batch * HIDDEN + at.row()]);
        else past.before[s] = word_in(team.d->output[past.origin * team.p.h_step + own.h_offset]);
    }
}

DEVICE void start(const Team &team, ThreadState &mine) {
    const Problem &p = team.p;
    const int unit = team.rank * UNITS + own_unit(team);
#pragma unroll
    for (int g = 0; g < G; g++) {
        mine.bias_ih[g] = unit < WIDTH && team.d->bias_ih ? team.d->bias_ih[g * HIDDEN + team.unit + unit] : 0;
        mine.sum_ih[g] = mine.sum_hh[g] = 0;
    }
    const Draws fresh = no_draws(p, *team.d);
    each_element(team, [&](int index, const Element &at) {
        ElementState &own = mine.of[index];
        own.x_offset = at.b * p.x_sample + at.j;
        own.h_offset = at.b * p.h_sample + at.j;
        own.d_offset = at.b * p.d_sample + at.j;
        own.d_x_offset = at.b * p.d_x_sample + at.j;
#pragma unroll
        for (int s = 0; s < S; s++) own.d_state[s] = team.d->d_end[s][at.row()];
        own.drop = NOISY && team.d->dropout ? team.d->dropout[at.row()] : 1;
        own.draws = fresh;
        own.held = 0;
    });
    // Waited for here: otherwise the loop would wait for these and for what it has just fetched together.
#pragma unroll
    for (int g = 0; g < G; g++) mine.bias_ih[g] = arrived(mine.bias_ih[g], nothing_in(p));
    each_element(team, [&](int index, const Element &) {
        ElementState &own = mine.of[index];
#pragma unroll
        for (int s = 0; s < S; s++) own.d_state[s] = arrived(own.d_state[s], nothing_in(p));
        if (NOISY) own.drop = arrived(own.drop, nothing_in(p));
    });
}

DEVICE void unpack(const Team &team, const ThreadState &mine, ElementState &own, const Element &at) {
    const Past &past = own.coming;
    own.origin = past.origin;
#pragma unroll
    for (int g = 0; g < G; g++) {
        const bool merged = Step::PHASE[g] >= 0 && Step::KEPT_INDEX[g] < 0;  // x holds the sum
        own.x[g] = read(past.x[g]) + (merged ? 0 : mine.bias_ih[g]);
        own.recur[g] = Step::KEPT_INDEX[g] >= 0 ? read(past.recur[g]) : 0;
    }
#pragma unroll
    for (int s = 0; s < S; s++)
        own.state[s] = past.origin >= 0       ? read(store_in(past.before[s]))
                       : past.origin == START ? float_of(past.before[s])
                                              : 0;
}

// The first stage: from the gradients of output and new states to those of the gates and, in part, of the old states.
DEVICE void advance_back(const Team &team, const ThreadState &mine, ElementState &own, long t, const Element &at) {
    const Problem &p = team.p;
    const float d_output = read(own.coming.d_output);
    unpack(team, mine, own, at);
#pragma unroll
    for (int g = 0; g < G; g++) own.d_x[g] = own.d_recur[g] = 0;
    if (NOISY && own.origin == SKIPPED) {
        if (p.hold) own.held += d_output;
        return;
    }
    float d_next[S], kept[S], from_x[G], from_recur[G], from_state[S];
#pragma unroll
    for (int s = 0; s < S; s++) {
        d_next[s] = own.d_state[s];
        kept[s] = 0;
        own.d_before[s] = 0;
    }
    d_next[0] += d_output;
    if (NOISY) {
        d_next[0] += own.held;
        own.held = 0;
        refresh(p, *team.d, own.draws, t, at.b, at.j);
        zoneout_gradient(p, *team.d, own.draws, t, d_next, kept);
    }
    Step::advance_gradient(own.x, own.state, own.recur, d_next, from_x, from_recur, from_state);
    collect<0>(from_x, from_recur, from_state, own.d_x, own.d_recur, own.d_before);
#pragma unroll
    for (int s = 0; s < S; s++) own.d_state[s] = kept[s];  // finish() adds what the later stages give
}

// Stage K + 1 of an element: what entered phase K has the gradient `d_operand`.
template <int K> DEVICE void operand_back(ElementState &own, float d_operand) {
    if (NOISY && own.origin == SKIPPED) return;
    if (NOISY) d_operand *= own.drop;
    float from_x[G], from_recur[G], from_state[S];
    Step::operand_gradient(Phase<K>{}, own.x, own.state, own.recur, d_operand, from_x, from_recur, from_state);
    collect<K + 1>(from_x, from_recur, from_state, own.d_x, own.d_recur, own.d_before);
}

// The end of a step: adds up its gradients, and completes that of the state before it.
DEVICE void finish(ThreadState &mine, ElementState &own) {
#pragma unroll
    for (int g = 0; g < G; g++) {
        own.left_x[g] = write(own.d_x[g]);
        own.left_recur[g] = write(own.d_recur[g]);
        mine.sum_ih[g] += own.d_x[g];
        if (Step::OWN_INDEX[g] >= 0) mine.sum_hh[g] += own.d_recur[g];
    }
    if (NOISY && own.origin == SKIPPED) return;
#pragma unroll
    for (int s = 0; s < S; s++) own.d_state[s] = NOISY && own.origin == CUT ? 0 : own.d_state[s] + own.d_before[s];
}

// Writes the gradients of the step that the rows point at.
DEVICE void store(const Rows &rows, const ElementState &own, const Element &at) {
#pragma unroll
    for (int g = 0; g < G; g++) {
        rows.d_x[own.d_x_offset + g * HIDDEN] = own.left_x[g];
        if (Step::OWN_INDEX[g] < 0) continue;
        rows.d_recur[at.b * HIDDEN * Step::OWN + Step::OWN_INDEX[g] * HIDDEN + at.j] = own.left_recur[g];
    }
}

template <int K>
DEVICE void backward_phases(
    Team &team, ThreadState &mine, const AllWeights<Backward> &weights, Rows &rows, long i, bool first) {
    if constexpr (K >= 0) {
        each_element(team, [&](int index, const Element &at) {
#pragma unroll
            for (int gate = 0; gate < gates_in(K); gate++) {
                const float gradient = mine.of[index].d_recur[Step::SLOTS[Step::START[K] + gate]];
                team.slice[(at.n * gates_in(K) + gate) * UNITS + own_unit(team)] = write_operand(gradient);
            }
        });
        const unsigned *full = exchange<gates_in(K), Backward<K>::STRIDE>(team, [&] {
            if (K < PHASES - 1) return;
            if (i > 0)
                each_element(team, [&](int index, const Element &at) { fetch(team, rows, mine.of[index], at, i - 1); });
            move_fetched(team, rows);
            if (first) return;
            each_element(team, [&](int index, const Element &at) { store(rows, mine.of[index], at); });
            move_written(team, rows);
        });
        multiply_all<1>(team, weights.template phase<K>(), full,
            [&](int index, const Element &, const float *sum) { operand_back<K>(mine.of[index], *sum); });
        backward_phases<K - 1>(team, mine, weights, rows, i, first);
    }
}

// Writes the parts of the sums: for each group of samples one part from each thread that has the unit.
DEVICE void write_sums(const Team &team, const ThreadState &mine) {
    const int unit = team.rank * UNITS + own_unit(team);
    if (unit >= WIDTH) return;
    const long part = team.first / SAMPLES * (THREADS / UNITS) + team.thread / UNITS;
#pragma unroll
    for (int g = 0; g < G; g++) {
        const long to = (part * G + g) * HIDDEN + team.unit + unit;
        team.d->d_bias_ih[to] = mine.sum_ih[g];
        team.d->d_bias_hh[to] = mine.sum_hh[g];
    }
}

DEVICE void run_backward(const Problem &p) {
    Team team = team_of<Sizes::stride, Sizes::sums, Sizes::gates>(p);
    for (long item = team.team; take(team, item); item += block_count() / TEAM) {
        AllWeights<Backward> weights;
        ThreadState mine;
        weights.load(team, team.rest);
        start(team, mine);
        Rows rows = rows_of(team);
        each_element(team, [&](int index, const Element &at) { fetch(team, rows, mine.of[index], at, p.steps - 1); });
        move_fetched(team, rows);
        bool first = true;
        for (long i = p.steps - 1; i >= 0; i--) {
            const long t = NOISY ? time_of(p, team.direction, i) : 0;
            await_fetched(team, [&](int index) -> Store & { return mine.of[index].coming.x[0]; });
            each_element(team, [&](int index, const Element &at) { advance_back(team, mine, mine.of[index], t, at); });
            backward_phases<PHASES - 1>(team, mine, weights, rows, i, first);
            each_element(team, [&](int index, const Element &) { finish(mine, mine.of[index]); });
            first = false;
        }
        each_element(team, [&](int index, const Element &at) {
            store(rows, mine.of[index], at);
#pragma unroll
            for (int s = 0; s < S; s++) team.d->d_start[s][at.row()] = mine.of[index].d_state[s];
        });
        write_sums(team, mine);
    }
}
