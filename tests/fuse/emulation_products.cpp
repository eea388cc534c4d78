// Of the engine: the products of a warp, with the numbers of emulation_numbers.h.

namespace emulation {
DEVICE float operand(Kind kind, unsigned word, int half) {
    const unsigned short bits = word >> 16 * half;
    return kind == TF32 ? float_of(word & ~0x1fffu) : kind == BF16 ? from_bf16(bits) : from_f16(bits);
}
// The threads of the warp hold the fragments of the matrices that PTX gives them.
static void multiply(Thread *lane) {
    const Kind kind = lane->kind;
    const int packed = kind == TF32 ? 1 : 2, depth = 8 * packed;
    float a[16][16], b[16][8];
    for (int i = 0; i < 32; i++)
        for (int half = 0; half < packed; half++) {
            const int group = i / 4, place = i % 4 * packed + half;
            for (int r = 0; r < 4; r++)
                a[group + r % 2 * 8][place + r / 2 * (depth / 2)] = operand(kind, lane[i].a[r], half);
            for (int r = 0; r < 2; r++) b[place + r * (depth / 2)][group] = operand(kind, lane[i].b[r], half);
        }
    for (int i = 0; i < 32; i++)
        for (int r = 0; r < 4; r++) {
            double sum = lane[i].c[r];
            for (int k = 0; k < depth; k++) sum += (double)a[i / 4 + r / 2 * 8][k] * b[k][i % 4 * 2 + r % 2];
            lane[i].c[r] = (float)sum;
        }
}
}  // namespace emulation
