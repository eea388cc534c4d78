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
struct Cell {
    float state[S], x[G], recur[G], drop;
    Draws draws;
    int origin, last;    // of the state before the step at hand; the last step that has counted, or START
    Store coming[G];     // the projected input of the next step, and its marks
    Marks coming_marks;
    Store output, saved[S], sums[G];  // of the last step, not yet written
    Store entering;                   // of the phase at hand, likewise
    long x_place, h_place;            // of the element in a step's x and output
};
struct Cells {
    Cell of[CHUNKS * SHARE];
    float bias_ih[G], bias_hh[G];  // of the thread's one unit
};

DEVICE void start(const Team &team, Cells &cells) {
    const Problem &p = team.p;
    const int unit = team.rank * UNITS + own_unit(team);
#pragma unroll
    for (int g = 0; g < G; g++) {
        const long row = g * HIDDEN + team.unit + unit;
        cells.bias_ih[g] = unit < WIDTH && team.d->bias_ih ? team.d->bias_ih[row] : 0;
        cells.bias_hh[g] = unit < WIDTH && team.d->bias_hh ? team.d->bias_hh[row] : 0;
    }
    const Draws fresh = no_draws(p, *team.d);
    each_element(team, [&](int place, const Element &at) {
        Cell &cell = cells.of[place];
        cell.x_place = at.b * p.x_sample + at.j;
        cell.h_place = at.b * p.h_sample + at.j;
#pragma unroll
        for (int s = 0; s < S; s++) cell.state[s] = team.d->start[s][at.row()];
        cell.drop = NOISY && team.d->dropout ? team.d->dropout[at.row()] : 1;
        cell.draws = fresh;
        cell.last = START;
    });
    // Else what is fetched in the loop would be waited for with these.
#pragma unroll
    for (int g = 0; g < G; g++) {
        cells.bias_ih[g] = arrived(cells.bias_ih[g], nothing_in(p));
        cells.bias_hh[g] = arrived(cells.bias_hh[g], nothing_in(p));
    }
    each_element(team, [&](int place, const Element &) {
        Cell &cell = cells.of[place];
#pragma unroll
        for (int s = 0; s < S; s++) cell.state[s] = arrived(cell.state[s], nothing_in(p));
        if (NOISY) cell.drop = arrived(cell.drop, nothing_in(p));
    });
}

// What enters phase K: for the exchange and, where asked, for the weight's gradient.
template <int K> DEVICE void enter(const Team &team, Cell &cell, const Element &at) {
    float operand = Step::operand(Phase<K>{}, cell.x, cell.state, cell.recur);
    if (NOISY) operand *= cell.drop;
    team.slice[at.n * UNITS + own_unit(team)] = write_operand(operand);
    cell.entering = write(operand);
}

// The end of a step: zoneout and mask.
DEVICE void finish(const Team &team, Cell &cell, long t, const Element &at) {
    const bool skipped = NOISY && cell.origin == SKIPPED;
    if (!skipped) {
        float next[S];
        Step::advance(cell.x, cell.state, cell.recur, next);
        if (NOISY) zoneout(team.p, *team.d, cell.draws, t, at.b, at.j, cell.state, next);
#pragma unroll
        for (int s = 0; s < S; s++) cell.state[s] = next[s];
        cell.last = (int)t;
    }
    cell.output = write(skipped && !(team.p.hold && cell.last != START) ? 0 : cell.state[0]);
#pragma unroll
    for (int s = 1; s < S; s++) cell.saved[s] = write(cell.state[s]);
}

// A phase's recurrence for one element, and what the backward needs of it.
template <int K> DEVICE void receive(const Cells &cells, Cell &cell, const float *sum) {
#pragma unroll
    for (int i = 0; i < gates_in(K); i++) {
        const int g = Step::SLOTS[Step::START[K] + i];
        cell.recur[g] = sum[i] + cells.bias_hh[g];
        cell.sums[g] = write(Step::KEPT_PLACE[g] < 0 ? cell.x[g] + cell.recur[g] : cell.recur[g]);
    }
}

