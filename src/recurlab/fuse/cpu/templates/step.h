#pragma once
#include "tiles.h"
#include "problem.h"
#include "../../templates/stages.h"

// One step of all layers, for few samples. The weights are read as they lie: a row of a matrix times a vector is a sum
// along that row, so there is nothing to pack, which would take longer than the step.
struct Layer {
    const real *weight_ih, *weight_hh;  // (G*H, features) and (G*H, width)
    const real *bias_ih, *bias_hh;      // (G*H,) or null
    long features;
};
struct StepCall {
    const real *input;            // (B, features)
    real *output;                 // (B, H)
    const real *start[S];         // (layers, B, H), or null for zero
    real *end[S];                 // (layers, B, H)
    const unsigned char *resets;  // (B,) or null: samples whose states are zero before the step
    const Layer *layer;
    long layers, batch, units, width;
    long threads;
    real zoneout[S];  // probabilities, of which the expectation is taken
};

struct Room {
    real *x, *recur;     // (B, G, stride)
    real *entering;      // (B, H)
    real *passed[2];     // (B, H): between two layers
    long stride;         // units, rounded up to vectors
    Meeting meeting;
};

struct Turn {
    const StepCall &c;
    const Layer &layer;
    long number;  // of the layer
    const real *input;
    real *output;
    Room &room;
    Share share;
};

// Adds up the lanes of each of W vectors: the upper half of each is added to its lower one, which leaves half as many
// vectors, and so on.
template <int N> static INLINE vec lane_sums(const vec (&sum)[N]) {
    if constexpr (N == 1) return sum[0];
    else {
        vec half[N / 2];
        for (int i = 0; i < N / 2; i++) {
            vec low, high;
            interleave(sum[i], sum[i + N / 2], low, high);
            half[i] = low + high;
        }
        return lane_sums(half);
    }
}

// What the products of a matrix with the vectors of all samples need to know.
struct Matrix {
    const real *rows;  // of `terms` numbers
    long terms;
    const real *vector;  // of sample 0
    long vector_step;    // to the vector of the next sample
};

// Products of W rows, from `row` on, with the vector of one sample: row i takes it from offset(i) on.
template <class F>
static INLINE vec dots(const Matrix &a, long row, int some, long m, bool shared, const F &offset) {
    const real *const matrix = a.rows + row * a.terms, *const vector = a.vector + m * a.vector_step;
    vec sum[W] = {};
    for (long k = 0; k < a.terms; k += W) {
        const vec e = shared ? load_some(vector + k, a.terms - k) : splat(0);
        if (shared && a.terms - k >= W && some == W) {
            for (int i = 0; i < W; i++) sum[i] += load(matrix + i * a.terms + k) * e;
            continue;
        }
        for (int i = 0; i < some; i++)
            sum[i] += load_some(matrix + i * a.terms + k, a.terms - k) *
                      (shared ? e : load_some(vector + offset(i) + k, a.terms - k));
    }
    return lane_sums(sum);
}

// The same sums of fewer rows with the vectors of several samples: more arithmetic for each number that is read.
constexpr int TOGETHER = W >= 16 ? 4 : W >= 4 ? 2 : 1, FEW = W / TOGETHER;
static INLINE vec dots_together(const Matrix &a, long row, int some, long m) {
    const real *const matrix = a.rows + row * a.terms, *const vector = a.vector + m * a.vector_step;
    vec sum[W] = {};
    for (long k = 0; k < a.terms; k += W) {
        vec e[TOGETHER];
        for (int i = 0; i < TOGETHER; i++) e[i] = load_some(vector + i * a.vector_step + k, a.terms - k);
        for (int r = 0; r < FEW; r++) {
            const vec w = load_some(matrix + least(r, some - 1) * a.terms + k, a.terms - k);  // the last one again
            for (int i = 0; i < TOGETHER; i++) sum[i * FEW + r] += w * e[i];
        }
    }
    return lane_sums(sum);
}

// Writes the products of n rows from `row` on, for all samples; `to` is that of sample 0, `step` apart.
template <class F>
static INLINE void multiply_rows(
    const Matrix &a, long row, int n, long batch, bool shared, const F &offset, real *to, long step) {
    long m = 0;
    for (; shared && m + TOGETHER <= batch && TOGETHER > 1; m += TOGETHER)
        for (int first = 0; first < n; first += FEW) {
            const int some = (int)least(FEW, n - first);
            real lanes[W];
            store(lanes, dots_together(a, row + first, some, m));
            for (int i = 0; i < TOGETHER; i++)
                __builtin_memcpy(to + (m + i) * step + first, lanes + i * FEW, FEW * sizeof(real));
        }
    for (; m < batch; m++) store(to + m * step, dots(a, row, n, m, shared, offset));
}

