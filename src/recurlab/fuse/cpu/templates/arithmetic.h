#pragma once
#include "constants.h"

// Arithmetic on vectors of `real`, which is float or double. No system header is included: the compiler's built-in
// functions suffice, and a kernel compiles fast.
// A NaN stays in its lane and comes out of every function but sign, comparisons and masks.

#if defined(__AVX512F__)
constexpr int BYTES = 64;
#elif defined(__AVX__)
constexpr int BYTES = 32;
#else
constexpr int BYTES = 16;
#endif

#if REAL_IS_FLOAT
typedef __INT32_TYPE__ integer;
typedef __UINT32_TYPE__ natural;
#define LIBM(name) __builtin_##name##f
#define PER_TYPE(of_float, of_double) of_float
#else
typedef __INT64_TYPE__ integer;
typedef __UINT64_TYPE__ natural;
#define LIBM(name) __builtin_##name
#define PER_TYPE(of_float, of_double) of_double
#endif

template <int K> struct Phase {};  // the number of a phase, as a type

constexpr int W = BYTES / sizeof(real);
typedef real vec __attribute__((vector_size(BYTES)));
typedef integer mask __attribute__((vector_size(BYTES)));  // a lane is -1 where true, 0 where false
typedef natural bits __attribute__((vector_size(BYTES)));

// ---- numbers ---------------------------------------------------------------------------------------------

#if REAL_IS_FLOAT
constexpr int MANTISSA = 23, BIAS = 127;
constexpr real INFINITE = __builtin_inff(), SMALLEST_NORMAL = __FLT_MIN__, LARGEST = __FLT_MAX__;
constexpr real EXP_LOWEST = -87.33654f, EXP_HIGHEST = 88.72283f;  // e^x is a normal number between these
constexpr real EXPM1_LOWEST = -18.0f, EXPM1_HIGHEST = 89.0f;      // beyond, e^x - 1 is -1 or infinite
constexpr real TANH_HIGHEST = 10.0f;                              // beyond, tanh is 1
// ln 2 in two parts: a multiple of the first by an exponent is exact
constexpr real LN2_HIGH = 0.693145751953125f, LN2_LOW = 1.4286068e-06f;
// e^r - 1 = r + r^2 (c0 + c1 r + ...) for |r| <= ln(2)/2, minimax in relative error: 1.5e-8
constexpr real EXP_TAIL[] = {0.5f, 0.16666548f, 0.041666854f, 0.00836607f, 0.0013898289f};
// log((1+s)/(1-s)) = 2s + s z (c0 + c1 z + ...), z = s^2 <= 0.0295, minimax in relative error: 9e-10
constexpr real LOG_TAIL[] = {0.66666776f, 0.39977494f, 0.298731f};
#else
constexpr int MANTISSA = 52, BIAS = 1023;
constexpr real INFINITE = __builtin_inf(), SMALLEST_NORMAL = __DBL_MIN__, LARGEST = __DBL_MAX__;
constexpr real EXP_LOWEST = -708.3964185322641, EXP_HIGHEST = 709.782712893384;
constexpr real EXPM1_LOWEST = -40.0, EXPM1_HIGHEST = 710.0;
constexpr real TANH_HIGHEST = 20.0;
constexpr real LN2_HIGH = 0.69314718055989033, LN2_LOW = 5.497923018708371e-14;
// as above, errors 2.5e-17 and 1.3e-18
constexpr real EXP_TAIL[] = {0.5, 0.16666666666666602, 0.04166666666661985, 0.008333333333388565, 0.0013888888920576023,
    0.0001984126970902638, 2.480151624734674e-05, 2.755742523767234e-06, 2.7622273215680865e-07, 2.504590029932748e-08};
constexpr real LOG_TAIL[] = {0.6666666666666735, 0.3999999999941039, 0.28571428743392574, 0.2222219846439211,
    0.18183570277871758, 0.15313890726170984, 0.14797623200369012};
#endif
constexpr real LOG2_E = real(1.4426950408889634);
constexpr natural ONE_BITS = natural(BIAS) << MANTISSA, MANTISSA_BITS = (natural(1) << MANTISSA) - 1;
constexpr natural SIGN_BIT = natural(1) << (8 * sizeof(real) - 1);
constexpr natural SQRT_HALF_BITS = REAL_IS_FLOAT ? natural(0x3f3504f3) : natural(0x3fe6a09e667f3bcdULL);
constexpr real UNIT_STEP = real(natural(1) << MANTISSA);  // from here on every number is whole

// ---- lanes -----------------------------------------------------------------------------------------------

INLINE vec splat(real value) { return value - vec{}; }
INLINE vec where(mask choose, vec yes, vec no) { return choose ? yes : no; }

typedef vec unaligned_vec __attribute__((aligned(sizeof(real))));

