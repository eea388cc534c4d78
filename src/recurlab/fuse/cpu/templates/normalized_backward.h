#pragma once
#include "normalized.h"

// The backward of a group of samples in a layer with layer normalisation.

// The gradients of a step's inputs and results, which the stages add up.
static INLINE real *d_x_at(const Group &group, int g, int m) {
    return group.s.d_x + (m * G + g) * group.p.units;
}
static INLINE real *d_result_at(const Group &group, int g, int m) {
    return group.s.d_result + (m * (R + 1) + (g == G ? R : Step::KEPT_INDEX[g])) * group.p.units;
}
// That of a product, which the weight's gradient needs.
static INLINE real *d_product_at(const Group &group, int g, long t, int m) {
    const Problem &p = group.p;
    if (g == G || DIAGONAL) return d_result_at(group, g, m);
    const long row = row_of(p, t, group.sample + m) - row_of(p, p.from, 0);
    return group.d.d_recur + (row * Step::OWN + Step::OWN_INDEX[g]) * p.units;
}
// A row of sums of gradients over the samples of a part.
static INLINE real *sums_at(const Group &group, real *sums, int g, int m) {
    return sums + ((group.sample + m) / PART * N + g) * group.p.units;
}

// Calls f(m) for the samples of a part that count.
template <class F> static INLINE void each_counting(const Group &group, long t, int first, const F &f) {
    for (int m = first; m < first + PART && m < group.present; m++)
        if (counts(group.p, t, group.sample + m)) f(m);
}

// What is normalised: the input, or the results of phase K. `at` says where the numbers of a gate of a sample lie, and
// their gradients after and before the normalisation.
struct Place {
    const real *numbers, *after;
    real *before;
};
struct Input {
    static constexpr int COUNT = G;
    static constexpr bool NORMAL = true;
    static constexpr int gate(int i) { return i; }
    static constexpr int row(int g) { return input_row(g); }
    static INLINE const real *gains(const Direction &d) { return d.gain_ih; }
    static INLINE real *d_gains(const Direction &d) { return d.d_gain_ih; }
    static INLINE real *d_biases(const Direction &d) { return d.d_bias_ih; }
    static INLINE Place at(const Group &group, int g, long t, int m) {
        const Problem &p = group.p;
        const long b = group.sample + m, offset = g * p.units;
        return {group.d.x + at_x(p, t, b) + offset, d_x_at(group, g, m), group.d.d_x + at_d_x(p, t, b) + offset};
    }
};
template <int K> struct Results {
    static constexpr int COUNT = gates_in(K);
    static constexpr bool NORMAL = !INPUT_ALONE;
    static constexpr int gate(int i) { return Step::SLOTS[Step::START[K] + i]; }
    static constexpr int row(int g) { return result_row(g); }
    static INLINE const real *gains(const Direction &d) { return d.gain_hh; }
    static INLINE real *d_gains(const Direction &d) { return d.d_gain_hh; }
    static INLINE real *d_biases(const Direction &d) { return d.d_bias_hh; }
    static INLINE Place at(const Group &group, int g, long t, int m) {
        return {result_at(group, g, m), d_result_at(group, g, m), d_product_at(group, g, t, m)};
    }
};

constexpr int MOST = G > R + 1 ? G : R + 1;  // rows that are normalised at a time

// Of a row of sample m, gates `from` to `until` - 1: the means of its gradient and of its product with the row.
struct Means {
    real sum, along;
};
template <class What> static INLINE Means means_of(Group &group, long t, int m, int from, int until) {
    const long units = group.p.units;
    const Moments of = moments_at(group, m)[What::row(What::gate(from))];
    vec sum = splat(0), along = splat(0);
    for (int i = from; i < until; i++) {
        const int g = What::gate(i);
        const Place at = What::at(group, g, t, m);
        each_lanes(units, [&](auto full, long j, int n) {
            constexpr bool FULL = decltype(full)::value;
            const vec v = get<FULL>(at.after + j, n) * get<FULL>(What::gains(group.d) + g * units + j, n);
            sum += v;
            along += v * normal(get<FULL>(at.numbers + j, n), of);
        });
    }
    const real count = (until - from) * units;
    return {CENTERED ? total(sum) / count : 0, total(along) / count};
}

