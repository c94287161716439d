// Vectors of int32 sums over weight columns, and the byte products that feed them.
//
// Packed weights lie as [k / 4][16 columns][4 k]: 4 bytes of one column meet 4 activation bytes that are broadcast to
// all columns. All results are exact integers, so they are the same on every level.
#pragma once
#include "vec.h"

namespace llamakit::LEVEL {
namespace {

constexpr int kBlockColumnsPacked = 16;  // columns that are interleaved in memory

#if defined(__AVX512VNNI__)

constexpr int kIntLanes = 16;
using Ints = __m512i;
INLINE Ints ints(int32_t x) { return _mm512_set1_epi32(x); }
INLINE Ints load_ints(const void* p) { return _mm512_loadu_si512(p); }
INLINE void store_ints(void* p, Ints x) { _mm512_storeu_si512(p, x); }
INLINE Ints add(Ints a, Ints b) { return _mm512_add_epi32(a, b); }
INLINE Ints low_nibbles(Ints x) { return _mm512_and_si512(x, _mm512_set1_epi8(15)); }
INLINE Ints high_nibbles(Ints x) { return _mm512_and_si512(_mm512_srli_epi16(x, 4), _mm512_set1_epi8(15)); }
INLINE Ints dot_nibbles(Ints sum, Ints w, Ints x) { return _mm512_dpbusd_epi32(sum, w, x); }
// Weights carry an offset of 128; what that adds is taken off by starting from -128 * sum(x).
constexpr int32_t kWeightOffset = 128;
INLINE Ints dot_bytes(Ints sum, Ints w, Ints x) { return _mm512_dpbusd_epi32(sum, w, x); }
// sum + a * b for |a| < 2^15 and a byte b for each column.
INLINE Ints multiply_add(Ints sum, Ints a, const int8_t* b) {
    const Ints wide = _mm512_cvtepi8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(b)));
    return _mm512_dpwssd_epi32(sum, a, _mm512_and_si512(wide, _mm512_set1_epi32(0xffff)));
}

#elif defined(__AVX2__)

constexpr int kIntLanes = 8;
using Ints = __m256i;
INLINE Ints ints(int32_t x) { return _mm256_set1_epi32(x); }
INLINE Ints load_ints(const void* p) { return _mm256_loadu_si256(static_cast<const __m256i*>(p)); }
INLINE void store_ints(void* p, Ints x) { _mm256_storeu_si256(static_cast<__m256i*>(p), x); }
INLINE Ints add(Ints a, Ints b) { return _mm256_add_epi32(a, b); }
INLINE Ints low_nibbles(Ints x) { return _mm256_and_si256(x, _mm256_set1_epi8(15)); }
INLINE Ints high_nibbles(Ints x) { return _mm256_and_si256(_mm256_srli_epi16(x, 4), _mm256_set1_epi8(15)); }
#if defined(__AVXVNNI__)
constexpr int32_t kWeightOffset = 128;
INLINE Ints dot_nibbles(Ints sum, Ints w, Ints x) { return _mm256_dpbusd_avx_epi32(sum, w, x); }
INLINE Ints dot_bytes(Ints sum, Ints w, Ints x) { return _mm256_dpbusd_avx_epi32(sum, w, x); }
#else
// Pairs of products are added in 16 bits: 2 * 15 * 127 and 2 * 127 * 127 both fit.
INLINE Ints dot_nibbles(Ints sum, Ints w, Ints x) {
    return add(sum, _mm256_madd_epi16(_mm256_maddubs_epi16(w, x), _mm256_set1_epi16(1)));
}
constexpr int32_t kWeightOffset = 0;
INLINE Ints dot_bytes(Ints sum, Ints w, Ints x) {
    const Ints plain = _mm256_xor_si256(w, _mm256_set1_epi8(static_cast<char>(0x80)));
    const Ints pairs = _mm256_maddubs_epi16(_mm256_abs_epi8(x), _mm256_sign_epi8(plain, x));
    return add(sum, _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)));
}
#endif
INLINE Ints multiply_add(Ints sum, Ints a, const int8_t* b) {
    const Ints wide = _mm256_cvtepi8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(b)));
    return add(sum, _mm256_mullo_epi32(a, wide));
}

#else  // Any processor.