INLINE vec load(const real *from) { return *(const unaligned_vec *)from; }
INLINE void store(real *to, vec x) { *(unaligned_vec *)to = x; }

#if defined(__AVX512F__)
#define MASKED(action) PER_TYPE(__builtin_ia32_##action##ups512_mask, __builtin_ia32_##action##upd512_mask)
INLINE vec load(const real *from, int n) { return MASKED(load)(from, vec{}, (1u << n) - 1); }
INLINE void store(real *to, vec x, int n) { MASKED(store)(to, x, (1u << n) - 1); }
#elif defined(__AVX__)
#define MASKED(action) PER_TYPE(__builtin_ia32_mask##action##ps256, __builtin_ia32_mask##action##pd256)
typedef PER_TYPE(int, long long) choice __attribute__((vector_size(BYTES)));
INLINE choice first(int n) {
    mask lane = {};
    for (int i = 0; i < W; i++) lane[i] = i;
    return (choice)(lane < n);
}
INLINE vec load(const real *from, int n) { return MASKED(load)((const vec *)from, first(n)); }
INLINE void store(real *to, vec x, int n) { MASKED(store)((vec *)to, first(n), x); }
#else
INLINE vec load(const real *from, int n) {
    real lanes[W] = {};
    for (int i = 0; i < n; i++) lanes[i] = from[i];
    return load(lanes);
}
INLINE void store(real *to, vec x, int n) {
    real lanes[W];
    store(lanes, x);
    for (int i = 0; i < n; i++) to[i] = lanes[i];
}
#endif

// Products of the low halves of lanes of 64 bits with a number of 32.
typedef unsigned long long words __attribute__((vector_size(BYTES)));
INLINE words times(words a, unsigned by) {
#if defined(__AVX2__) || (defined(__SSE2__) && !defined(__AVX__))
    words result = by + words{};  // by hand, since a compiler may multiply all 64 bits
#if defined(__AVX2__)
    const words factor = result;
    __asm__("vpmuludq %2, %1, %0" : "=v"(result) : "v"(a), "v"(factor));
#else
    __asm__("pmuludq %1, %0" : "+x"(result) : "x"(a));
#endif
    return result;
#else
    return (a & 0xffffffff) * by;
#endif
}

// ---- signs, rounding, order ------------------------------------------------------------------------------

INLINE vec abs(vec x) { return (vec)((bits)x & ~SIGN_BIT); }
INLINE vec with_sign(vec size, vec sign) { return (vec)(((bits)size & ~SIGN_BIT) | ((bits)sign & SIGN_BIT)); }
INLINE vec sign(vec x) { return where(x > 0, splat(1), where(x < 0, splat(-1), vec{})); }  // of NaN: 0, as torch

// Adding 2^MANTISSA leaves no room for a fraction, so the processor rounds it away, halves to even.
INLINE vec round(vec x) {
    vec size = abs(x);
    return where(size < UNIT_STEP, with_sign((size + UNIT_STEP) - UNIT_STEP, x), x);
}
INLINE vec floor(vec x) {
    vec near = round(x);
    return with_sign(where(near > x, near - 1, near), x);
}
INLINE vec ceil(vec x) {
    vec near = round(x);
    return with_sign(where(near < x, near + 1, near), x);
}
INLINE vec trunc(vec x) { return with_sign(floor(abs(x)), x); }

INLINE vec minimum(vec a, vec b) { return where((a < b) | (a != a), a, b); }
INLINE vec maximum(vec a, vec b) { return where((a > b) | (a != a), a, b); }

// ---- square root, polynomials ----------------------------------------------------------------------------

INLINE vec sqrt(vec x) {
    // by hand, since a compiler may take the root lane by lane
#if defined(__AVX__)
    __asm__(PER_TYPE("vsqrtps", "vsqrtpd") " %1, %0" : "=v"(x) : "v"(x));
#elif defined(__x86_64__)
    __asm__(PER_TYPE("sqrtps", "sqrtpd") " %1, %0" : "=x"(x) : "x"(x));
#else
    for (int i = 0; i < W; i++) x[i] = LIBM(sqrt)(x[i]);
#endif
    return x;
}

// Even and odd powers apart: two chains of operations, each half as long as one.
template <int N> INLINE vec polynomial(vec x, const real (&coefficients)[N]) {
    vec square = x * x, sum[2];
    for (int i = N - 1; i >= 0; i--)
        sum[i % 2] = i < N - 2 ? sum[i % 2] * square + coefficients[i] : splat(coefficients[i]);
    return sum[0] + x * sum[1];
}

// ---- exponentials ----------------------------------------------------------------------------------------

// x = n ln 2 + r with |r| <= ln(2)/2: `part` is e^r - 1, and the lowest bits of `power` are n + OFFSET.
struct Exponential {
    vec part, power;
};

