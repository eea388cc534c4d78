// Numbers and their conversions under the names of the kernels' device.h.

#define INLINE inline
#define DEVICE [[maybe_unused]] static INLINE
// What CUDA has without a header; to read <cmath> would take as long as to compile a small kernel.
extern "C" {
float fabsf(float), rintf(float), floorf(float), ceilf(float), truncf(float), copysignf(float, float), sqrtf(float);
float expf(float), exp2f(float), expm1f(float), logf(float), log1pf(float), sinf(float), cosf(float), erff(float);
float powf(float, float);
}
DEVICE unsigned bits_of(float x) {
    unsigned bits;
    return __builtin_memcpy(&bits, &x, 4), bits;
}
DEVICE float float_of(unsigned bits) {
    float x;
    return __builtin_memcpy(&x, &bits, 4), x;
}
DEVICE unsigned loaded(unsigned word, unsigned nothing) { return word ^ nothing; }
DEVICE unsigned multiply_high(unsigned a, unsigned b) { return (unsigned long long)a * b >> 32; }
DEVICE float exp2_fast(float x) { return ::exp2f(x); }
DEVICE float reciprocal_fast(float x) { return 1 / x; }

DEVICE unsigned round_tf32(float x) {
    const unsigned bits = bits_of(x);
    if ((bits & 0x7fffffff) > 0x7f800000) return 0x7fffe000;
    return (bits + 0x1000) & ~0x1fffu;
}
DEVICE float from_bf16(unsigned short bits) { return float_of((unsigned)bits << 16); }
DEVICE unsigned short to_bf16(float x) {
    const unsigned bits = bits_of(x);
    if ((bits & 0x7fffffff) > 0x7f800000) return 0x7fff;
    return (bits + 0x7fff + (bits >> 16 & 1)) >> 16;
}
DEVICE float from_f16(unsigned short bits) {
    const unsigned size = bits & 0x7fff, sign = (unsigned)(bits & 0x8000) << 16;
    if (size >= 0x7c00) return float_of(sign | 0x7f800000 | (size & 0x3ff) << 13);
    // The exponents differ by 112; the product is right for numbers below the normal ones too.
    return float_of(sign | bits_of(float_of(size << 13) * 0x1p112f));
}
DEVICE unsigned short to_f16(float x) {
    const unsigned bits = bits_of(x), size = bits & 0x7fffffff, sign = bits >> 16 & 0x8000;
    if (size > 0x7f800000) return 0x7fff;
    if (size >= bits_of(65520.0f)) return sign | 0x7c00;
    // Below the normal numbers, 0.5 has its last digit where theirs is.
    if (size < bits_of(0x1p-14f)) return sign | (bits_of(float_of(size) + 0.5f) - bits_of(0.5f));
    return sign | (size - (112u << 23) + 0xfff + (size >> 13 & 1)) >> 13;
}
