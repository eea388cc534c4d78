#pragma once
// An example for editors: this header is generated for each kernel. See tests/fuse/editor_headers.py.
#define STORAGE 1
#define NOISY 1
#define THREADS 256
#define VECTOR 2
#define AHEAD 4
#define HIDDEN 64
#define WIDTH 64
#define TEAM 2
#define UNITS 32
#define SAMPLES 16
#define CHUNK 8
#define WARPS_M 2
#define HELD 1
#define PRODUCT 0
#define CLUSTERED 1
#define DIAGONAL 0
#define OF_UNIT 1
#define CENTERED 1
#define BY_GATE 0
#define INPUT_ALONE 0
// The values of STORAGE and of PRODUCT.
enum Storage { FLOAT32 = 0, BFLOAT16 = 1, FLOAT16 = 2 };
enum Multiplication { STORED = 0, TF32 = 1, SPLIT = 2 };
