// Products with plain row-major weights: out[m][n] = sum_k x[m][k] * w[n][k].
//
// Lanes run along k and every output has exactly one accumulator: lane l adds k = l, l + step, l + 2 step, ... in
// order, then the lanes are folded in a fixed tree. Blocks of several rows and columns only share loads. So an
// output has the same bits in any block shape, and the weights are used as they lie in the checkpoint.
#pragma once
#include "level.h"
#include "pool.h"
#include "vec.h"

namespace llamakit::LEVEL {
namespace {

// How operands of type T are loaded and multiplied: kStep values at a time.
template <class T>
struct Dot {
    static constexpr int kStep = kLanes;
    using Operand = Vec;
    static INLINE Operand get(const T* p) { return load(p); }
    static INLINE Operand get_part(const T* p, int64_t n) { return load_part(p, n); }
    static INLINE Vec add(Vec sum, Operand a, Operand b) { return fma(a, b, sum); }
};

#if defined(__AVX512BF16__)
template <>
struct Dot<bf16> {
    static constexpr int kStep = 32;
    using Operand = __m512bh;
    static INLINE Operand get(const bf16* p) { return (__m512bh)_mm512_loadu_si512(p); }
    static INLINE Operand get_part(const bf16* p, int64_t n) {
        return (__m512bh)_mm512_maskz_loadu_epi16((__mmask32)((uint64_t{1} << n) - 1), p);
    }
    static INLINE Vec add(Vec sum, Operand a, Operand b) { return _mm512_dpbf16_ps(sum, a, b); }
};
constexpr bool kNativeBf16 = true;
#else
constexpr bool kNativeBf16 = false;
#endif

template <int kRows, int kColumns, class X, class W>
INLINE void dense_block(const X* x, int64_t x_stride, const W* w, int64_t w_stride, int64_t depth,
                        float (&out)[kRows][kColumns]) {
    static_assert(Dot<X>::kStep == Dot<W>::kStep);
    constexpr int kStep = Dot<W>::kStep;
    Vec sums[kRows][kColumns];
    for (auto& row : sums)
        for (Vec& s : row) s = zero();
    int64_t k = 0;
    for (; k + kStep <= depth; k += kStep) {
        typename Dot<X>::Operand a[kRows];
        for (int i = 0; i < kRows; ++i) a[i] = Dot<X>::get(x + i * x_stride + k);
        for (int j = 0; j < kColumns; ++j) {
            const auto b = Dot<W>::get(w + j * w_stride + k);
            for (int i = 0; i < kRows; ++i) sums[i][j] = Dot<W>::add(sums[i][j], a[i], b);
        }
    }
    if (k < depth) {
        typename Dot<X>::Operand a[kRows];
        for (int i = 0; i < kRows; ++i) a[i] = Dot<X>::get_part(x + i * x_stride + k, depth - k);
        for (int j = 0; j < kColumns; ++j) {
            const auto b = Dot<W>::get_part(w + j * w_stride + k, depth - k);
            for (int i = 0; i < kRows; ++i) sums[i][j] = Dot<W>::add(sums[i][j], a[i], b);
        }
    }
    for (int i = 0; i < kRows; ++i)
        for (int j = 0; j < kColumns; ++j) out[i][j] = sum(sums[i][j]);
}

// Registers: sums + one operand a row + one weight must fit (32 with AVX-512 and NEON, 16 else).
constexpr bool kManyRegisters = kLanes == 16;
constexpr int kBlockRows = kManyRegisters ? 4 : 3;
constexpr int kBlockColumns = kManyRegisters ? 6 : 4;
// A single row needs as many columns as hide the latency of one addition.
constexpr int kOneRowColumns = 8;

template <int kRows, int kColumns, class X, class W, class Out>
INLINE void dense_columns(const X* x, int64_t x_stride, const W* w, int64_t w_stride, Out* out, int64_t out_stride,
                          int64_t columns, int64_t depth) {
    int64_t n = 0;
    for (; n + kColumns <= columns; n += kColumns) {
        float sums[kRows][kColumns];
        dense_block<kRows, kColumns>(x, x_stride, w + n * w_stride, w_stride, depth, sums);
        for (int i = 0; i < kRows; ++i)
            for (int j = 0; j < kColumns; ++j) put(out + i * out_stride + n + j, sums[i][j]);
    }
    for (; n < columns; ++n) {
        float sums[kRows][1];
        dense_block<kRows, 1>(x, x_stride, w + n * w_stride, w_stride, depth, sums);
        for (int i = 0; i < kRows; ++i) put(out + i * out_stride + n, sums[i][0]);
    }
}

// A few columns of the weight against all rows of x.
template <class X, class W, class Out>
void dense_strip(const X* x, int64_t x_stride, const W* w, int64_t w_stride, Out* out, int64_t out_stride,
                 int64_t rows, int64_t columns, int64_t depth) {
    if (rows == 1)
        return dense_columns<1, kOneRowColumns>(x, x_stride, w, w_stride, out, out_stride, columns, depth);
    int64_t m = 0;
    for (; m + kBlockRows <= rows; m += kBlockRows)
        dense_columns<kBlockRows, kBlockColumns>(x + m * x_stride, x_stride, w, w_stride, out + m * out_stride,
                                                 out_stride, columns, depth);
    x += m * x_stride;
    out += m * out_stride;
    switch (rows - m) {
        case 3: return dense_columns<3, kBlockColumns>(x, x_stride, w, w_stride, out, out_stride, columns, depth);
        case 2: return dense_columns<2, kBlockColumns>(x, x_stride, w, w_stride, out, out_stride, columns, depth);
        case 1: return dense_columns<1, kBlockColumns>(x, x_stride, w, w_stride, out, out_stride, columns, depth);
    }
}

inline void widen_rows(const bf16* from, int64_t from_stride, float* to, int64_t rows, int64_t depth) {
    for (int64_t r = 0; r < rows; ++r, from += from_stride, to += depth) {
        int64_t k = 0;
        for (; k + kLanes <= depth; k += kLanes) store(to + k, load(from + k));
        for (; k < depth; ++k) to[k] = widen(from[k]);
    }
}

// Products with row-major weights for one patch of the result. Many rows of bf16 on a level that multiplies float32
// widen their part of the weight once; widening is exact, so it changes no bits.
template <class X, class W, class Out>
void dense_patch(const X* x, int64_t x_stride, const W* w, int64_t w_stride, Out* out, int64_t out_stride, int64_t rows,
                 int64_t columns, int64_t depth) {
    if constexpr (sizeof(W) == 2 && sizeof(X) == 4) {
        if (rows > kBlockRows * 2) {
            float* wide = static_cast<float*>(scratch(kPerProduct, columns * depth * sizeof(float)));
            widen_rows(w, w_stride, wide, columns, depth);
            return dense_strip(x, x_stride, wide, depth, out, out_stride, rows, columns, depth);
        }
    }
    dense_strip(x, x_stride, w, w_stride, out, out_stride, rows, columns, depth);
}

// A patch's part of the weight stays in the second-level cache while its rows of x, this many bytes, come from the third.
constexpr int64_t kPanelBytes = 4 << 20;
// Columns of a patch: a multiple of all block widths above. Few rows mean little work a column: then more of them.
constexpr int64_t kStripColumns = 24, kWideStripColumns = 96;

}  // namespace
}  // namespace llamakit::LEVEL
