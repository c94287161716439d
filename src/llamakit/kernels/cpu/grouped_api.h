/* The C border of the kernels for weights with scales of their own for every 32 values; see api.h for the rules. */
#pragma once
#include "api.h"

/* kernels/grouped.py describes the tensors; `minima` is null for none. `depth` is a multiple of 32. */
struct lk_grouped {
    const uint8_t* codes;
    const uint16_t* scales;
    const uint16_t* minima;
    int64_t columns, depth, rotation;
    int bits;
};
/* The number of a level that this build and this processor share, for `level` below; -1 for any other name. */
LK_API int lk_grouped_level(const char* name);
/* out[rows][columns] = x[rows][depth] * weight^T */
LK_API void lk_grouped_linear(int level, int dtype, const void* x, const struct lk_grouped* weight, void* out,
                              int64_t rows, int threads);
/* LK_BAD_ROW unless 0 <= rows[i] < columns. */
LK_API int lk_grouped_rows(int level, int dtype, const struct lk_grouped* weight, const int64_t* rows, int64_t count,
                           void* out, int threads);
