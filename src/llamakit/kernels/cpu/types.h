// The element types the kernels read and write, and the codes they have at the C border.
#pragma once
#include <stddef.h>
#include <stdint.h>

namespace llamakit {

// A brain float: the upper half of a float32.
struct bf16 {
    uint16_t bits;
};

enum Dtype : int { kF32 = 0, kBF16 = 1 };

// `static`: every level compiles its own, see level.cpp.
static inline constexpr int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }
static inline constexpr int64_t round_up(int64_t a, int64_t b) { return ceil_div(a, b) * b; }

}  // namespace llamakit