// Calls f(j, n) for a thread's vectors of units.
template <class F> static INLINE void each_vector(const Turn &t, const F &f) {
    const long vectors = (t.c.units + W - 1) / W;
    for (long v = t.share.from(vectors); v < t.share.until(vectors); v++) f(v * W, (int)least(W, t.c.units - v * W));
}
// Calls f(j, n, m) for these and all samples.
template <class F> static INLINE void each_part(const Turn &t, const F &f) {
    each_vector(t, [&](long j, int n) {
        for (long m = 0; m < t.c.batch; m++) f(j, n, m);
    });
}

static INLINE void read_step(const Turn &t, long j, int n, long m, vec *x, vec *state, vec *recur) {
    for (int g = 0; g < G; g++) {
        const long at = (m * G + g) * t.room.stride + j, row = g * t.c.units + j;
        x[g] = load(t.room.x + at) + get_or_zero<false>(t.layer.bias_ih, row, n);
        recur[g] = load(t.room.recur + at) + get_or_zero<false>(t.layer.bias_hh, row, n);
    }
    for (int s = 0; s < S; s++) {
        const bool zero = !t.c.start[s] || (t.c.resets && t.c.resets[m]);
        state[s] = zero ? splat(0) : load(t.c.start[s] + (t.number * t.c.batch + m) * t.c.units + j, n);
    }
}

static INLINE void project(const Turn &t) {
    const Matrix matrix = {t.layer.weight_ih, t.layer.features, t.input, t.layer.features};
    each_vector(t, [&](long j, int n) {
        for (int g = 0; g < G; g++)
            multiply_rows(matrix, g * t.c.units + j, n, t.c.batch, true, [](int) { return 0L; },
                t.room.x + g * t.room.stride + j, G * t.room.stride);
    });
}

// The products of the gates of phase K and those after it, each phase when all units of its operand are there.
template <int K> static INLINE void multiply_phases(const Turn &t) {
    if constexpr (K < PHASES) {
        if (K > 0) t.room.meeting.wait(t.share.size);
        each_part(t, [&](long j, int n, long m) {
            vec x[G], state[S], recur[G];
            read_step(t, j, n, m, x, state, recur);
            store(t.room.entering + m * t.c.units + j, Step::operand(Phase<K>{}, x, state, recur), n);
        });
        t.room.meeting.wait(t.share.size);
        const long width = t.c.width;
        each_vector(t, [&](long j, int n) {
            const long head = j / width * width;
            const Matrix matrix = {t.layer.weight_hh, width, t.room.entering + head, t.c.units};
            for (int i = Step::START[K]; i < Step::START[K + 1]; i++) {
                const int g = Step::SLOTS[i];
                multiply_rows(matrix, g * t.c.units + j, n, t.c.batch, j + n <= head + width,
                    [&](int i) { return (j + i) / width * width - head; },
                    t.room.recur + g * t.room.stride + j, G * t.room.stride);
            }
        });
        multiply_phases<K + 1>(t);
    }
}

static INLINE void finish_layer(const Turn &t) {
    const StepCall &c = t.c;
    each_part(t, [&](long j, int n, long m) {
        vec x[G], state[S], recur[G], entering[MORE], next[S];
        read_step(t, j, n, m, x, state, recur);
        if (c.width == 1) {  // each unit for itself
            Weights w;
            for (int g = 0; g < G; g++) {
                w.u[g] = load(t.layer.weight_hh + g * c.units + j, n);
                w.bias_hh[g] = get_or_zero<false>(t.layer.bias_hh, g * c.units + j, n);
            }
            recurrences<0>(w, splat(1), false, x, state, recur, entering);
        }
        Step::advance(x, state, recur, next);
        for (int s = 0; s < S; s++) {
            if (c.zoneout[s] != 0) next[s] = c.zoneout[s] * state[s] + (1 - c.zoneout[s]) * next[s];
            store(c.end[s] + (t.number * c.batch + m) * c.units + j, next[s], n);
        }
        store(t.output + m * c.units + j, next[0], n);
    });
}

static void run_step(const StepCall &c) {
    const long stride = (c.units + W - 1) / W * W, rows = c.batch * G * stride;
    const Block block(2 * rows + 3 * c.batch * c.units);
    real *const rest = block.at + 2 * rows;
    Room room = {block.at, block.at + rows, rest, {rest + c.batch * c.units, rest + 2 * c.batch * c.units}, stride, {}};
    together((int)c.threads, [&](int rank, int size) {
        const real *input = c.input;
        for (long number = 0; number < c.layers; number++) {
            real *const output = number + 1 < c.layers ? room.passed[number % 2] : c.output;
            const Turn t = {c, c.layer[number], number, input, output, room, {rank, size}};
            project(t);
            if (c.width > 1) multiply_phases<0>(t);
            finish_layer(t);
            if (number + 1 < c.layers) room.meeting.wait(size);
            input = output;
        }
    });
}
