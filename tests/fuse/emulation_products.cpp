// Of the engine: the products of a warp, with the numbers of emulation_numbers.h.

namespace emulation {
#pragma GCC push_options
#pragma GCC optimize("O3")
// A Hopper GPU adds 16 products, or 8 of tf32, and what was there in one go: each is cut off, towards zero, two bits behind
// the last one of a float that has the largest of their exponents, where a product has the sum of its factors' exponents;
// and their sum is cut off to a float. (Khattak and Mikaitis, "Accurate Models of NVIDIA Tensor Cores", 2025.)
constexpr int KEPT = 23 + 2, NOTHING = -2000;

// That of a number; that of the smallest normal number below it; NOTHING for 0.
DEVICE int exponent(float x, int least) {
    const int found = (int)(bits_of(x) >> 23 & 255) - 127;
    return x == 0 ? NOTHING : found < least ? least : found;
}
DEVICE double power(int exponent) {
    const long long bits = (long long)(exponent + 1023) << 52;
    double x;
    return __builtin_memcpy(&x, &bits, 8), x;
}
DEVICE float cut_off(double x) {
    const float near = (float)x;
    return __builtin_isfinite(near) && __builtin_fabs(near) > __builtin_fabs(x) ? float_of(bits_of(near) - 1) : near;
}
DEVICE float operand(Kind kind, unsigned word, int half) {
    const unsigned short bits = word >> 16 * half;
    return kind == TF32 ? float_of(word & ~0x1fffu) : kind == BF16 ? from_bf16(bits) : from_f16(bits);
}

struct Operands {
    int depth;
    float a[16][16], b[16][8], c[16][8];
    int of_b[16][8];  // the exponents
};
static void multiply_row(Operands &o, int row, int least) {
    int largest[8], of_a[16];
    double sum[8], unit[8];
    for (int j = 0; j < 8; j++) largest[j] = exponent(o.c[row][j], -126);
    for (int k = 0; k < o.depth; k++) of_a[k] = exponent(o.a[row][k], least);
    for (int k = 0; k < o.depth; k++)
        for (int j = 0; j < 8; j++) {
            const int of_product = of_a[k] + o.of_b[k][j];
            largest[j] = largest[j] > of_product ? largest[j] : of_product;
        }
    for (int j = 0; j < 8; j++) {
        unit[j] = power(KEPT - (largest[j] < -500 ? 0 : largest[j]));
        sum[j] = __builtin_trunc(o.c[row][j] * unit[j]);
    }
    for (int k = 0; k < o.depth; k++)
        for (int j = 0; j < 8; j++) sum[j] += __builtin_trunc((double)o.a[row][k] * o.b[k][j] * unit[j]);
    for (int j = 0; j < 8; j++) o.c[row][j] = cut_off(sum[j] / unit[j]);
}
// The threads of the warp hold the fragments of the matrices that PTX gives them.
static void multiply(Thread *lane) {
    const Kind kind = lane->kind;
    const int packed = kind == TF32 ? 1 : 2, least = kind == F16 ? -14 : -126;
    Operands o;
    o.depth = 8 * packed;
    for (int i = 0; i < 32; i++)
        for (int half = 0; half < packed; half++) {
            const int group = i / 4, place = i % 4 * packed + half;
            for (int r = 0; r < 4; r++)
                o.a[group + r % 2 * 8][place + r / 2 * (o.depth / 2)] = operand(kind, lane[i].a[r], half);
            for (int r = 0; r < 2; r++) o.b[place + r * (o.depth / 2)][group] = operand(kind, lane[i].b[r], half);
        }
    for (int k = 0; k < o.depth; k++)
        for (int j = 0; j < 8; j++) o.of_b[k][j] = exponent(o.b[k][j], least);
    for (int i = 0; i < 32; i++)
        for (int r = 0; r < 4; r++) o.c[i / 4 + r / 2 * 8][i % 4 * 2 + r % 2] = lane[i].c[r];
    for (int row = 0; row < 16; row++) multiply_row(o, row, least);
    for (int i = 0; i < 32; i++)
        for (int r = 0; r < 4; r++) lane[i].c[r] = o.c[i / 4 + r / 2 * 8][i % 4 * 2 + r % 2];
}
#pragma GCC pop_options
}  // namespace emulation