constexpr int kIntLanes = 4;
typedef int32_t Ints __attribute__((vector_size(16)));
typedef uint8_t Bytes __attribute__((vector_size(16)));
INLINE Ints ints(int32_t x) { return Ints{x, x, x, x}; }
INLINE Ints load_ints(const void* p) {
    Ints x;
    memcpy(&x, p, sizeof x);
    return x;
}
INLINE void store_ints(void* p, Ints x) { memcpy(p, &x, sizeof x); }
INLINE Ints add(Ints a, Ints b) { return a + b; }
INLINE Ints low_nibbles(Ints x) { return (Ints)((Bytes)x & 15); }
INLINE Ints high_nibbles(Ints x) { return (Ints)((Bytes)x >> 4); }
constexpr int32_t kWeightOffset = 0;
#if defined(__ARM_FEATURE_DOTPROD)
INLINE Ints dot_nibbles(Ints sum, Ints w, Ints x) { return (Ints)vdotq_s32((int32x4_t)sum, (int8x16_t)w, (int8x16_t)x); }
INLINE Ints dot_bytes(Ints sum, Ints w, Ints x) { return dot_nibbles(sum, (Ints)((Bytes)w ^ 0x80), x); }
#else
// Byte j of every lane, with its sign.
template <int kByte>
INLINE Ints signed_byte(Ints x) {
    return (x << (24 - 8 * kByte)) >> 24;
}
INLINE Ints dot_nibbles(Ints sum, Ints w, Ints x) {
    return sum + signed_byte<0>(w) * signed_byte<0>(x) + signed_byte<1>(w) * signed_byte<1>(x) +
           signed_byte<2>(w) * signed_byte<2>(x) + signed_byte<3>(w) * signed_byte<3>(x);
}
INLINE Ints dot_bytes(Ints sum, Ints w, Ints x) { return dot_nibbles(sum, (Ints)((Bytes)w ^ 0x80), x); }
#endif
INLINE Ints multiply_add(Ints sum, Ints a, const int8_t* b) { return sum + a * Ints{b[0], b[1], b[2], b[3]}; }

#endif

// Sums of the two halves of 64 bytes.
INLINE void sum_bytes(const int8_t* p, int32_t* halves) {
#if defined(__AVX512VNNI__)
    const __m512i fours = _mm512_dpbusd_epi32(_mm512_setzero_si512(), _mm512_set1_epi8(1), _mm512_loadu_si512(p));
    const auto total = [](__m256i x) {
        const __m128i q = _mm_add_epi32(_mm256_castsi256_si128(x), _mm256_extracti128_si256(x, 1));
        const __m128i d = _mm_add_epi32(q, _mm_shuffle_epi32(q, 0x4e));
        return _mm_cvtsi128_si32(_mm_add_epi32(d, _mm_shuffle_epi32(d, 0xb1)));
    };
    halves[0] = total(_mm512_castsi512_si256(fours));
    halves[1] = total(_mm512_extracti64x4_epi64(fours, 1));
#else
    for (int h = 0; h < 2; ++h) {
        halves[h] = 0;
        for (int i = 0; i < 32; ++i) halves[h] += p[h * 32 + i];
    }
#endif
}

// The sum of pieces of 64 bytes.
class ByteTotal {
  public:
    INLINE void add(const int8_t* p) {
#if defined(__AVX512VNNI__)
        sums_ = _mm512_dpbusd_epi32(sums_, _mm512_set1_epi8(1), _mm512_loadu_si512(p));
#else
        int32_t halves[2];
        sum_bytes(p, halves);
        sum_ += halves[0] + halves[1];
#endif
    }
    INLINE int32_t get() const {
#if defined(__AVX512VNNI__)
        return _mm512_reduce_add_epi32(sums_);
#else
        return sum_;
#endif
    }

  private:
#if defined(__AVX512VNNI__)
    __m512i sums_ = _mm512_setzero_si512();
#else
    int32_t sum_ = 0;
#endif
};

INLINE Vec load_as_float(const int32_t* p) {
#if defined(__AVX512F__)
    return _mm512_cvtepi32_ps(_mm512_loadu_si512(p));
#elif defined(__AVX2__)
    return _mm256_cvtepi32_ps(load_ints(p));
#else
    return __builtin_convertvector(load_ints(p), Vec);
#endif
}

}  // namespace
}  // namespace llamakit::LEVEL
