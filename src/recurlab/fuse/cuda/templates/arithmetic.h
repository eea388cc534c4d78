#pragma once
#include "device.h"

// The arithmetic of a step in float32, under the names that the generated code calls. What CUDA has is
// used; sigmoid and tanh, on which each next step waits, are shorter ones of our own.
typedef float real;
typedef float vec;
typedef bool mask;
template <int K> struct Phase {};

DEVICE vec splat(real value) { return value; }
DEVICE vec where(mask choose, vec yes, vec no) { return choose ? yes : no; }
DEVICE vec abs(vec x) { return ::fabsf(x); }
DEVICE vec sign(vec x) { return x > 0 ? 1.0f : x < 0 ? -1.0f : 0.0f; }
DEVICE vec round(vec x) { return ::rintf(x); }
DEVICE vec floor(vec x) { return ::floorf(x); }
DEVICE vec ceil(vec x) { return ::ceilf(x); }
DEVICE vec trunc(vec x) { return ::truncf(x); }
DEVICE vec minimum(vec a, vec b) { return a < b || a != a ? a : b; }
DEVICE vec maximum(vec a, vec b) { return a > b || a != a ? a : b; }
DEVICE vec sqrt(vec x) { return ::sqrtf(x); }
DEVICE vec exp(vec x) { return ::expf(x); }
DEVICE vec expm1(vec x) { return ::expm1f(x); }
DEVICE vec log(vec x) { return ::logf(x); }
DEVICE vec log1p(vec x) { return ::log1pf(x); }
DEVICE vec sin(vec x) { return ::sinf(x); }
DEVICE vec cos(vec x) { return ::cosf(x); }
DEVICE vec erf(vec x) { return ::erff(x); }
DEVICE vec pow(vec x, vec power) { return ::powf(x, power); }

constexpr float LOG2_E = 1.4426950408889634f;

DEVICE vec sigmoid(vec x) { return reciprocal_fast(1.0f + exp2_fast(-LOG2_E * x)); }

// 1 - 2 / (e^2|x| + 1) loses digits near 0, where an odd polynomial replaces it; the two are computed side by side.
DEVICE vec tanh(vec x) {
    const float size = ::fabsf(x), z = x * x;
    const float far = 1.0f - reciprocal_fast(0.5f + 0.5f * exp2_fast(2.0f * LOG2_E * size));
    // tanh x = x + x z (c0 + c1 z + ...), minimax for |x| <= 0.55: 1.3e-8
    float tail = -0.00661022782f;
    tail = tail * z + 0.02130938866f;
    tail = tail * z - 0.05390942883f;
    tail = tail * z + 0.13333113729f;
    tail = tail * z - 0.33333332008f;
    return ::copysignf(size < 0.55f ? size + size * z * tail : far, x);
}