// The gradients of a gate's numbers before the normalisation, of its gains and biases.
template <class What> static INLINE void gate_back(Group &group, long t, int first, int g, const Means *means) {
    const long units = group.p.units;
    real *const d_gain = sums_at(group, What::d_gains(group.d), g, first);
    real *const d_bias = sums_at(group, What::d_biases(group.d), g, first);
    each_vector(group, [&](auto full, long j, int n) {
        constexpr bool FULL = decltype(full)::value;
        const vec gain = What::NORMAL ? get<FULL>(What::gains(group.d) + g * units + j, n) : splat(1);
        vec gain_sum = splat(0), bias_sum = splat(0);
        each_counting(group, t, first, [&](int m) {
            const Place at = What::at(group, g, t, m);
            const vec d = get<FULL>(at.after + j, n);
            bias_sum += d;
            if constexpr (!What::NORMAL) put<FULL>(at.before + j, d, n);
            else {
                const Moments of = moments_at(group, m)[What::row(g)];
                const vec v = normal(get<FULL>(at.numbers + j, n), of);
                gain_sum += d * v;
                const Means &mean = means[m * MOST];
                put<FULL>(at.before + j, (d * gain - mean.sum - mean.along * v) * of.scale, n);
            }
        });
        if (What::NORMAL) give<FULL>(Step::ADD, d_gain + j, gain_sum, n);
        give<FULL>(Step::ADD, d_bias + j, bias_sum, n);
    });
}

template <class What> static INLINE void normalize_back(Group &group, long t) {
    constexpr int together = BY_GATE ? 1 : What::COUNT;
    Means *const means = (Means *)group.s.means;
    if constexpr (What::NORMAL) {
        each_of_team(group, [&](int m) {
            if (!counts(group.p, t, group.sample + m)) return;
            for (int from = 0; from < What::COUNT; from += together)
                means[m * MOST + from] = means_of<What>(group, t, m, from, from + together);
        });
        group.meet();
    }
    for (int first = 0; first < group.present; first += PART)
        for (int i = 0; i < What::COUNT; i++)
            gate_back<What>(group, t, first, What::gate(i), means + (BY_GATE ? i : 0));
    group.meet();
}

template <int TURN, bool FULL>
static INLINE void read_before(const Group &group, long t, int m, long j, int n, Values &in) {
    const long b = group.sample + m;
    read_values<TURN, FULL>(group, t, m, j, n, in);
    states_before<FULL>(group.p, group.d, group.s.previous[m], is_cut(group.p, group.d, t, b), b, j, n, in.state);
}

template <int STAGE, bool FULL>
static INLINE void give_all(Group &group, const vec *x, const vec *recur, int m, long j, int n) {
    for (int g = 0; g < G; g++) give<FULL>(Step::X_EFFECT[STAGE][g], d_x_at(group, g, m) + j, x[g], n);
    for (int g = 0; g < N; g++)
        if (Step::PHASE[g] >= 0) give<FULL>(Step::RECUR_EFFECT[STAGE][g], d_result_at(group, g, m) + j, recur[g], n);
}

// Reads the results from a turn on; those that are not kept are computed anew.
template <int TURN, bool FULL> static INLINE void enter_again(Group &group, Values &in, long t, int m, long j, int n) {
    if constexpr (TURN < TURNS) {
        constexpr int K = Step::ORDER[TURN];
        if constexpr (K == PHASES || DIAGONAL) enter<TURN, FULL>(group, in, t, m, j, n);
        for (int i = Step::START[K]; i < Step::START[K + 1]; i++)
            in.recur[Step::SLOTS[i]] = result_of<FULL>(group, Step::SLOTS[i], m, j, n);
        enter_again<TURN + 1, FULL>(group, in, t, m, j, n);
    }
}

