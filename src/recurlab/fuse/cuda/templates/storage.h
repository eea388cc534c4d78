// Sequences in memory: STORAGE says whether they are float32 (0), bfloat16 (1) or float16 (2).
#if STORAGE == 0
typedef float Store;
DEVICE float read(Store x) { return x; }
DEVICE Store write(float x) { return x; }
DEVICE unsigned word_in(Store x) { return bits_of(x); }
#else
typedef unsigned short Store;
DEVICE float read(Store x) { return STORAGE == 1 ? from_bf16(x) : from_f16(x); }
DEVICE Store write(float x) { return STORAGE == 1 ? to_bf16(x) : to_f16(x); }
DEVICE unsigned word_in(Store x) { return x; }
#endif

DEVICE Store store_in(unsigned word) {
#if STORAGE == 0
    return float_of(word);
#else
    return (Store)word;
#endif
}

// N numbers side by side, moved in one access: to memory, and from it. What has been fetched stays in whole words, since
// where a word is taken apart it is waited for, and the compiler would do so at once.
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
    INLINE Store operator[](int i) const {
        return store_in(sizeof(Store) == 4 ? word[i] : word[i / 2] >> i % 2 * 16);
    }
};
template <int N> DEVICE void put(Store *to, const Pack<N> &pack) { *(Pack<N> *)to = pack; }
template <int N> DEVICE Fetched<N> get(const Store *from) { return *(const Fetched<N> *)from; }

// What has been loaded, waited for: what is written below is done after that. `nothing` is 0, see loaded().
DEVICE float arrived(float x, unsigned nothing) { return float_of(loaded(bits_of(x), nothing)); }
template <int N> DEVICE Fetched<N> arrived(Fetched<N> fetched, unsigned nothing) {
#pragma unroll
    for (int i = 0; i < Fetched<N>::WORDS; i++) fetched.word[i] = loaded(fetched.word[i], nothing);
    return fetched;
}
