#pragma once
// An example for editors: this header is generated for each kernel. See tests/fuse/editor_headers.py.
#include "storage.h"
#include "arithmetic.h"

// GRU(reset='after', activation='tanh', recurrent_activation='sigmoid')
struct Step {
    static constexpr int GATES = 3, STATES = 1, PHASES = 1;
    // The gates are reset, update, candidate.
    // Those of phase k, which share one operand, are SLOTS[START[k]] to SLOTS[START[k + 1] - 1].
    static constexpr int RECURRENT = 3;
    static constexpr int SLOTS[] = {0, 1, 2}, START[] = {0, 3};
    static constexpr int PHASE[] = {0, 0, 0};
    // A state that is normalised is one more result beside the gates' ones, and a phase of its own, PHASES.
    // Turn i of the step is phase ORDER[i], and phase k has turn TURN[k].
    static constexpr int RESULTS = 3, TURNS = 1;
    static constexpr int ORDER[] = {0}, TURN[] = {0};
    static constexpr bool OPERAND_IS_STATE = true;
    // Whether a gate's projection W x and its recurrence R h have the same gradient.
    static constexpr bool SAME[] = {1, 1, 0};
    // The gates for which they differ: how many, and the index of each among them, or -1.
    static constexpr int OWN = 1, OWN_INDEX[] = {-1, -1, 0};
    // The gates that use W x and R h separately, not just their sum; likewise.
    static constexpr int KEPT = 1, KEPT_INDEX[] = {-1, -1, 0};
    // What a stage of the backward does to a gradient. Stage 0 is advance_gradient, stage k + 1 is
    // operand_gradient of phase k; after stage 0 they run in the order opposite to that of the step.
    enum Effect {NOTHING, SET, ADD};
    static constexpr Effect X_EFFECT[][3] = {{SET, SET, SET}, {NOTHING, NOTHING, NOTHING}};
    static constexpr Effect RECUR_EFFECT[][3] = {{SET, SET, SET}, {NOTHING, NOTHING, NOTHING}};
    static constexpr Effect STATE_EFFECT[][1] = {{SET}, {ADD}};

    static INLINE vec operand(Phase<0>, const vec *x, const vec *state, const vec *recur) {
        const vec h = state[0];
        return h;
    }
    static INLINE void advance(const vec *x, const vec *state, const vec *recur, vec *next) {
        const vec x_update = x[1];
        const vec recur_update = recur[1];
        const vec z = sigmoid(x_update + recur_update);
        const vec x_candidate = x[2];
        const vec x_reset = x[0];
        const vec recur_reset = recur[0];
        const vec r = sigmoid(x_reset + recur_reset);
        const vec recur_candidate = recur[2];
        const vec inner = r * recur_candidate;
        const vec n = tanh(x_candidate + inner);
        const vec h = state[0];
        next[0] = ((real(1.0) - z) * n) + (z * h);
    }
    static INLINE void advance_gradient(const vec *x, const vec *state, const vec *recur, const vec *d_next, vec *d_x, vec *d_recur, vec *d_state) {
        const vec d_h = d_next[0];
        const vec x_update = x[1];
        const vec recur_update = recur[1];
        const vec z = sigmoid(x_update + recur_update);
        const vec sub = real(1.0) - z;
        const vec x_candidate = x[2];
        const vec x_reset = x[0];
        const vec recur_reset = recur[0];
        const vec r = sigmoid(x_reset + recur_reset);
        const vec recur_candidate = recur[2];
        const vec inner = r * recur_candidate;
        const vec n = tanh(x_candidate + inner);
        const vec mul = (d_h * sub) * (real(1.0) - (n * n));
        const vec h = state[0];
        d_x[0] = (mul * recur_candidate) * (r * (real(1.0) - r));
        d_x[1] = ((d_h * h) + (-(d_h * n))) * (z * sub);
        d_x[2] = mul;
        d_recur[2] = mul * r;
        d_state[0] = d_h * z;
    }
    static INLINE void operand_gradient(Phase<0>, const vec *x, const vec *state, const vec *recur, vec d_operand, vec *d_x, vec *d_recur, vec *d_state) {
        d_state[0] = d_operand;
    }
};

