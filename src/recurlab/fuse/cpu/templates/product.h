#pragma once
#include "matrices.h"
#include "tiles.h"

// The product of the transposed matrices, right by left, is the transpose of it.
static Product transposed(const Product &p) {
    return {p.out, p.right, p.left, nullptr, nullptr, nullptr, p.columns, p.terms, p.rows, p.out_row, p.right_column,
        p.right_term, p.left_term, p.left_row, p.add, p.threads};
}

// A panel is a tile's columns over all terms of a sum, packed in the order in which tiles read them. A band of rows goes
// through one panel after the other.
constexpr int PANEL = TILE == 24 ? 4 : 2;  // vectors of columns
constexpr int BAND = 96;                   // rows: of a whole number of tiles, whatever their size
constexpr long SUM = 512;                  // terms that are summed up before they are added to the rest

static INLINE bool copies_left(const Product &p) { return p.left_term != 1 || p.left_rows; }

struct Region {
    long from_row, until_row, from_column, until_column;
};

// Packs rows whose terms do not lie side by side, in tiles of M; missing ones are zero.
template <int M> static void pack_band(const Product &p, long row, int band, long from, long terms, real *out) {
    for (int m = 0; m < band; m += M, out += terms * M) {
        const int some = (int)least(M, band - m);
        const real *const at = p.left + (row + m) * p.left_row + from * p.left_term;
        // What a vector writes beyond a tile is written over next.
        for (long k = 0; k < terms; k++)
            for (int i = 0; i < M; i += W)
                store(out + k * M + i, load_some(at + k * p.left_term + i, some - i));
    }
}

// Gathers rows that lie here and there.
static void gather_band(const Product &p, long row, int band, long from, long terms, real *out) {
    for (int m = 0; m < band; m++, out += terms) {
        const real *const at = p.left + p.left_rows[row + m] * p.left_row + from;
        for (long k = 0; k < terms; k += W) store_some(out + k, load_some(at + k, terms - k), terms - k);
    }
}

static INLINE void give(real *to, vec v, long n, bool add) { store_some(to, add ? load_some(to, n) + v : v, n); }

// Multiplies a band of rows by a panel of C vectors; `copy` is the band where it had to be packed or gathered, or null.
// FLIPPED: the columns of the product are the rows of `out`.
template <int C, bool FLIPPED>
static void multiply_band(const Product &p, long row, int band, const real *copy, long column, const real *panel,
    long from, long terms) {
    constexpr int M = rows(C);
    vec acc[BAND + M][C];
    if (p.left_term == 1) {
        const real *const at = copy ? copy : p.left + row * p.left_row + from;
        multiply_all(acc, true, band, at, copy ? terms : p.left_row, panel, terms);
    } else
        for (long k = 0; k < terms; k += TERMS)
            for (int m = 0; m < band; m += M) {
                const real *const at = copy + m * terms + k * M, *const part = panel + k * C * W;
                if (k == 0) multiply<M, C, true>(acc + m, at, {1, M}, part, least(TERMS, terms));
                else multiply<M, C, false>(acc + m, at, {1, M}, part, least(TERMS, terms - k));
            }
    const bool add = p.add || from > 0;
    for (int m = 0; m < band; m += FLIPPED ? W : 1)
        for (int c = 0; c < C; c++) {
            const long at = column + c * W, here = FLIPPED || !p.out_rows ? row + m : p.out_rows[row + m];
            if constexpr (!FLIPPED) give(p.out + here * p.out_row + at, acc[m][c], p.columns - at, add);
            else {
                vec square[W] = {};
                for (int i = 0; i < W && m + i < band; i++) square[i] = acc[m + i][c];
                transpose(square);
                for (int i = 0; i < W && at + i < p.columns; i++)
                    give(p.out + (at + i) * p.out_row + here, square[i], band - m, add);
            }
        }
}

// Calls f(Count<C>) for a panel of C vectors.
template <int C = PANEL, class F> static INLINE void with_vectors(int wide, const F &f) {
    if constexpr (C > 1)
        if (wide < C) return with_vectors<C - 1>(wide, f);
    f(Count<C>{});
}