// Stage 0 of the backward at a step, for the units from j on.
template <bool FULL> static INLINE void advance_back(Group &group, long t, int m, long j, int n) {
    const Problem &p = group.p;
    const Direction &d = group.d;
    const long b = group.sample + m;
    const vec d_output = get_or_zero<FULL>(d.d_output, at_d(p, t, b) + j, n);
    fetch_next(group, t, b, j);
    if (!counts(p, t, b))
        return skip_back<FULL>(group, d_output, t, m, j, n, [&](int g) { return d_product_at(group, g, t, m); });
    Values in;
    read_before<0, FULL>(group, t, m, j, n, in);
    enter_again<0, FULL>(group, in, t, m, j, n);
    vec d_next[S], kept[S], x[G], recur[N], state[S];
    read_next_gradient<FULL>(group, d_output, t, m, j, n, d_next, kept);
    Step::advance_gradient(in.x, in.state, in.recur, d_next, x, recur, state);
    give_all<0, FULL>(group, x, recur, m, j, n);
    put_state_gradients<FULL>(group, kept, state, m, j, n);
}

// The stage of phase K, for the units from j on: what the gradient of the phase's operand adds to the others.
template <int K, bool FULL>
static INLINE void operand_back(Group &group, const Values &in, vec d_operand, int m, long j, int n) {
    vec x[G], recur[N], state[S];
    Step::operand_gradient(Phase<K>{}, in.x, in.state, in.recur, d_operand, x, recur, state);
    give_all<K + 1, FULL>(group, x, recur, m, j, n);
    for (int i = 0; i < S; i++)
        if (Step::STATE_EFFECT[K + 1][i])
            give<FULL>(Step::ADD, group.s.d_state[i] + m * group.s.stride + j, state[i], n);
}

// The same after the gradient of the phase's products, for results that are computed unit by unit.
template <int K> static INLINE void diagonal_back(Group &group, long t) {
    const Problem &p = group.p;
    const Direction &d = group.d;
    each_vector(group, [&](auto full, long j, int n) {
        constexpr bool FULL = decltype(full)::value;
        for (int first = 0; first < group.present; first += PART) {
            vec sums[N];
            for (int g = 0; g < N; g++) sums[g] = splat(0);
            each_counting(group, t, first, [&](int m) {
                Values in;
                read_before<TURNS, FULL>(group, t, m, j, n, in);
                if constexpr (K == PHASES)
                    operand_back<K, FULL>(group, in, get<FULL>(d_result_at(group, G, m) + j, n), m, j, n);
                else {
                    const vec e = dropped<FULL>(group, Step::operand(Phase<K>{}, in.x, in.state, in.recur), m, j, n);
                    vec d_operand = splat(0);
                    for (int i = Step::START[K]; i < Step::START[K + 1]; i++) {
                        const int g = Step::SLOTS[i];
                        const vec d_product = get<FULL>(d_result_at(group, g, m) + j, n);
                        d_operand += get<FULL>(d.weight + g * p.units + j, n) * d_product;
                        sums[g] += d_product * e;
                    }
                    operand_back<K, FULL>(group, in, dropped<FULL>(group, d_operand, m, j, n), m, j, n);
                }
            });
            for (int i = Step::START[K]; K < PHASES && i < Step::START[K + 1]; i++) {
                const int g = Step::SLOTS[i];
                give<FULL>(Step::ADD, sums_at(group, d.d_weight, g, first) + j, sums[g], n);
            }
        }
    });
}

// Fetches what the next step will read and write of the units from j on, while the products are computed.
static INLINE void fetch_next(const Group &group, long t, int m, long j) {
    const Problem &p = group.p;
    const Direction &d = group.d;
    const long next = t - ahead(p, d), b = group.sample + m;
    if (next < 0 || next >= p.steps || j >= p.units) return;
    for (int g = 0; g < G; g++) {
        __builtin_prefetch(d.x + at_x(p, next, b) + g * p.units + j);
        __builtin_prefetch(d.d_x + at_d_x(p, next, b) + g * p.units + j, 1);
    }
    for (int slot = 0; slot < R; slot++) {
        __builtin_prefetch(d.recur + (row_of(p, next, b) * R + slot) * p.units + j);
        __builtin_prefetch(d.d_recur + ((row_of(p, next, b) - row_of(p, p.from, 0)) * R + slot) * p.units + j, 1);
    }
}

