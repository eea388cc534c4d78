#pragma once
#include "diagonal_backward.h"

// For few units and a long sequence: the gradient of the states is a linear recurrence, so chunks of time can run side
// by side. `transfer` finds how the gradient before each chunk depends on the one after it, `combine` follows that from
// the last chunk to the first, and `backward` then runs all chunks with the gradients that enter them.

// Writes the chunk's matrix, column by column, and then the gradient that the chunk itself adds.
DEVICE void run_transfer(const Problem &p) {
    const Item at = item_of(p);
    if (!at.live || at.chunk == 0) return;
    Unit unit;
    read_units(p, at, &unit);
    Draws draws = no_draws(p, *at.d);
    float column[VARS + 1][VARS];
#pragma unroll
    for (int c = 0; c <= VARS; c++)
#pragma unroll
        for (int s = 0; s < VARS; s++) column[c][s] = c == s;
    each_step_back(p, at, [&](const Past &past, int k, long i, int origin) {
        const long t = time_of(p, at.direction, i);
        if (NOISY) refresh(p, *at.d, draws, t, at.b, at.j);
        const Moment m = moment_of(p, at, unit, past, k, 0, origin);
#pragma unroll
        for (int c = 0; c <= VARS; c++) step_back(p, at, unit, draws, t, m, c == VARS ? m.d_output : 0, column[c]);
    });
    const long row = at.b * p.units + at.j, all = p.batch * p.units;
#pragma unroll
    for (int c = 0; c <= VARS; c++)
#pragma unroll
        for (int s = 0; s < VARS; s++)
            at.d->transfer[((at.chunk * (VARS + 1) + c) * VARS + s) * all + row] = column[c][s];
}

DEVICE void run_combine(const Problem &p) {
    const Item at = item_of(p);
    if (!at.live || at.chunk > 0) return;
    const long row = at.b * p.units + at.j, all = p.batch * p.units;
    float d[VARS] = {};
#pragma unroll
    for (int s = 0; s < S; s++) d[s] = at.d->d_end[s][row];
    for (long chunk = p.chunks - 1; chunk >= 0; chunk--) {
        float before[VARS];
#pragma unroll
        for (int s = 0; s < VARS; s++) {
            at.d->carry[(chunk * VARS + s) * all + row] = d[s];
            before[s] = 0;
            if (chunk == 0) continue;
            const float *of = at.d->transfer + (chunk * (VARS + 1) * VARS + s) * all + row;
            before[s] = of[VARS * VARS * all];
#pragma unroll
            for (int c = 0; c < VARS; c++) before[s] += of[c * VARS * all] * d[c];
        }
#pragma unroll
        for (int s = 0; s < VARS; s++) d[s] = before[s];
    }
}