template <bool FLIPPED>
static void multiply_region(const Product &p, const Region &r, real *left, real *panels) {
    const bool side_by_side = p.left_term == 1, copied = copies_left(p);
    for (long from = 0; from < p.terms; from += SUM) {
        const long terms = least(SUM, p.terms - from);
        const auto each_panel = [&](const auto &f) {
            for (long j = r.from_column; j < r.until_column; j += PANEL * W)
                f(j, (int)least(PANEL, (r.until_column - j + W - 1) / W), panels + (j - r.from_column) * terms);
        };
        each_panel([&](long j, int wide, real *panel) {
            const long *const which = p.right_rows ? p.right_rows + from : nullptr;
            const real *const at = p.right + j * p.right_column + (which ? 0 : from * p.right_term);
            pack(at, {p.right_column, p.right_term}, p.columns - j, wide, terms, panel, wide * W, which);
        });
        for (long i = r.from_row; i < r.until_row; i += BAND) {
            const int band = (int)least(BAND, r.until_row - i);
            int packed = 0;  // in tiles of so many rows
            if (side_by_side && copied) gather_band(p, i, band, from, terms, left);
            each_panel([&](long j, int wide, const real *panel) {
                with_vectors(wide, [&](auto count) {
                    constexpr int C = decltype(count)::value, M = rows(C);
                    if (!side_by_side && packed != M) pack_band<M>(p, i, band, from, terms, left), packed = M;
                    multiply_band<C, FLIPPED>(p, i, band, copied ? left : nullptr, j, panel, from, terms);
                });
            });
        }
    }
}

// A product of fewer terms in all is done before another thread has begun; to write a number costs as much as WRITTEN
// terms.
constexpr long ALONE = 1 << 17, WRITTEN = 6;

// What is packed is divided among the threads: columns, or rows if they are packed too and are more; the other where
// there are threads left.
template <bool FLIPPED> static void divide(const Product &p) {
    const long threads = p.rows * p.columns * (p.terms + WRITTEN) < ALONE ? 1 : p.threads;
    const long vectors = (p.columns + W - 1) / W, bands = (p.rows + 7) / 8;
    const auto rest = [&](long parts, long most) { return least((threads + parts - 1) / parts, most); };
    const bool by_rows = copies_left(p) && p.rows > p.columns;
    const long first = least(threads, by_rows ? bands : vectors);
    const long across = by_rows ? rest(first, vectors) : first, down = by_rows ? first : rest(first, bands);
    const long wide = (vectors + across - 1) / across * W, high = (bands + down - 1) / down * 8;
    const long left = (copies_left(p) ? BAND + 8 : 0) * least(SUM, p.terms) + W;
    const long size = left + least(SUM, p.terms) * wide;
    const Block memory(across * down * size);
    parallel(across * down, (int)threads, [&](long i) {
        const long row = i / across * high, column = i % across * wide;
        const Region r = {row, least(row + high, p.rows), column, least(column + wide, p.columns)};
        real *const at = memory.at + i * size;
        if (r.from_row < r.until_row && r.from_column < r.until_column) multiply_region<FLIPPED>(p, r, at, at + left);
    });
}

// Where both matrices are to be packed, the one with more rows or columns makes the panels, which costs less; but what
// the tiles give is then turned, which pays where they add up many terms.
static void run_product(const Product &p) {
    if (p.terms <= 0 && !p.add)  // a sum of nothing
        for (long i = 0; i < p.rows; i++)
            __builtin_memset(p.out + (p.out_rows ? p.out_rows[i] : i) * p.out_row, 0, p.columns * sizeof(real));
    if (p.terms <= 0 || p.rows <= 0 || p.columns <= 0) return;
    if (p.left_term != 1 && p.rows > p.columns && p.terms > 64 && !p.right_rows && !p.out_rows)
        divide<true>(transposed(p));
    else divide<false>(p);
}
