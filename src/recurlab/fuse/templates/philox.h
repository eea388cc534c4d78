#pragma once
#ifndef INLINE
#include "../cpu/templates/arithmetic.h"
#endif

// The counter-based random numbers Philox 4x32 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", 2011),
// with 7 rounds: four words from a counter of four words and a key of two. A word is the low half of 64 bits, or of
// each lane of a vector of these; the high half is ignored.
typedef unsigned long long word;
static INLINE word times(word a, unsigned by) { return (a & 0xffffffff) * by; }

// The four may have different types, so that what is the same for all lanes is computed once.
template <class A, class B, class C, class D> struct Counter {
    A a;
    B b;
    C c;
    D d;
};
template <class A, class B, class C, class D> static INLINE Counter<A, B, C, D> counter_of(A a, B b, C c, D d) {
    return {a, b, c, d};
}

template <int ROUNDS = 7, class A, class B, class C, class D>
static INLINE auto philox(const Counter<A, B, C, D> &counter, unsigned k0, unsigned k1) {
    if constexpr (ROUNDS == 0) return counter;
    else {
        const auto first = times(counter.a, 0xD2511F53), second = times(counter.c, 0xCD9E8D57);
        const auto a = (second >> 32) ^ counter.b ^ k0;
        const auto c = (first >> 32) ^ counter.d ^ k1;
        return philox<ROUNDS - 1>(counter_of(a, second, c, first), k0 + 0x9E3779B9, k1 + 0xBB67AE85);
    }
}
