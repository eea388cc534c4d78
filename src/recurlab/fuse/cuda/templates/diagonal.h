#pragma once
#include "problem.h"
#include "../../templates/stages.h"

// The diagonal recurrence: a unit depends on itself alone, so a thread takes VECTOR units of a sample through the whole
// sequence. What it reads does not depend on what it computes, so it is fetched AHEAD to 2 * AHEAD steps before its
// use.

struct Item {
    const Direction *d;
    int direction;
    long chunk, b, j;
    bool live;
};
DEVICE Item item_of(const Problem &p) {
    const long strips = p.units / VECTOR, index = (long)block_index() * THREADS + thread_index();
    const long row = index / strips, chunk = row / p.batch / p.directions;
    const int direction = row / p.batch % p.directions;
    return {&p.direction[direction], direction, chunk, row % p.batch, index % strips * VECTOR, chunk < p.chunks};
}

// What a thread knows of a unit during the whole sequence.
struct Unit {
    Weights w;
    float drop, start[S];
};
DEVICE void read_units(const Problem &p, const Item &at, Unit *units) {
    const Direction &d = *at.d;
#pragma unroll
    for (int v = 0; v < VECTOR; v++) {
        const long index = at.b * p.units + at.j + v;
        units[v].drop = NOISY && d.dropout ? d.dropout[index] : 1;
#pragma unroll
        for (int s = 0; s < S; s++) units[v].start[s] = d.start[s][index];
#pragma unroll
        for (int g = 0; g < G; g++) {
            const long row = g * p.units + at.j + v;
            units[v].w.u[g] = Step::PHASE[g] < 0 ? 0 : d.weight[row];
            units[v].w.bias_ih[g] = d.bias_ih ? d.bias_ih[row] : 0;
            units[v].w.bias_hh[g] = d.bias_hh ? d.bias_hh[row] : 0;
        }
    }
}
