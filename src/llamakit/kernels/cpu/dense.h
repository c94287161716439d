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

// A strip of the weight stays in the second-level cache while the rows of x pass by; this many bytes of x at a time
// come from the third.
constexpr int64_t kPanelBytes = 4 << 20;
// Columns a thread takes at a time. A multiple of all block widths above.
constexpr int64_t kStripColumns = 24;

template <class X, class W, class Out>
void dense_all(const X* x, int64_t x_stride, const LinearArgs& a, int threads, bool widen_weight) {
    const W* weight = static_cast<const W*>(a.weight);
    Out* out = static_cast<Out*>(a.out);
    int64_t panel = kPanelBytes / (a.depth * static_cast<int64_t>(sizeof(X)) + 1);
    panel = panel < kBlockRows * 4 ? kBlockRows * 4 : panel / kBlockRows * kBlockRows;
    const int64_t panels = ceil_div(a.rows, panel);
    // Few rows mean little work a column: take more columns at a time.
    const int64_t width = a.rows <= 4 ? kStripColumns * 4 : kStripColumns;
    const int64_t strips = ceil_div(a.columns, width);
    for_each(threads, panels * strips, [&](int64_t task) {
        const int64_t m = task / strips * panel, n = task % strips * width;
        const int64_t rows = a.rows - m < panel ? a.rows - m : panel;
        const int64_t columns = a.columns - n < width ? a.columns - n : width;
        const W* w = weight + n * a.weight_stride;
        const X* first = x + m * x_stride;
        Out* to = out + m * a.out_stride + n;
        if constexpr (Dot<W>::kStep == kLanes && sizeof(W) == 2) {
            if (widen_weight) {
                float* wide = static_cast<float*>(scratch(kPerTask, columns * a.depth * sizeof(float)));
                widen_rows(w, a.weight_stride, wide, columns, a.depth);
                return dense_strip(first, x_stride, wide, a.depth, to, a.out_stride, rows, columns, a.depth);
            }
        }
        dense_strip(first, x_stride, w, a.weight_stride, to, a.out_stride, rows, columns, a.depth);
    });
}

void dense(Dtype dtype, const LinearArgs& a, int threads) {
    if (dtype == kF32) {
        return dense_all<float, float, float>(static_cast<const float*>(a.x), a.x_stride, a, threads, false);
    }
    const bf16* x = static_cast<const bf16*>(a.x);
    if constexpr (kNativeBf16) {
        dense_all<bf16, bf16, bf16>(x, a.x_stride, a, threads, false);
    } else {
        // Widening is exact, so where it happens changes no bits: x once, the weight where several rows share it.
        float* wide = static_cast<float*>(scratch(kShared, a.rows * a.depth * sizeof(float)));
        const int64_t group = 16;
        for_each(a.rows > group ? threads : 1, ceil_div(a.rows, group), [&](int64_t i) {
            const int64_t rows = a.rows - i * group < group ? a.rows - i * group : group;
            widen_rows(x + i * group * a.x_stride, a.x_stride, wide + i * group * a.depth, rows, a.depth);
        });
        dense_all<float, bf16, bf16>(wide, a.depth, a, threads, a.rows > kBlockRows * 2);
    }
}

}  // namespace
}  // namespace llamakit::LEVEL
