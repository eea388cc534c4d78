#pragma once
// An example for editors: this header is generated for each kernel. See tests/fuse/editor_headers.py.
typedef float real, Store;  // of numbers, and of sequences in memory
#define REAL_IS_FLOAT 1
#define INLINE inline __attribute__((always_inline))
static constexpr int SAMPLES = 8, BLOCKS = 8, GROUP = 64, PART = 4;
static constexpr bool DIAGONAL = false;  // the recurrence
// What layer normalisation takes together, if there is any.
static constexpr bool CENTERED = true, BY_GATE = false, INPUT_ALONE = false;
