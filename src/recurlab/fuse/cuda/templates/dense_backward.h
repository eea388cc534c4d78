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

// What a thread reads of an element's step.
struct Past {
    Store x[G], recur[G], d_output;
    unsigned before[S];  // words of Store, or of a float where the origin is START
    int origin;
};
// What a thread keeps of an element.
struct Cell {
    float x[G], recur[G], state[S], drop;       // of the step at hand; `state` is that before it
    float d_x[G], d_recur[G], d_before[S];      // their gradients
    float d_state[S], held;                     // of the states after it, and of the outputs that masked steps hold
    Draws draws;
    Past coming;
    int origin;
    Store left_x[G], left_recur[G];             // gradients of the last step, not yet written
    long x_place, h_place, d_place, d_x_place;  // of the element in a step's x, output, d_output and d_x
};
struct Cells {
    Cell of[CHUNKS * SHARE];
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
    Rows rows = {d.x + t * p.x_step, d.recur + row * Step::KEPT, d.d_output + t * p.d_step, d.output + (t + way) * p.h_step};
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

DEVICE void fetch(const Team &team, const Rows &rows, Cell &cell, const Element &at, long i) {
    Past &past = cell.coming;
#pragma unroll
    for (int g = 0; g < G; g++) {
        past.x[g] = rows.x[cell.x_place + g * HIDDEN];
        if (Step::KEPT_PLACE[g] >= 0) past.recur[g] = rows.recur[at.b * HIDDEN * Step::KEPT + Step::KEPT_PLACE[g] * HIDDEN + at.j];
    }
    past.d_output = rows.given ? rows.d_output[cell.d_place] : write(0);
    past.origin = NOISY ? origin_of(team.p, *team.d, team.direction, i, at.b) : i > 0 ? 0 : START;
#pragma unroll
    for (int s = 0; s < S; s++) {
        if (past.origin == START) past.before[s] = bits_of(team.d->start[s][at.row()]);
        if (past.origin < 0) continue;
        if (!NOISY) past.before[s] = word_in(s ? rows.saved[s][at.row()] : rows.output[cell.h_place]);
        else if (s) past.before[s] = word_in(team.d->saved[s][past.origin * team.p.batch * HIDDEN + at.row()]);
        else past.before[s] = word_in(team.d->output[past.origin * team.p.h_step + cell.h_place]);
    }
}

// Waits for what has been fetched, of dead elements too: else the next fetch could not tell whether the last one is over.
DEVICE void fetched(const Team &team, Cells &cells) {
#pragma unroll
    for (int place = 0; place < CHUNKS * SHARE; place++) {
        Store &x = cells.of[place].coming.x[0];
        x = store_in(loaded(word_in(x), nothing_in(team.p)));
    }
}

DEVICE void start(const Team &team, Cells &cells) {
    const Problem &p = team.p;
    const int unit = team.rank * UNITS + own_unit(team);
#pragma unroll
    for (int g = 0; g < G; g++) {
        cells.bias_ih[g] = unit < WIDTH && team.d->bias_ih ? team.d->bias_ih[g * HIDDEN + team.unit + unit] : 0;
        cells.sum_ih[g] = cells.sum_hh[g] = 0;
    }
    const Draws fresh = no_draws(p, *team.d);
    each_element(team, [&](int place, const Element &at) {
        Cell &cell = cells.of[place];
        cell.x_place = at.b * p.x_sample + at.j;
        cell.h_place = at.b * p.h_sample + at.j;
        cell.d_place = at.b * p.d_sample + at.j;
        cell.d_x_place = at.b * p.d_x_sample + at.j;
#pragma unroll
        for (int s = 0; s < S; s++) cell.d_state[s] = team.d->d_end[s][at.row()];
        cell.drop = NOISY && team.d->dropout ? team.d->dropout[at.row()] : 1;
        cell.draws = fresh;
        cell.held = 0;
    });
    // Else what is fetched in the loop would be waited for with these.
#pragma unroll
    for (int g = 0; g < G; g++) cells.bias_ih[g] = arrived(cells.bias_ih[g], nothing_in(p));
    each_element(team, [&](int place, const Element &) {
        Cell &cell = cells.of[place];
#pragma unroll
        for (int s = 0; s < S; s++) cell.d_state[s] = arrived(cell.d_state[s], nothing_in(p));
        if (NOISY) cell.drop = arrived(cell.drop, nothing_in(p));
    });
}

DEVICE void unpack(const Team &team, const Cells &cells, Cell &cell, const Element &at) {
    const Past &past = cell.coming;
    cell.origin = past.origin;
#pragma unroll
    for (int g = 0; g < G; g++) {
        const bool merged = Step::PHASE[g] >= 0 && Step::KEPT_PLACE[g] < 0;  // x holds the sum
        cell.x[g] = read(past.x[g]) + (merged ? 0 : cells.bias_ih[g]);
        cell.recur[g] = Step::KEPT_PLACE[g] >= 0 ? read(past.recur[g]) : 0;
    }
#pragma unroll
    for (int s = 0; s < S; s++)
        cell.state[s] = past.origin >= 0 ? read(store_in(past.before[s])) : past.origin == START ? float_of(past.before[s]) : 0;
}

// The first stage: from the gradients of output and new states to those of the gates and, in part, of the old states.
DEVICE void advance_back(const Team &team, const Cells &cells, Cell &cell, long t, const Element &at) {
    const Problem &p = team.p;
    const float d_output = read(cell.coming.d_output);
    unpack(team, cells, cell, at);
#pragma unroll
    for (int g = 0; g < G; g++) cell.d_x[g] = cell.d_recur[g] = 0;
    if (NOISY && cell.origin == SKIPPED) {
        if (p.hold) cell.held += d_output;
        return;
    }
    float d_next[S], kept[S], from_x[G], from_recur[G], from_state[S];
#pragma unroll
    for (int s = 0; s < S; s++) {
        d_next[s] = cell.d_state[s];
        kept[s] = 0;
        cell.d_before[s] = 0;
    }
    d_next[0] += d_output;
    if (NOISY) {
        d_next[0] += cell.held;
        cell.held = 0;
        refresh(p, *team.d, cell.draws, t, at.b, at.j);
        zoneout_gradient(p, *team.d, cell.draws, t, d_next, kept);
    }
    Step::advance_gradient(cell.x, cell.state, cell.recur, d_next, from_x, from_recur, from_state);
    collect<0>(from_x, from_recur, from_state, cell.d_x, cell.d_recur, cell.d_before);
#pragma unroll
    for (int s = 0; s < S; s++) cell.d_state[s] = kept[s];  // the stages to come are added at the end
}

// Stage K + 1 of an element: what entered phase K has the gradient `d_operand`.
template <int K> DEVICE void operand_back(Cell &cell, float d_operand) {
    if (NOISY && cell.origin == SKIPPED) return;
    if (NOISY) d_operand *= cell.drop;
    float from_x[G], from_recur[G], from_state[S];
    Step::operand_gradient(Phase<K>{}, cell.x, cell.state, cell.recur, d_operand, from_x, from_recur, from_state);
    collect<K + 1>(from_x, from_recur, from_state, cell.d_x, cell.d_recur, cell.d_before);
}

// The end of a step: its gradients summed up, and the state's handed on.
DEVICE void finish(Cells &cells, Cell &cell) {
#pragma unroll
    for (int g = 0; g < G; g++) {
        cell.left_x[g] = write(cell.d_x[g]);
        cell.left_recur[g] = write(cell.d_recur[g]);
        cells.sum_ih[g] += cell.d_x[g];
        if (Step::OWN_PLACE[g] >= 0) cells.sum_hh[g] += cell.d_recur[g];
    }
    if (NOISY && cell.origin == SKIPPED) return;
#pragma unroll
    for (int s = 0; s < S; s++) cell.d_state[s] = NOISY && cell.origin == CUT ? 0 : cell.d_state[s] + cell.d_before[s];
}

// Writes the gradients of the step where the rows are.
DEVICE void store(const Rows &rows, const Cell &cell, const Element &at) {
#pragma unroll
    for (int g = 0; g < G; g++) {
        rows.d_x[cell.d_x_place + g * HIDDEN] = cell.left_x[g];
        if (Step::OWN_PLACE[g] < 0) continue;
        rows.d_recur[at.b * HIDDEN * Step::OWN + Step::OWN_PLACE[g] * HIDDEN + at.j] = cell.left_recur[g];
    }
}

template <int K> DEVICE void backward_phases(Team &team, Cells &cells, const AllWeights<Backward> &weights, Rows &rows, long i, bool first) {
    if constexpr (K >= 0) {
        each_element(team, [&](int place, const Element &at) {
#pragma unroll
            for (int gate = 0; gate < gates_in(K); gate++) {
                const float gradient = cells.of[place].d_recur[Step::SLOTS[Step::START[K] + gate]];
                team.slice[(at.n * gates_in(K) + gate) * UNITS + own_unit(team)] = write_operand(gradient);
            }
        });
        const unsigned *full = exchange<gates_in(K), Backward<K>::STRIDE>(team, [&] {
            if (K < PHASES - 1) return;
            if (i > 0) each_element(team, [&](int place, const Element &at) { fetch(team, rows, cells.of[place], at, i - 1); });
            move_fetched(team, rows);
            if (first) return;
            each_element(team, [&](int place, const Element &at) { store(rows, cells.of[place], at); });
            move_written(team, rows);
        });
        multiply_all<1>(team, weights.template phase<K>(), full, [&](int place, const Element &, const float *sum) {
            operand_back<K>(cells.of[place], *sum);
        });
        backward_phases<K - 1>(team, cells, weights, rows, i, first);
    }
}

// The parts of the sums: for each group of samples, one of each thread that has the unit.
DEVICE void write_sums(const Team &team, const Cells &cells) {
    const int unit = team.rank * UNITS + own_unit(team);
    if (unit >= WIDTH) return;
    const long part = team.first / SAMPLES * (THREADS / UNITS) + team.thread / UNITS;
#pragma unroll
    for (int g = 0; g < G; g++) {
        const long to = (part * G + g) * HIDDEN + team.unit + unit;
        team.d->d_bias_ih[to] = cells.sum_ih[g];
        team.d->d_bias_hh[to] = cells.sum_hh[g];
    }
}

DEVICE void run_backward(const Problem &p) {
    Team team = team_of<Sizes::stride, Sizes::sums, Sizes::gates>(p);
    for (long item = team.team; take(team, item); item += block_count() / TEAM) {
        AllWeights<Backward> weights;
        Cells cells;
        weights.load(team, team.rest);
        start(team, cells);
        Rows rows = rows_of(team);
        each_element(team, [&](int place, const Element &at) { fetch(team, rows, cells.of[place], at, p.steps - 1); });
        move_fetched(team, rows);
        bool first = true;
        for (long i = p.steps - 1; i >= 0; i--) {
            const long t = NOISY ? time_of(p, team.direction, i) : 0;
            fetched(team, cells);
            each_element(team, [&](int place, const Element &at) { advance_back(team, cells, cells.of[place], t, at); });
            backward_phases<PHASES - 1>(team, cells, weights, rows, i, first);
            each_element(team, [&](int place, const Element &) { finish(cells, cells.of[place]); });
            first = false;
        }
        each_element(team, [&](int place, const Element &at) {
            store(rows, cells.of[place], at);
#pragma unroll
            for (int s = 0; s < S; s++) team.d->d_start[s][at.row()] = cells.of[place].d_state[s];
        });
        write_sums(team, cells);
    }
}
