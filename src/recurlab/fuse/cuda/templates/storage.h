#pragma once
#include "device.h"

// Sequences in memory: STORAGE says which type they have.
template <int> struct StoreOf {
    typedef unsigned short type;  // the bits of a half-precision number
};
template <> struct StoreOf<FLOAT32> {
    typedef float type;
};
typedef StoreOf<STORAGE>::type Store;

DEVICE float read(Store x) {
    if constexpr (STORAGE == FLOAT32) return x;
    else return STORAGE == BFLOAT16 ? from_bf16(x) : from_f16(x);
}
DEVICE Store write(float x) {
    if constexpr (STORAGE == FLOAT32) return x;
    else return STORAGE == BFLOAT16 ? to_bf16(x) : to_f16(x);
}
DEVICE unsigned word_in(Store x) {
    if constexpr (STORAGE == FLOAT32) return bits_of(x);
    else return x;
}
DEVICE Store store_in(unsigned word) {
    if constexpr (STORAGE == FLOAT32) return float_of(word);
    else return (Store)word;
}

// N numbers side by side, moved in one access: a Pack to memory, what is Fetched from it. The latter stays in whole
// words: to take a word apart is to wait for it, and the compiler would do so at once.
template <int N> struct alignas(N * sizeof(Store)) Pack {
    Store value[N];
};
template <int BYTES> struct WordOf {
    typedef unsigned type;
};
template <> struct WordOf<2> {
    typedef unsigned short type;
};
template <int N> struct alignas(N * sizeof(Store)) Fetched {
    typedef typename WordOf<N * sizeof(Store)>::type Word;
    static constexpr int WORDS = N * sizeof(Store) / sizeof(Word);
    Word word[WORDS];
    INLINE Store operator[](int i) const { return store_in(sizeof(Store) == 4 ? word[i] : word[i / 2] >> i % 2 * 16); }
};
template <int N> DEVICE void put(Store *to, const Pack<N> &pack) { *(Pack<N> *)to = pack; }
template <int N> DEVICE Fetched<N> get(const Store *from) { return *(const Fetched<N> *)from; }

// Waits for what has been fetched, before what is written below. `nothing` is 0, see loaded().
DEVICE float arrived(float x, unsigned nothing) { return float_of(loaded(bits_of(x), nothing)); }
template <int N> DEVICE Fetched<N> arrived(Fetched<N> fetched, unsigned nothing) {
#pragma unroll
    for (int i = 0; i < Fetched<N>::WORDS; i++) fetched.word[i] = loaded(fetched.word[i], nothing);
    return fetched;
}