// The same for products with a matrix, tile by tile.
template <int K> static INLINE void dense_back(Group &group, long t) {
    const Problem &p = group.p;
    const real *const packed = group.packed + packed_size<0>(p, true) - packed_size<K>(p, true);
    each_tile_of(p, BACK, group.share, t % 2, [&](long head, long tile) {
        const real *pack = packed + (head * tiles_of(p.width, BACK) + tile) * backward_tile_size<K>(p);
        vec acc[GROUP][BACK];
        for (int m = 0; m < group.present; m++)
            for (int c = 0; K == 0 && c < BACK; c++)
                fetch_next(group, t, m, head * p.width + (tile * BACK + c) * W);
        for (int slot = Step::START[K]; slot < Step::START[K + 1]; slot++, pack += p.width * BACK * W)
            multiply_all(acc, slot == Step::START[K], group.present, d_product_at(group, Step::SLOTS[slot], t, 0) + head * p.width,
                Step::OWN * p.units, pack, p.width);
        for (int v = 0; v < BACK && (tile * BACK + v) * W < p.width; v++) {
            const long local = (tile * BACK + v) * W, j = head * p.width + local;
            with_lanes(lanes(p.width, local), [&](auto full) {
                constexpr bool FULL = decltype(full)::value;
                const int n = lanes(p.width, local);
                for (int m = 0; m < group.present; m++) {
                    if (!counts(p, t, group.sample + m)) continue;
                    Values in;
                    read_before<TURNS, FULL>(group, t, m, j, n, in);
                    operand_back<K, FULL>(group, in, dropped<FULL>(group, acc[m][v], m, j, n), m, j, n);
                }
            });
        }
    });
}

template <int TURN> static INLINE void backward_turns(Group &group, long t) {
    if constexpr (TURN >= 0) {
        constexpr int K = Step::ORDER[TURN];
        normalize_back<Results<K>>(group, t);
        if constexpr (K == PHASES) diagonal_back<K>(group, t);
        else if constexpr (DIAGONAL) diagonal_back<K>(group, t);
        else dense_back<K>(group, t);
        group.meet();
        backward_turns<TURN - 1>(group, t);
    }
}

static void backward_step(Group &group, long t) {
    group.present = present(group.p, t, group.sample, group.samples);
    hold_back(group, t);
    draw_at(group, t);
    at_step(group, t);
    each_row(
        group, [&](auto full, int m, long j, int n) { advance_back<decltype(full)::value>(group, t, m, j, n); });
    group.meet();
    if (any_counts(group, t)) {
        backward_turns<TURNS - 1>(group, t);
        normalize_back<Input>(group, t);
    }
    clear_where_cut(group, group.s.d_state, t);
}

static void backward_group(Group &group) {
    const Problem &p = group.p;
    const Direction &d = group.d;
    Scratch &s = group.s;
    each_vector(group, 0, group.samples, [&](auto, int m, long j, int n) {
        const long at = at_state(p, group.sample + m) + j;
        store(s.held + m * s.stride + j, d.d_held ? load(d.d_held + at, n) : splat(0), n);
        for (int i = 0; i < S; i++)
            store(s.d_state[i] + m * s.stride + j, d.d_end[i] ? load(d.d_end[i] + at, n) : splat(0), n);
    });
    for (long i = p.until - 1; i >= p.from; i--) {
        const long t = time_of(p, d, i);
        for (int m = 0; m < present(p, t, group.sample, group.samples); m++)
            if (counts(p, t, group.sample + m)) s.previous[m] = previous_step(p, d, i, group.sample + m);
        backward_step(group, t);
    }
    each_vector(group, 0, group.samples, [&](auto, int m, long j, int n) {
        const long at = at_state(p, group.sample + m) + j;
        if (d.d_held) store(d.d_held + at, load(s.held + m * s.stride + j, n), n);
        for (int i = 0; i < S; i++) store(d.d_start[i] + at, load(s.d_state[i] + m * s.stride + j, n), n);
    });
}