template <int OFFSET> INLINE Exponential exponential(vec x) {
    // adding 1.5 * 2^MANTISSA rounds to a whole number and leaves it in the lowest bits
    constexpr real SHIFT = UNIT_STEP + UNIT_STEP / 2 + OFFSET;
    vec power = x * LOG2_E + SHIFT, n = power - SHIFT;
    vec r = (x - n * LN2_HIGH) - n * LN2_LOW;
    return {r + r * r * polynomial(r, EXP_TAIL), power};
}

// 2^n, for which the OFFSET is BIAS
INLINE vec power_of_two(vec power) { return (vec)((bits)power << MANTISSA); }

// Results below the smallest normal number are flushed to 0.
INLINE vec exp(vec x) {
    Exponential e = exponential<0>(x);
    vec y = (vec)((bits)(e.part + 1) + ((bits)e.power << MANTISSA));
    y = where(x <= EXP_HIGHEST, y, x * LARGEST);  // infinite, or the NaN that x is
    return where(x < EXP_LOWEST, vec{}, y);
}

INLINE vec expm1(vec x) {
    vec inside = where(x > EXPM1_HIGHEST, splat(EXPM1_HIGHEST), where(x < EXPM1_LOWEST, splat(EXPM1_LOWEST), x));
    Exponential e = exponential<BIAS - 1>(inside);
    vec half = power_of_two(e.power);  // of 2^n, which itself may be out of range
    vec y = half * e.part + (half - real(0.5));
    return with_sign(y + y, x);
}

// With e = exp(-|x|) nothing overflows, and the denominator 1 + e is in [1, 2].
INLINE vec sigmoid(vec x) {
    vec size = -abs(x);
    Exponential p = exponential<BIAS>(size);
    vec scale = power_of_two(p.power);
    vec e = where(size < EXP_LOWEST, vec{}, scale * p.part + scale);
    return where(x >= 0, splat(1), e) / (1 + e);
}

// With m = -expm1(-2|x|): |tanh x| = m / (2 - m), exact to the last places near 0 too.
INLINE vec tanh(vec x) {
    vec size = abs(x);
    Exponential p = exponential<BIAS>(-2 * size);
    vec scale = power_of_two(p.power);
    vec m = (1 - scale) - scale * p.part;
    vec y = where(size > TANH_HIGHEST, splat(1), m / (2 - m));
    return (vec)((bits)y | ((bits)x & SIGN_BIT));
}

// ---- logarithms ------------------------------------------------------------------------------------------

// log x for a positive normal x = 2^n (1 + f), 1 + f between sqrt(1/2) and sqrt(2); n is then lowered by `raised`.
INLINE vec log_normal(vec x, vec raised) {
    bits shifted = (bits)x + (ONE_BITS - SQRT_HALF_BITS);
    // the exponent becomes a number by being written into the lowest bits of 2^MANTISSA
    vec n = (vec)((shifted >> MANTISSA) | (natural(BIAS + MANTISSA) << MANTISSA)) - (raised + (UNIT_STEP + BIAS));
    vec f = (vec)((shifted & MANTISSA_BITS) + SQRT_HALF_BITS) - 1;
    vec s = f / (2 + f), z = s * s, half_square = real(0.5) * f * f;
    vec rest = s * (half_square + z * polynomial(z, LOG_TAIL)) + n * LN2_LOW;
    return n * LN2_HIGH - ((half_square - rest) - f);
}

INLINE vec log(vec x) {
    mask tiny = x < SMALLEST_NORMAL;
    vec y = log_normal(where(tiny, x * UNIT_STEP, x), where(tiny, splat(MANTISSA), vec{}));
    y = where(x < INFINITE, y, x);
    return where(x > 0, y, where(x == 0, splat(-INFINITE), splat(LIBM(nan)(""))));
}

// 1 + x = u + lost without error, and log(u + lost) is log(u) + lost / u to the last places.
INLINE vec log1p(vec x) {
    vec u = 1 + x, added = u - x, lost = (1 - added) + (x - (u - added));
    vec y = log(u);
    y = where((u > 0) & (u < INFINITE), y + lost / u, y);
    return with_sign(y, x);
}

// ---- one lane after the other, by the C library ------------------------------------------------------------

#define LANE_BY_LANE(name)                                   \
    INLINE vec name(vec x) {                                 \
        for (int i = 0; i < W; i++) x[i] = LIBM(name)(x[i]); \
        return x;                                            \
    }

LANE_BY_LANE(sin)
LANE_BY_LANE(cos)
LANE_BY_LANE(erf)

INLINE vec pow(vec x, vec power) {
    for (int i = 0; i < W; i++) x[i] = LIBM(pow)(x[i], power[i]);
    return x;
}
