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

// Memory for numbers, aligned so that no vector of them lies across two cache lines. The last call leaves its memory to
// the next one, for what is fresh from the system is slow to touch; calls at the same time have their own.
struct Block {
    struct alignas(64) Head {
        void *all;
        long count;
    };
    static inline Head *spare = nullptr;
    Head *head;
    real *at;

    explicit Block(long count) : head(__atomic_exchange_n(&spare, nullptr, __ATOMIC_ACQ_REL)) {
        if (!head || head->count < count) {
            if (head) __builtin_free(head->all);
            void *const all = __builtin_malloc(count * sizeof(real) + sizeof(Head) + 64);
            head = (Head *)(((__UINTPTR_TYPE__)all + 63) / 64 * 64);
            *head = {all, count};
        }
        at = (real *)(head + 1);
    }
    ~Block() {
        head = __atomic_exchange_n(&spare, head, __ATOMIC_ACQ_REL);
        if (head) __builtin_free(head->all);
    }
    Block(const Block &) = delete;
};

// ---- threads that work on one thing together ---------------------------------------------------------------

extern "C" int sched_yield() noexcept;

// Calls f(rank, size) on threads that all run at the same time: as many as asked for, or as the runtime gives.
template <class F> static void together(int threads, const F &f) {
    int size = 0;
    if (threads > 1) {
#pragma omp parallel num_threads(threads)
        {
            const int rank = __atomic_fetch_add(&size, 1, __ATOMIC_RELAXED);
#pragma omp barrier
            f(rank, size);
        }
        return;
    }
    f(0, 1);
}

// Where threads wait for each other. They spin, for the wait is short, but let others run when it is not, as on a
// machine with more threads than cores.
struct alignas(64) Meeting {
    int here = 0, round = 0;

    void wait(int size) {
        const int now = __atomic_load_n(&round, __ATOMIC_RELAXED);
        if (__atomic_add_fetch(&here, 1, __ATOMIC_ACQ_REL) == size) {
            __atomic_store_n(&here, 0, __ATOMIC_RELAXED);
            __atomic_store_n(&round, now + 1, __ATOMIC_RELEASE);
            return;
        }
        for (int tries = 0; __atomic_load_n(&round, __ATOMIC_ACQUIRE) == now; tries++) {
            if (tries > 2000) sched_yield();
#if defined(__x86_64__)
            else __builtin_ia32_pause();
#endif
        }
    }
};

// The part of some work that one of several threads does.
struct Share {
    int rank = 0, size = 1;
    long from(long count) const { return count * rank / size; }
    long until(long count) const { return count * (rank + 1) / size; }
};
