#pragma once
#include "constants.h"

// The product of two matrices. Each number of it is the same sum in the same order, whatever the number of threads and
// however the matrices lie in memory.
struct Product {
    real *out;  // rows by columns; a row's numbers lie side by side
    const real *left, *right;
    // Null, or which rows of what lies there `out` and `left` have, and `right`, whose rows are the terms.
    const long *out_rows, *left_rows, *right_rows;
    long rows, terms, columns;
    long out_row, left_row, left_term, right_term, right_column;  // strides, of each pair one is 1
    int add;                                                      // whether the product is added to what is in `out`
    int threads;
};

typedef void Multiply(const Product *);
