// Weights whose groups of 32 have scales of their own, as GGUF files and Meta's quantized checkpoints store them.
//
// A table of two kernels for each instruction-set level, filled by grouped.cpp; beside level.h, whose weights have one
// scale a row.
#pragma once
#include "types.h"

namespace llamakit {

// A weight [columns n][depth k]: scale[n][k / 32] * code - minimum[n][k / 32]. Codes lie as kernels/grouped.py says.
struct GroupedMatrix {
    const uint8_t* codes;
    const uint16_t* scales;  // IEEE halves [n / 16][k / 32][16]
    const uint16_t* minima;  // the same; null for none
    int64_t columns, depth;
    int64_t rotation;  // block of the Hadamard rotation activations go through first; 0 for none
    int bits;          // 4 or 8
};

struct GroupedLevel {
    const char* name;
    bool (*supported)();
    // out[rows][columns] = x[rows][depth] * weight^T with x rounded to bytes, group by group.
    void (*linear)(Dtype dtype, const void* x, const GroupedMatrix& weight, void* out, int64_t rows, int threads);
    // Rows of the matrix as the floats they stand for; of a rotated one, as they are stored.
    void (*rows)(Dtype dtype, const GroupedMatrix& weight, const int64_t* rows, int64_t count, void* out, int threads);
};

}  // namespace llamakit
