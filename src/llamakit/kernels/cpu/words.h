// Products of small matrices of 4-byte words, C[r][.] = sum_s A[r][s] * B[s][.]: what attention is made of.
//
// A word is a float32, or a pair of bf16 where the machine multiplies those. Each value of C is one chain over s, so
// it has the same bits whatever rows stand beside it; words of zero at the end change nothing.
#pragma once
#include "dense.h"
#if defined(__AMX_BF16__)
#include "tiles.h"
#endif

namespace llamakit::LEVEL {
namespace {

// How one word of A meets a vector of words of B.
struct WideWords {
    static constexpr int kPerWord = 1;
    // A and B end in zeros up to a multiple of this many words.
    static constexpr int kSteps = 1;
    static constexpr bool kTiles = false;
    template <class T>
    static INLINE Vec words(const T* p) { return load(p); }
    static INLINE Vec weight(Vec x) { return exp2_fine(x); }
    static INLINE Vec add(Vec sum, float a, Vec b) { return fma(set1(a), b, sum); }
    static INLINE void put_weights(float* to, Vec weights) { store(to, weights); }
};

#if defined(__AVX512BF16__)
struct PairWords {
    static constexpr int kPerWord = 2;
#if defined(__AMX_BF16__)
    static constexpr int kSteps = 16;
    static constexpr bool kTiles = true;
#else
    static constexpr int kSteps = 1;
    static constexpr bool kTiles = false;
#endif
    static INLINE Vec words(const bf16* p) { return load(reinterpret_cast<const float*>(p)); }
    // Integers of a byte are bf16 numbers.
    static INLINE Vec words(const int8_t* p) {
        return from_bits((__m512i)_mm512_cvtne2ps_pbh(load(p + 16), load(p)));
    }
    static INLINE Vec weight(Vec x) { return exp2_rough(x); }
    static INLINE Vec add(Vec sum, float a, Vec b) {
        uint32_t word;
        memcpy(&word, &a, sizeof word);
        return _mm512_dpbf16_ps(sum, (__m512bh)_mm512_set1_epi32(static_cast<int>(word)), (__m512bh)bits(b));
    }
    static INLINE void put_weights(float* to, Vec weights) {
        _mm256_storeu_si256(reinterpret_cast<__m256i*>(to), (__m256i)_mm512_cvtneps_pbh(weights));
    }
    // Word i of 16 holds value i of both.
    static INLINE Vec pair(const bf16* first, const bf16* second) {
        const __m256i low = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(first));
        const __m256i high = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(second));
        return interleave(_mm512_inserti64x4(_mm512_castsi256_si512(low), high, 1));
    }
    static INLINE Vec pair(const int8_t* first, const int8_t* second) { return join(load(first), load(second)); }
    // The same of floats, which are rounded.
    static INLINE Vec join(Vec first, Vec second) { return interleave((__m512i)_mm512_cvtne2ps_pbh(second, first)); }

  private:
    static INLINE Vec interleave(__m512i halves) {
        const __m512i order = _mm512_add_epi32(
            _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15), _mm512_set1_epi32(16 << 16));
        const __m512i both = _mm512_or_si512(order, _mm512_slli_epi32(order, 16));
        return from_bits(_mm512_permutexvar_epi16(both, halves));
    }
};
#endif

template <class Mode, int kRows, int kVectors>
INLINE void product_block(const float* a, int64_t a_stride, const float* b, int64_t b_stride, float* c,
                          int64_t c_stride, int64_t steps) {
    Vec sums[kRows][kVectors];
    for (auto& row : sums)
        for (Vec& s : row) s = zero();
    for (int64_t s = 0; s < steps; ++s) {
        Vec right[kVectors];
        for (int j = 0; j < kVectors; ++j) right[j] = load(b + s * b_stride + j * kLanes);
        for (int i = 0; i < kRows; ++i)
            for (int j = 0; j < kVectors; ++j) sums[i][j] = Mode::add(sums[i][j], a[i * a_stride + s], right[j]);
    }
    for (int i = 0; i < kRows; ++i)
        for (int j = 0; j < kVectors; ++j) store(c + i * c_stride + j * kLanes, sums[i][j]);
}

template <class Mode, int kVectors>
INLINE void product_rows(const float* a, int64_t a_stride, const float* b, int64_t b_stride, float* c,
                         int64_t c_stride, int64_t rows, int64_t steps) {
    int64_t i = 0;
    for (; i + 4 <= rows; i += 4)
        product_block<Mode, 4, kVectors>(a + i * a_stride, a_stride, b, b_stride, c + i * c_stride, c_stride, steps);
    for (; i < rows; ++i)
        product_block<Mode, 1, kVectors>(a + i * a_stride, a_stride, b, b_stride, c + i * c_stride, c_stride, steps);
}

#if defined(__AMX_BF16__)
// The same on tiles, 32 rows by 32 columns at a time. Needs `Tiles` of min(rows, 16) rows.
INLINE void product_tiles(const float* a, int64_t a_stride, const float* b, int64_t b_stride, float* c,
                          int64_t c_stride, int64_t rows, int64_t steps, int64_t vectors) {
    for (int64_t r = 0; r < rows; r += 32) {
        const int64_t lower = r + 16 < rows ? 16 : 0;  // a missing half repeats the first
        for (int64_t v = 0; v < vectors; v += 2) {
            const int64_t right = v + 1 < vectors ? 16 : 0;
            zero_sums();
            for (int64_t s = 0; s < steps; s += 16) {
                _tile_loadd(4, a + r * a_stride + s, a_stride * 4);
                _tile_loadd(6, b + s * b_stride + v * 16, b_stride * 4);
                _tile_dpbf16ps(0, 4, 6);
                _tile_loadd(7, b + s * b_stride + v * 16 + right, b_stride * 4);
                _tile_dpbf16ps(1, 4, 7);
                if (!lower) continue;
                _tile_loadd(5, a + (r + lower) * a_stride + s, a_stride * 4);
                _tile_dpbf16ps(2, 5, 6);
                _tile_dpbf16ps(3, 5, 7);
            }
            float* to = c + r * c_stride + v * 16;
            _tile_stored(0, to, c_stride * 4);
            if (right) _tile_stored(1, to + right, c_stride * 4);
            if (lower) _tile_stored(2, to + lower * c_stride, c_stride * 4);
            if (lower && right) _tile_stored(3, to + lower * c_stride + right, c_stride * 4);
        }
    }
}
#endif

// C[rows][vectors * kLanes] = A[rows][steps] * B[steps][vectors * kLanes]; strides in words.
template <class Mode>
void product(const float* a, int64_t a_stride, const float* b, int64_t b_stride, float* c, int64_t c_stride,
             int64_t rows, int64_t steps, int64_t vectors) {
#if defined(__AMX_BF16__)
    if constexpr (Mode::kSteps == 16)
        return product_tiles(a, a_stride, b, b_stride, c, c_stride, rows, round_up(steps, 16), vectors);
#endif
    constexpr int kWide = kManyRegisters ? 4 : 2;
    int64_t v = 0;
    for (; v + kWide <= vectors; v += kWide)
        product_rows<Mode, kWide>(a, a_stride, b + v * kLanes, b_stride, c + v * kLanes, c_stride, rows, steps);
    for (; v < vectors; ++v)
        product_rows<Mode, 1>(a, a_stride, b + v * kLanes, b_stride, c + v * kLanes, c_stride, rows, steps);
}

}  // namespace
}  // namespace llamakit::LEVEL
