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

// N numbers side by side, moved in one access.
template <int N> struct alignas(N * sizeof(Store)) Pack {
    Store value[N];
};
template <int N> DEVICE Pack<N> get(const Store *from) { return *(const Pack<N> *)from; }
template <int N> DEVICE void put(Store *to, const Pack<N> &pack) { *(Pack<N> *)to = pack; }

// What has been loaded, waited for: what is written below is done after that. `nothing` is 0, see loaded().
DEVICE float arrived(float x, unsigned nothing) { return float_of(loaded(bits_of(x), nothing)); }
template <int N> DEVICE Pack<N> arrived(Pack<N> pack, unsigned nothing) {
#if STORAGE == 0
#pragma unroll
    for (int i = 0; i < N; i++) pack.value[i] = arrived(pack.value[i], nothing);
#else
#pragma unroll
    for (int i = 0; i < N; i += 2) {
        const unsigned high = N > 1 ? (unsigned)pack.value[i + (N > 1)] << 16 : 0, word = loaded(pack.value[i] | high, nothing);
        pack.value[i] = (Store)word;
        if (N > 1) pack.value[i + (N > 1)] = (Store)(word >> 16);
    }
#endif
    return pack;
}
