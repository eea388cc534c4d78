#pragma once
#include "arithmetic.h"

// Threads, and memory for each.

// Runs f(item) for every item, on the threads of the OpenMP pool that torch uses.
template <class F> static void parallel(long items, int threads, const F &f) {
    if (threads <= 1 || items <= 1) {
        for (long i = 0; i < items; i++) f(i);
        return;
    }
#pragma omp parallel for schedule(dynamic, 1) num_threads(threads)
    for (long i = 0; i < items; i++) f(i);
}

// Numbers on the heap, aligned so that no vector of them lies across two cache lines.
struct Block {
    void *const all;
    real *const at;
    explicit Block(long count, bool zero = false)
        : all(zero ? __builtin_calloc(count * sizeof(real) + 64, 1) : __builtin_malloc(count * sizeof(real) + 64)),
          at((real *)(((__UINTPTR_TYPE__)all + 63) / 64 * 64)) {}
    ~Block() { __builtin_free(all); }
    Block(const Block &) = delete;
};
