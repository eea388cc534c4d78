// What a kernel is asked to do, and what all kernels share. Shapes: T steps, B samples, H units, G gates, S states.

struct Direction {
    real *x;                                 // (T, B, G*H), see at_x: the projected input without its bias; for a
                                             // merged gate the dense kernel puts in its place the sum with the
                                             // recurrence, which is all that the backward needs
    const real *weight;                      // the recurrent weight
    const real *bias_ih;                     // (G*H,) or null
    const real *bias_hh;                     // (G*H,) or null
    const real *dropout;                     // (B, H) or null: factor on what enters the recurrence
    const unsigned char *cuts;               // (T, B) or null: steps taken from a zero state
    const long long *seed;                   // of what zoneout draws; null: nothing is drawn
    const real *start[Step::STATES];         // (B, H)
    real *end[Step::STATES];                 // (B, H)
    real *output;                            // (T, B, H), see at_h
    real *saved[Step::STATES];               // (T, B, H): the states after each step, but the first; null: not kept
    real *recur;                             // (T, B, KEPT*H): dense products of the gates not merged; null: not kept
    real *entering[Step::PHASES];            // (T, B, H): what enters the recurrence; null: not kept
    // of the backward
    const real *d_output;                    // (T, B, H) or null, see at_d
    const real *d_end[Step::STATES];         // (B, H) or null
    real *d_x;                               // (until - from, B, G*H), see at_d_x
    real *d_held;                            // (B, H) or null: gradient of outputs held, carried from call to call
    real *d_recur;                           // (T, B, OWN*H): dense gradients of the products that differ from d_x
    real *d_start[Step::STATES];             // (B, H)
    // (parts, G*H), to be summed over the parts, of 4 samples in the dense kernel and 8 in the diagonal one
    real *d_weight, *d_bias_ih, *d_bias_hh;
};

struct Problem {
    long steps, batch, units, width;         // width: units of a head
    long x_step, x_sample, h_step, h_sample, d_step, d_sample;  // strides of x, of the output, of d_output
    long d_x_step, d_x_sample;
    long from, until;                        // steps of this call of the diagonal backward, as a direction counts them
    long samples, blocks;                    // of an item of work: samples and, in the diagonal kernel, vectors of units
    int directions, threads, hold, training, grad;  // grad: whether a backward follows
    const unsigned char *mask;               // (T, B) or null: steps that count
    real zoneout[Step::STATES];              // probabilities
    long long limit[Step::STATES];           // the largest random word by which zoneout keeps a unit; -1: none
    Direction direction[2];
};

// Runs f(item) for every item, on the threads of the OpenMP pool that torch uses.
template <class F> static void parallel(long items, int threads, const F &f) {
    if (threads <= 1 || items <= 1) {
        for (long i = 0; i < items; i++) f(i);
        return;
    }
#pragma omp parallel for schedule(dynamic, 1) num_threads(threads)
    for (long i = 0; i < items; i++) f(i);
}

// Lanes of a full vector, or the first n of one: the compiler drops n where FULL.
template <bool FULL> static INLINE vec get(const real *p, int n) {
    if constexpr (FULL) return load(p);
    else return load(p, n);
}
template <bool FULL> static INLINE void put(real *p, vec v, int n) {
    if constexpr (FULL) store(p, v);
    else store(p, v, n);
}
template <bool FULL> static INLINE vec get_or_zero(const real *p, long offset, int n) {
    return p ? get<FULL>(p + offset, n) : splat(0);
}

static INLINE long at_x(const Problem &p, long t, long b) { return t * p.x_step + b * p.x_sample; }
static INLINE long at_h(const Problem &p, long t, long b) { return t * p.h_step + b * p.h_sample; }
static INLINE long at_d(const Problem &p, long t, long b) { return t * p.d_step + b * p.d_sample; }
static INLINE long at_d_x(const Problem &p, long t, long b) { return (t - p.from) * p.d_x_step + b * p.d_x_sample; }
static INLINE long time_of(const Problem &p, const Direction &d, long i) {
    return &d == &p.direction[1] ? p.steps - 1 - i : i;
}
// The way in which a direction goes: its next step lies that many steps on.
static INLINE long ahead(const Problem &p, const Direction &d) { return &d == &p.direction[1] ? -1 : 1; }
static INLINE bool counts(const Problem &p, long t, long b) { return !p.mask || p.mask[t * p.batch + b]; }
static INLINE bool is_cut(const Problem &p, const Direction &d, long t, long b) {
    return d.cuts && d.cuts[t * p.batch + b];
}

// The step that a direction takes before its i-th one and that counts for sample b, or -1.
static INLINE long previous_step(const Problem &p, const Direction &d, long i, long b) {
    for (long before = i - 1; before >= 0; before--) {
        const long t = time_of(p, d, before);
        if (counts(p, t, b)) return t;
    }
    return -1;
}

// The states that a step of sample b starts from, `previous` being its previous_step.
template <bool FULL>
static INLINE void states_before(const Problem &p, const Direction &d, long previous, bool cut, long b, long j, int n, vec *state) {
    for (int s = 0; s < Step::STATES; s++)
        state[s] = cut            ? splat(0)
                   : previous < 0 ? get<FULL>(d.start[s] + b * p.units + j, n)
                   : s == 0       ? get<FULL>(d.output + at_h(p, previous, b) + j, n)
                                  : get<FULL>(d.saved[s] + (previous * p.batch + b) * p.units + j, n);
}