constexpr int G = Step::GATES, S = Step::STATES, PHASES = Step::PHASES, MORE = PHASES > 0 ? PHASES : 1;
#ifdef __CUDACC_RTC__  // NVRTC has no offsetof
#define OFFSET_OF(type, field) __INTADDR__(&((type *)0)->field)
#else
#define OFFSET_OF(type, field) __builtin_offsetof(type, field)
#endif
struct Direction {
    // (T, B, G*H), see at_x: the projected input without its bias; for a merged gate the dense kernel puts in its place
    // the sum with the recurrence, which is all that the backward needs
    Store *x;
    const real *weight;             // the recurrent weight
    const real *bias_ih;            // (G*H,) or null
    const real *bias_hh;            // (G*H,) or null
    const real *dropout;            // (B, H) or null: a factor on what enters the recurrence
    const unsigned char *cuts;      // (T, B) or null: steps taken from a zero state
    const unsigned *seed;           // two words, of what zoneout draws; null: nothing is drawn
    const real *start[S];           // (B, H): the states before the sequence
    real *end[S];                   // (B, H): the states after it
    Store *output;                  // (T, B, H), see at_h
    Store *saved[S];                // (T, B, H): the states after each step, but the first; null: not kept
    Store *recur;                   // (T, B, KEPT*H): dense products of the gates not merged; null: not kept
    const real *gain_ih;            // (G*H,), of layer normalisation: of the projected input
    const real *gain_hh;            // (N*H,), N results: of the recurrences' results; bias_hh then has that shape too
    real *moments;                  // (T, B, ROWS, 2): of each row, see rows.h; null: not kept
    Store *entering[MORE];          // (T, B, H): what enters the recurrence; null: not kept
    int *origin;                    // (T, B), see Origin; null: not kept, as where nothing is masked or cut
    const Store *d_output;          // (T, B, H) or null, see at_d
    const real *d_end[S];           // (B, H)
    Store *d_x;                     // (T, B, G*H), see at_d_x
    Store *d_recur;                 // (T, B, OWN*H): dense gradients of the products that differ from d_x
    real *d_start[S];               // (B, H)
    real *d_weight;                 // (parts, G*H), as the next two; the caller sums up the parts
    real *d_bias_ih;
    real *d_bias_hh;
    real *d_gain_ih;                // (parts, N*H), as all sums are with layer normalisation
    real *d_gain_hh;
    real *transfer;                 // (chunks, (VARS + 1) * VARS, B, H), see diagonal_chunks.h
    real *carry;                    // (chunks, VARS, B, H): the gradient that enters each chunk
};
static_assert(sizeof(Direction) == 232, "as Python fills it");
static_assert(OFFSET_OF(Direction, x) == 0 && sizeof(Direction::x) == 8, "");
static_assert(OFFSET_OF(Direction, weight) == 8 && sizeof(Direction::weight) == 8, "");
static_assert(OFFSET_OF(Direction, bias_ih) == 16 && sizeof(Direction::bias_ih) == 8, "");
static_assert(OFFSET_OF(Direction, bias_hh) == 24 && sizeof(Direction::bias_hh) == 8, "");
static_assert(OFFSET_OF(Direction, dropout) == 32 && sizeof(Direction::dropout) == 8, "");
static_assert(OFFSET_OF(Direction, cuts) == 40 && sizeof(Direction::cuts) == 8, "");
static_assert(OFFSET_OF(Direction, seed) == 48 && sizeof(Direction::seed) == 8, "");
static_assert(OFFSET_OF(Direction, start) == 56 && sizeof(Direction::start) == 8, "");
static_assert(OFFSET_OF(Direction, end) == 64 && sizeof(Direction::end) == 8, "");
static_assert(OFFSET_OF(Direction, output) == 72 && sizeof(Direction::output) == 8, "");
static_assert(OFFSET_OF(Direction, saved) == 80 && sizeof(Direction::saved) == 8, "");
static_assert(OFFSET_OF(Direction, recur) == 88 && sizeof(Direction::recur) == 8, "");
static_assert(OFFSET_OF(Direction, gain_ih) == 96 && sizeof(Direction::gain_ih) == 8, "");
static_assert(OFFSET_OF(Direction, gain_hh) == 104 && sizeof(Direction::gain_hh) == 8, "");
static_assert(OFFSET_OF(Direction, moments) == 112 && sizeof(Direction::moments) == 8, "");
static_assert(OFFSET_OF(Direction, entering) == 120 && sizeof(Direction::entering) == 8, "");
static_assert(OFFSET_OF(Direction, origin) == 128 && sizeof(Direction::origin) == 8, "");
static_assert(OFFSET_OF(Direction, d_output) == 136 && sizeof(Direction::d_output) == 8, "");
static_assert(OFFSET_OF(Direction, d_end) == 144 && sizeof(Direction::d_end) == 8, "");
static_assert(OFFSET_OF(Direction, d_x) == 152 && sizeof(Direction::d_x) == 8, "");
static_assert(OFFSET_OF(Direction, d_recur) == 160 && sizeof(Direction::d_recur) == 8, "");
static_assert(OFFSET_OF(Direction, d_start) == 168 && sizeof(Direction::d_start) == 8, "");
static_assert(OFFSET_OF(Direction, d_weight) == 176 && sizeof(Direction::d_weight) == 8, "");
static_assert(OFFSET_OF(Direction, d_bias_ih) == 184 && sizeof(Direction::d_bias_ih) == 8, "");
static_assert(OFFSET_OF(Direction, d_bias_hh) == 192 && sizeof(Direction::d_bias_hh) == 8, "");
static_assert(OFFSET_OF(Direction, d_gain_ih) == 200 && sizeof(Direction::d_gain_ih) == 8, "");
static_assert(OFFSET_OF(Direction, d_gain_hh) == 208 && sizeof(Direction::d_gain_hh) == 8, "");
static_assert(OFFSET_OF(Direction, transfer) == 216 && sizeof(Direction::transfer) == 8, "");
static_assert(OFFSET_OF(Direction, carry) == 224 && sizeof(Direction::carry) == 8, "");
struct Problem {
    long steps;
    long batch;
    long units;
    long x_step;                    // strides, in numbers: of x
    long x_sample;
    long h_step;                    // of the output
    long h_sample;
    long d_step;                    // of d_output
    long d_sample;
    long d_x_step;                  // of d_x
    long d_x_sample;
    long chunks;                    // of time, in the diagonal backward
    long chunk_steps;               // steps of each
    Words *exchange;                // between the blocks of a team of the dense kernels: two buffers for each team
    long exchange_size;             // pieces of 16 bytes of one buffer
    unsigned *counters;             // one of each team, zero before the launch
    Fault fault;
    int directions;
    int hold;                       // whether a masked step repeats the last output
    int training;                   // whether zoneout uses what is drawn, or the expectation
    int grad;                       // whether a backward follows
    real zoneout[S];                // probabilities
    unsigned limit[S];              // a unit keeps its previous value where the word drawn is at most this
    const unsigned char *mask;      // (T, B) or null: steps that count
    Direction direction[2];
};
static_assert(sizeof(Problem) == 648, "as Python fills it");
static_assert(OFFSET_OF(Problem, steps) == 0 && sizeof(Problem::steps) == 8, "");
static_assert(OFFSET_OF(Problem, batch) == 8 && sizeof(Problem::batch) == 8, "");
static_assert(OFFSET_OF(Problem, units) == 16 && sizeof(Problem::units) == 8, "");
static_assert(OFFSET_OF(Problem, x_step) == 24 && sizeof(Problem::x_step) == 8, "");
static_assert(OFFSET_OF(Problem, x_sample) == 32 && sizeof(Problem::x_sample) == 8, "");
static_assert(OFFSET_OF(Problem, h_step) == 40 && sizeof(Problem::h_step) == 8, "");
static_assert(OFFSET_OF(Problem, h_sample) == 48 && sizeof(Problem::h_sample) == 8, "");
static_assert(OFFSET_OF(Problem, d_step) == 56 && sizeof(Problem::d_step) == 8, "");
static_assert(OFFSET_OF(Problem, d_sample) == 64 && sizeof(Problem::d_sample) == 8, "");
static_assert(OFFSET_OF(Problem, d_x_step) == 72 && sizeof(Problem::d_x_step) == 8, "");
static_assert(OFFSET_OF(Problem, d_x_sample) == 80 && sizeof(Problem::d_x_sample) == 8, "");
static_assert(OFFSET_OF(Problem, chunks) == 88 && sizeof(Problem::chunks) == 8, "");
static_assert(OFFSET_OF(Problem, chunk_steps) == 96 && sizeof(Problem::chunk_steps) == 8, "");
static_assert(OFFSET_OF(Problem, exchange) == 104 && sizeof(Problem::exchange) == 8, "");
static_assert(OFFSET_OF(Problem, exchange_size) == 112 && sizeof(Problem::exchange_size) == 8, "");
static_assert(OFFSET_OF(Problem, counters) == 120 && sizeof(Problem::counters) == 8, "");
static_assert(OFFSET_OF(Problem, fault) == 128 && sizeof(Problem::fault) == 24, "");
static_assert(OFFSET_OF(Problem, directions) == 152 && sizeof(Problem::directions) == 4, "");
static_assert(OFFSET_OF(Problem, hold) == 156 && sizeof(Problem::hold) == 4, "");
static_assert(OFFSET_OF(Problem, training) == 160 && sizeof(Problem::training) == 4, "");
static_assert(OFFSET_OF(Problem, grad) == 164 && sizeof(Problem::grad) == 4, "");
static_assert(OFFSET_OF(Problem, zoneout) == 168 && sizeof(Problem::zoneout) == 4, "");
static_assert(OFFSET_OF(Problem, limit) == 172 && sizeof(Problem::limit) == 4, "");
static_assert(OFFSET_OF(Problem, mask) == 176 && sizeof(Problem::mask) == 8, "");
static_assert(OFFSET_OF(Problem, direction) == 184 && sizeof(Problem::direction) == 464, "");