// Where the tensors of a step are. Pointers that move on cost less than a product of a step's number with its size.
struct Rows {
    const Store *coming;  // the projected input of the next step
    long coming_place;    // of the next step and the first sample in a (T, B)
    Store *x, *output, *saved[S], *recur, *entering[MORE];
    bool keeps[MORE];  // what enters a phase
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

DEVICE void fetch(const Team &team, const Rows &rows, Cell &cell, const Element &at) {
#pragma unroll
    for (int g = 0; g < G; g++) cell.coming[g] = rows.coming[cell.x_place + g * HIDDEN];
    if (NOISY) cell.coming_marks = marks_of(team.p, *team.d, rows.coming_place + at.b);
}

// Waits for what has been fetched, of dead elements too: else the next fetch could not tell whether the last one is over.
DEVICE void fetched(const Team &team, Cells &cells) {
#pragma unroll
    for (int place = 0; place < CHUNKS * SHARE; place++) {
        Store &x = cells.of[place].coming[0];
        x = store_in(loaded(word_in(x), nothing_in(team.p)));
    }
}

// Writes the results of the step where the rows are.
DEVICE void store(const Team &team, const Rows &rows, const Cell &cell, const Element &at) {
    rows.output[cell.h_place] = cell.output;
    if (!team.p.grad) return;
#pragma unroll
    for (int s = 1; s < S; s++) rows.saved[s][at.row()] = cell.saved[s];
#pragma unroll
    for (int g = 0; g < G; g++) {
        if (Step::PHASE[g] < 0) continue;
        if (Step::KEPT_PLACE[g] < 0) rows.x[cell.x_place + g * HIDDEN] = cell.sums[g];
        else rows.recur[at.b * HIDDEN * Step::KEPT + Step::KEPT_PLACE[g] * HIDDEN + at.j] = cell.sums[g];
    }
}

template <int K> DEVICE void forward_phases(Team &team, Cells &cells, const AllWeights<Forward> &weights, Rows &rows, long i, unsigned left) {
    if constexpr (K < PHASES) {
        const bool more = left > 1;
        const unsigned *full = exchange<1, Forward<K>::STRIDE>(team, [&] {
            const long here = rows.coming_place;
            if (K == 0 && more) rows.coming += rows.way * team.p.x_step, rows.coming_place += rows.way * team.p.batch;
            if (K == 0) each_element(team, [&](int place, const Element &at) { fetch(team, rows, cells.of[place], at); });
            each_element(team, [&](int place, const Element &at) {
                if (K == 0 && i > 0) store(team, rows, cells.of[place], at);
                // The thread of a sample's first unit, which one block of one head has.
                if (K == 0 && NOISY && at.j == 0 && team.d->origin) team.d->origin[here + at.b] = cells.of[place].origin;
                if (rows.keeps[K]) rows.entering[K][at.row()] = cells.of[place].entering;
            });
            if (K == 0 && i > 0) move_on(team, rows);
            if (rows.keeps[K]) rows.entering[K] += rows.way * team.p.batch * HIDDEN;
        });
        const long t = NOISY ? time_of(team.p, team.direction, i) : 0;
        multiply_all<gates_in(K)>(team, weights.template phase<K>(), full, [&](int place, const Element &at, const float *sum) {
            Cell &cell = cells.of[place];
            receive<K>(cells, cell, sum);
            if constexpr (K + 1 < PHASES) enter<K + 1>(team, cell, at);
            else finish(team, cell, t, at);
        });
        forward_phases<K + 1>(team, cells, weights, rows, i, left);
    }
}

DEVICE void run_forward(const Problem &p) {
    Team team = team_of<Sizes::stride, Sizes::sums, 1>(p);
    for (long item = team.team; take(team, item); item += block_count() / TEAM) {
        AllWeights<Forward> weights;
        Cells cells;
        weights.load(team, team.rest);
        start(team, cells);
        Rows rows = rows_of(team);
        each_element(team, [&](int place, const Element &at) { fetch(team, rows, cells.of[place], at); });
        unsigned left = loaded(p.steps, nothing_in(p));  // counted, since the compiler would look up the number of steps in each
        for (long i = 0; left > 0; i++, left--) {
            if (CHUNKS * SHARE > 1) fetched(team, cells);
            each_element(team, [&](int place, const Element &at) {
                Cell &cell = cells.of[place];
                cell.origin = NOISY ? origin_of(arrived(cell.coming_marks, nothing_in(p)), cell.last) : 0;
#pragma unroll
                for (int g = 0; g < G; g++) cell.x[g] = read(cell.coming[g]) + cells.bias_ih[g];
                if (NOISY && cell.origin == CUT)
#pragma unroll
                    for (int s = 0; s < S; s++) cell.state[s] = 0;
                enter<0>(team, cell, at);
            });
            forward_phases<0>(team, cells, weights, rows, i, left);
        }
        each_element(team, [&](int place, const Element &at) {
            store(team, rows, cells.of[place], at);
#pragma unroll
            for (int s = 0; s < S; s++) team.d->end[s][at.row()] = cells.of[place].state[s];
        });
    }
}
