// One vector of float32 of the level being compiled, and the few operations the kernels need.
//
// Included once per level, with that level's instruction set enabled and LEVEL naming its namespace. Everything is
// local to the including file: code built for one instruction set must never be merged with that of another.
// Each operation has one fixed order of additions, so equal inputs give equal bits wherever they lie in a batch.
#pragma once
#include <stdint.h>
#include <string.h>

#if defined(__x86_64__)
#include <immintrin.h>
#elif defined(__aarch64__)
#include <arm_neon.h>
#endif

#include "types.h"

namespace llamakit::LEVEL {
namespace {

#define INLINE inline __attribute__((always_inline))
// Before a loop over registers: an array stays in memory when the compiler leaves its loop as it is.
#if defined(__clang__)
#define UNROLL _Pragma("unroll")
#else
#define UNROLL _Pragma("GCC unroll 16")
#endif

INLINE float widen(float x) { return x; }
INLINE float widen(bf16 x) {
    const uint32_t bits = static_cast<uint32_t>(x.bits) << 16;
    float wide;
    memcpy(&wide, &bits, sizeof wide);
    return wide;
}

// Rounds to nearest, ties to even; NaN stays NaN.
INLINE bf16 narrow_bf16(float x) {
    uint32_t bits;
    memcpy(&bits, &x, sizeof bits);
    if ((bits & 0x7fffffffu) > 0x7f800000u) return {static_cast<uint16_t>((bits >> 16) | 0x40u)};
    return {static_cast<uint16_t>((bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16)};
}
INLINE void put(float* p, float x) { *p = x; }
INLINE void put(bf16* p, float x) { *p = narrow_bf16(x); }

#if defined(__AVX512F__)

constexpr int kLanes = 16;
using Vec = __m512;
using Words = __m512i;

INLINE Vec set1(float x) { return _mm512_set1_ps(x); }
INLINE Vec zero() { return _mm512_setzero_ps(); }
INLINE Vec load(const float* p) { return _mm512_loadu_ps(p); }
INLINE void store(float* p, Vec x) { _mm512_storeu_ps(p, x); }
INLINE Vec load(const bf16* p) {
    const __m256i half = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p));
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(half), 16));
}
INLINE Vec load(const int8_t* p) {
    return _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p))));
}
INLINE Vec fma(Vec a, Vec b, Vec c) { return _mm512_fmadd_ps(a, b, c); }
INLINE Vec add(Vec a, Vec b) { return _mm512_add_ps(a, b); }
INLINE Vec sub(Vec a, Vec b) { return _mm512_sub_ps(a, b); }
INLINE Vec mul(Vec a, Vec b) { return _mm512_mul_ps(a, b); }
INLINE Vec div(Vec a, Vec b) { return _mm512_div_ps(a, b); }
// 1 / x for normal x, to about an ulp: division takes several times as long.
INLINE Vec reciprocal(Vec x) {
    const Vec r = _mm512_rcp14_ps(x);
    return mul(r, _mm512_fnmadd_ps(x, r, set1(2.0f)));
}
// Where one side is NaN the result is `b`.
INLINE Vec max(Vec a, Vec b) { return _mm512_max_ps(a, b); }
INLINE Vec min(Vec a, Vec b) { return _mm512_min_ps(a, b); }
INLINE Vec abs(Vec a) { return _mm512_abs_ps(a); }
INLINE Vec round(Vec a) { return _mm512_roundscale_ps(a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC); }
// 2^n for integral n in [-126, 127].
INLINE Vec exp2_int(Vec n) {
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_add_epi32(_mm512_cvtps_epi32(n), _mm512_set1_epi32(127)), 23));
}
// x * 2^n, where the low bits of `n` hold a whole number and x * 2^n is normal.
INLINE Vec shift_exponent(Vec x, Vec n) {
    return _mm512_castsi512_ps(_mm512_add_epi32(_mm512_castps_si512(x), _mm512_slli_epi32(_mm512_castps_si512(n), 23)));
}
// x where x_key >= bound, else 0.
INLINE Vec keep_if_at_least(Vec x, Vec key, Vec bound) {
    return _mm512_maskz_mov_ps(_mm512_cmp_ps_mask(key, bound, _CMP_NLT_UQ), x);
}
INLINE float sum(Vec x) {
    const __m256 h = _mm256_add_ps(_mm512_castps512_ps256(x), _mm512_extractf32x8_ps(x, 1));
    __m128 q = _mm_add_ps(_mm256_castps256_ps128(h), _mm256_extractf128_ps(h, 1));
    q = _mm_add_ps(q, _mm_movehl_ps(q, q));
    return _mm_cvtss_f32(_mm_add_ss(q, _mm_shuffle_ps(q, q, 1)));
}
INLINE float highest(Vec x) {
    const __m256 h = _mm256_max_ps(_mm512_castps512_ps256(x), _mm512_extractf32x8_ps(x, 1));
    __m128 q = _mm_max_ps(_mm256_castps256_ps128(h), _mm256_extractf128_ps(h, 1));
    q = _mm_max_ps(q, _mm_movehl_ps(q, q));
    return _mm_cvtss_f32(_mm_max_ss(q, _mm_shuffle_ps(q, q, 1)));
}
INLINE Words bits(Vec x) { return _mm512_castps_si512(x); }
INLINE Vec from_bits(Words x) { return _mm512_castsi512_ps(x); }
// The bf16 bits of each lane, in its lower half.
INLINE Words rounded_bf16(Vec x) {
    const Words raw = bits(x);
    const Words odd = _mm512_and_si512(_mm512_srli_epi32(raw, 16), _mm512_set1_epi32(1));
    const Words even = _mm512_srli_epi32(_mm512_add_epi32(_mm512_add_epi32(raw, _mm512_set1_epi32(0x7fff)), odd), 16);
    const Words nan = _mm512_or_si512(_mm512_srli_epi32(raw, 16), _mm512_set1_epi32(0x40));
    return _mm512_mask_mov_epi32(even, _mm512_cmp_ps_mask(x, x, _CMP_UNORD_Q), nan);
}
INLINE void store(bf16* p, Vec x) {
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), _mm512_cvtepi32_epi16(rounded_bf16(x)));
}
INLINE Vec rounded_to_bf16(Vec x) { return from_bits(_mm512_slli_epi32(rounded_bf16(x), 16)); }
// The larger magnitude of each lane by the order of the bits, in which NaN is above infinity.
INLINE Vec max_magnitude(Vec a, Vec b) { return from_bits(_mm512_max_epi32(bits(a), bits(abs(b)))); }

// Lane i meets lane i ^ distance (a power of two below kLanes): their sum in the lower, their difference in the upper.
template <int kDistance>
INLINE Vec butterfly(Vec x) {
    Vec other;
    if constexpr (kDistance == 1) other = _mm512_permute_ps(x, 0xb1);
    else if constexpr (kDistance == 2) other = _mm512_permute_ps(x, 0x4e);
    else if constexpr (kDistance == 4) other = _mm512_shuffle_f32x4(x, x, 0xb1);
    else other = _mm512_shuffle_f32x4(x, x, 0x4e);
    constexpr __mmask16 kUpper = kDistance == 1 ? 0xaaaa : kDistance == 2 ? 0xcccc : kDistance == 4 ? 0xf0f0 : 0xff00;
    // Times 1 or -1: the rounding is that of an addition.
    return _mm512_fmadd_ps(x, _mm512_mask_mov_ps(set1(1.0f), kUpper, set1(-1.0f)), other);
}

INLINE void transpose(Vec (&r)[16]) {
    Vec t[16];
    for (int i = 0; i < 16; i += 2) {
        t[i] = _mm512_unpacklo_ps(r[i], r[i + 1]);
        t[i + 1] = _mm512_unpackhi_ps(r[i], r[i + 1]);
    }
    for (int i = 0; i < 16; i += 4) {
        r[i] = _mm512_castpd_ps(_mm512_unpacklo_pd(_mm512_castps_pd(t[i]), _mm512_castps_pd(t[i + 2])));
        r[i + 1] = _mm512_castpd_ps(_mm512_unpackhi_pd(_mm512_castps_pd(t[i]), _mm512_castps_pd(t[i + 2])));
        r[i + 2] = _mm512_castpd_ps(_mm512_unpacklo_pd(_mm512_castps_pd(t[i + 1]), _mm512_castps_pd(t[i + 3])));
        r[i + 3] = _mm512_castpd_ps(_mm512_unpackhi_pd(_mm512_castps_pd(t[i + 1]), _mm512_castps_pd(t[i + 3])));
    }
    for (int i = 0; i < 4; ++i) {
        t[i] = _mm512_shuffle_f32x4(r[i], r[i + 4], 0x88);
        t[i + 4] = _mm512_shuffle_f32x4(r[i], r[i + 4], 0xdd);
        t[i + 8] = _mm512_shuffle_f32x4(r[i + 8], r[i + 12], 0x88);
        t[i + 12] = _mm512_shuffle_f32x4(r[i + 8], r[i + 12], 0xdd);
    }
    for (int i = 0; i < 4; ++i) {
        r[i] = _mm512_shuffle_f32x4(t[i], t[i + 8], 0x88);
        r[i + 8] = _mm512_shuffle_f32x4(t[i], t[i + 8], 0xdd);
        r[i + 4] = _mm512_shuffle_f32x4(t[i + 4], t[i + 12], 0x88);
        r[i + 12] = _mm512_shuffle_f32x4(t[i + 4], t[i + 12], 0xdd);
    }
}

#elif defined(__AVX2__)

constexpr int kLanes = 8;
using Vec = __m256;
using Words = __m256i;

INLINE Vec set1(float x) { return _mm256_set1_ps(x); }
INLINE Vec zero() { return _mm256_setzero_ps(); }
INLINE Vec load(const float* p) { return _mm256_loadu_ps(p); }
INLINE void store(float* p, Vec x) { _mm256_storeu_ps(p, x); }
INLINE Vec load(const bf16* p) {
    const __m128i half = _mm_loadu_si128(reinterpret_cast<const __m128i*>(p));
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(half), 16));
}
INLINE Vec load(const int8_t* p) {
    return _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(p))));
}
INLINE Vec fma(Vec a, Vec b, Vec c) { return _mm256_fmadd_ps(a, b, c); }
INLINE Vec add(Vec a, Vec b) { return _mm256_add_ps(a, b); }
INLINE Vec sub(Vec a, Vec b) { return _mm256_sub_ps(a, b); }
INLINE Vec mul(Vec a, Vec b) { return _mm256_mul_ps(a, b); }
INLINE Vec div(Vec a, Vec b) { return _mm256_div_ps(a, b); }
INLINE Vec reciprocal(Vec x) {
    Vec r = _mm256_rcp_ps(x);
    r = mul(r, _mm256_fnmadd_ps(x, r, set1(2.0f)));
    return mul(r, _mm256_fnmadd_ps(x, r, set1(2.0f)));
}
INLINE Vec max(Vec a, Vec b) { return _mm256_max_ps(a, b); }
INLINE Vec min(Vec a, Vec b) { return _mm256_min_ps(a, b); }
INLINE Vec abs(Vec a) { return _mm256_andnot_ps(_mm256_set1_ps(-0.0f), a); }
INLINE Vec round(Vec a) { return _mm256_round_ps(a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC); }
INLINE Vec exp2_int(Vec n) {
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_add_epi32(_mm256_cvtps_epi32(n), _mm256_set1_epi32(127)), 23));
}
INLINE Vec shift_exponent(Vec x, Vec n) {
    return _mm256_castsi256_ps(_mm256_add_epi32(_mm256_castps_si256(x), _mm256_slli_epi32(_mm256_castps_si256(n), 23)));
}
INLINE Vec keep_if_at_least(Vec x, Vec key, Vec bound) {
    return _mm256_and_ps(_mm256_cmp_ps(key, bound, _CMP_NLT_UQ), x);
}
INLINE float sum(Vec x) {
    __m128 q = _mm_add_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps(x, 1));
    q = _mm_add_ps(q, _mm_movehl_ps(q, q));
    return _mm_cvtss_f32(_mm_add_ss(q, _mm_shuffle_ps(q, q, 1)));
}
INLINE float highest(Vec x) {
    __m128 q = _mm_max_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps(x, 1));
    q = _mm_max_ps(q, _mm_movehl_ps(q, q));
    return _mm_cvtss_f32(_mm_max_ss(q, _mm_shuffle_ps(q, q, 1)));
}
INLINE Words bits(Vec x) { return _mm256_castps_si256(x); }
INLINE Vec from_bits(Words x) { return _mm256_castsi256_ps(x); }
INLINE void store(bf16* p, Vec x) {
    const Words raw = bits(x);
    const Words odd = _mm256_and_si256(_mm256_srli_epi32(raw, 16), _mm256_set1_epi32(1));
    const Words even = _mm256_srli_epi32(_mm256_add_epi32(_mm256_add_epi32(raw, _mm256_set1_epi32(0x7fff)), odd), 16);
    const Words nan = _mm256_or_si256(_mm256_srli_epi32(raw, 16), _mm256_set1_epi32(0x40));
    const Words is_nan = _mm256_castps_si256(_mm256_cmp_ps(x, x, _CMP_UNORD_Q));
    const Words half = _mm256_blendv_epi8(even, nan, is_nan);
    const __m128i packed = _mm_packus_epi32(_mm256_castsi256_si128(half), _mm256_extracti128_si256(half, 1));
    _mm_storeu_si128(reinterpret_cast<__m128i*>(p), packed);
}

INLINE Vec rounded_to_bf16(Vec x) {
    bf16 narrow[8];
    store(narrow, x);
    return load(narrow);
}
INLINE Vec max_magnitude(Vec a, Vec b) { return from_bits(_mm256_max_epi32(bits(a), bits(abs(b)))); }

template <int kDistance>
INLINE Vec butterfly(Vec x) {
    Vec other;
    if constexpr (kDistance == 1) other = _mm256_permute_ps(x, 0xb1);
    else if constexpr (kDistance == 2) other = _mm256_permute_ps(x, 0x4e);
    else other = _mm256_permute2f128_ps(x, x, 0x01);
    constexpr int kUpper = kDistance == 1 ? 0xaa : kDistance == 2 ? 0xcc : 0xf0;
    return _mm256_blend_ps(_mm256_add_ps(x, other), _mm256_sub_ps(other, x), kUpper);
}

INLINE void transpose(Vec (&r)[8]) {
    Vec t[8];
    for (int i = 0; i < 8; i += 2) {
        t[i] = _mm256_unpacklo_ps(r[i], r[i + 1]);
        t[i + 1] = _mm256_unpackhi_ps(r[i], r[i + 1]);
    }
    for (int i = 0; i < 8; i += 4) {
        r[i] = _mm256_shuffle_ps(t[i], t[i + 2], 0x44);
        r[i + 1] = _mm256_shuffle_ps(t[i], t[i + 2], 0xee);
        r[i + 2] = _mm256_shuffle_ps(t[i + 1], t[i + 3], 0x44);
        r[i + 3] = _mm256_shuffle_ps(t[i + 1], t[i + 3], 0xee);
    }
    for (int i = 0; i < 4; ++i) {
        t[i] = _mm256_permute2f128_ps(r[i], r[i + 4], 0x20);
        t[i + 4] = _mm256_permute2f128_ps(r[i], r[i + 4], 0x31);
    }
    for (int i = 0; i < 8; ++i) r[i] = t[i];
}

#else  // Any processor: the compiler's own vectors of 16 bytes, which every 64-bit machine has.

constexpr int kLanes = 4;
typedef float Vec __attribute__((vector_size(16)));
typedef int32_t Words __attribute__((vector_size(16)));

INLINE Vec set1(float x) { return Vec{x, x, x, x}; }
INLINE Vec zero() { return set1(0.0f); }
INLINE Words bits(Vec x) { return (Words)x; }
INLINE Vec from_bits(Words x) { return (Vec)x; }
INLINE Vec load(const float* p) {
    Vec x;
    memcpy(&x, p, sizeof x);
    return x;
}
INLINE void store(float* p, Vec x) { memcpy(p, &x, sizeof x); }
INLINE Vec load(const bf16* p) { return Vec{widen(p[0]), widen(p[1]), widen(p[2]), widen(p[3])}; }
INLINE Vec load(const int8_t* p) {
    return Vec{static_cast<float>(p[0]), static_cast<float>(p[1]), static_cast<float>(p[2]), static_cast<float>(p[3])};
}
INLINE void store(bf16* p, Vec x) {
    for (int i = 0; i < 4; ++i) p[i] = narrow_bf16(x[i]);
}
INLINE Vec rounded_to_bf16(Vec x) {
    bf16 narrow[4];
    store(narrow, x);
    return load(narrow);
}
#if defined(__aarch64__)
INLINE Vec fma(Vec a, Vec b, Vec c) { return (Vec)vfmaq_f32((float32x4_t)c, (float32x4_t)a, (float32x4_t)b); }
#else
INLINE Vec fma(Vec a, Vec b, Vec c) { return a * b + c; }
#endif
INLINE Vec add(Vec a, Vec b) { return a + b; }
INLINE Vec sub(Vec a, Vec b) { return a - b; }
INLINE Vec mul(Vec a, Vec b) { return a * b; }
INLINE Vec div(Vec a, Vec b) { return a / b; }
INLINE Vec reciprocal(Vec x) { return set1(1.0f) / x; }
INLINE Vec max(Vec a, Vec b) { return a > b ? a : b; }
INLINE Vec min(Vec a, Vec b) { return a < b ? a : b; }
INLINE Vec abs(Vec a) { return from_bits(bits(a) & 0x7fffffff); }
// Adding 1.5 * 2^23 leaves no bits for a fraction; good for |a| < 2^22.
INLINE Vec round(Vec a) {
    const Vec shift = set1(12582912.0f);
    return (a + shift) - shift;
}
// Without a sign: what lies outside the range wraps, and is not kept.
typedef uint32_t Naturals __attribute__((vector_size(16)));
INLINE Vec exp2_int(Vec n) { return from_bits((Words)((Naturals)(__builtin_convertvector(n, Words) + 127) << 23)); }
INLINE Vec shift_exponent(Vec x, Vec n) { return from_bits((Words)((Naturals)bits(x) + ((Naturals)bits(n) << 23))); }
INLINE Vec keep_if_at_least(Vec x, Vec key, Vec bound) { return from_bits(bits(x) & ~(key < bound)); }
INLINE float sum(Vec x) { return (x[0] + x[2]) + (x[1] + x[3]); }
INLINE float highest(Vec x) {
    const float a = x[0] > x[2] ? x[0] : x[2], b = x[1] > x[3] ? x[1] : x[3];
    return a > b ? a : b;
}
INLINE Vec max_magnitude(Vec a, Vec b) {
    const Words x = bits(a), y = bits(abs(b));
    return from_bits(x > y ? x : y);
}
template <int kDistance>
INLINE Vec butterfly(Vec x) {
    if constexpr (kDistance == 1) return Vec{x[0] + x[1], x[0] - x[1], x[2] + x[3], x[2] - x[3]};
    else return Vec{x[0] + x[2], x[1] + x[3], x[0] - x[2], x[1] - x[3]};
}

INLINE void transpose(Vec (&r)[4]) {
    float in[4][4], out[4][4];
    memcpy(in, r, sizeof in);
    for (int i = 0; i < 4; ++i)
        for (int j = 0; j < 4; ++j) out[i][j] = in[j][i];
    memcpy(r, out, sizeof out);
}

#endif

// 64 values times `factor`, rounded to integers in [-127, 127], as bytes.
INLINE void store_bytes(int8_t* p, const float* x, Vec factor) {
#if defined(__AVX512F__)
    const auto whole = [&](int i) { return _mm512_cvtps_epi32(mul(load(x + i * 16), factor)); };
    const __m512i first = _mm512_packs_epi32(whole(0), whole(1)), second = _mm512_packs_epi32(whole(2), whole(3));
    // Packing works inside 128-bit quarters: the words of each source lie four quarters apart.
    const __m512i order = _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
    _mm512_storeu_si512(p, _mm512_permutexvar_epi32(order, _mm512_packs_epi16(first, second)));
#elif defined(__AVX2__)
    const __m256i order = _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7);
    for (int half = 0; half < 64; half += 32) {
        const auto whole = [&](int i) { return _mm256_cvtps_epi32(mul(load(x + half + i * 8), factor)); };
        const __m256i first = _mm256_packs_epi32(whole(0), whole(1)), second = _mm256_packs_epi32(whole(2), whole(3));
        _mm256_storeu_si256(reinterpret_cast<__m256i*>(p + half),
                            _mm256_permutevar8x32_epi32(_mm256_packs_epi16(first, second), order));
    }
#else
    float whole[kLanes];
    for (int i = 0; i < 64; i += kLanes) {
        store(whole, round(mul(load(x + i), factor)));
        for (int j = 0; j < kLanes; ++j) p[i + j] = static_cast<int8_t>(whole[j]);
    }
#endif
}

// The first n < kLanes values, the rest zero.
template <class T>
INLINE Vec load_part(const T* p, int64_t n) {
    T part[kLanes] = {};
    memcpy(part, p, static_cast<size_t>(n) * sizeof(T));
    return load(part);
}
template <class T>
INLINE void store_part(T* p, Vec x, int64_t n) {
    T part[kLanes];
    store(part, x);
    memcpy(p, part, static_cast<size_t>(n) * sizeof(T));
}

// 2^(n + r) for integral n and |r| <= 1/2, to about 2^-22: Taylor's polynomial of degree 6 in r ln 2. 0 where
// `exponent`, which says what n + r was before it was bounded, is below -126.
INLINE Vec exp2_of(Vec n, Vec r, Vec exponent) {
    Vec p = set1(1.5403530e-4f);
    p = fma(p, r, set1(1.3333558e-3f));
    p = fma(p, r, set1(9.6181291e-3f));
    p = fma(p, r, set1(5.5504109e-2f));
    p = fma(p, r, set1(2.4022651e-1f));
    p = fma(p, r, set1(6.9314718e-1f));
    p = fma(p, r, set1(1.0f));
    return keep_if_at_least(mul(p, exp2_int(n)), exponent, set1(-126.0f));
}

// In all bounds `x` is the second argument, so that NaN stays NaN.
// 2^x; finite up to 127.
INLINE Vec exp2(Vec x) {
    const Vec bound = min(set1(127.0f), max(set1(-126.0f), x)), n = round(bound);
    return exp2_of(n, sub(bound, n), x);
}

// 2^x for x of at most 126, 0 below -126; the polynomials are those of least relative error on [-1/2, 1/2].
// Adding 1.5 * 2^23 leaves a whole number in the low bits.
INLINE Vec exp2_fine(Vec x) {  // to 8e-8
    const Vec whole = add(x, set1(12582912.0f)), r = sub(x, sub(whole, set1(12582912.0f)));
    Vec p = fma(set1(1.3276472e-3f), r, set1(9.67554148e-3f));
    p = fma(p, r, set1(5.55071327e-2f));
    p = fma(p, r, set1(2.40221197e-1f));
    p = fma(p, r, set1(6.93146967e-1f));
    p = fma(p, r, set1(1.00000007f));
    return keep_if_at_least(shift_exponent(p, whole), x, set1(-126.0f));
}
INLINE Vec exp2_rough(Vec x) {  // to 8e-5, a fiftieth of a bf16's rounding
    const Vec whole = add(x, set1(12582912.0f)), r = sub(x, sub(whole, set1(12582912.0f)));
    Vec p = fma(set1(5.51716694e-2f), r, set1(2.42611131e-1f));
    p = fma(p, r, set1(6.93260986e-1f));
    p = fma(p, r, set1(9.99928073e-1f));
    return keep_if_at_least(shift_exponent(p, whole), x, set1(-126.0f));
}

// e^x; finite up to 88. In the bounds `x` is the second argument, so that NaN stays NaN.
INLINE Vec exp(Vec x, const float*) {  // to about 2e-7
    const Vec bound = min(set1(88.0f), max(set1(-86.0f), x));
    const Vec whole = fma(bound, set1(1.44269504f), set1(12582912.0f)), n = sub(whole, set1(12582912.0f));
    // log2(e) in two parts: the remainder is exact to the last bit.
    const Vec r = fma(bound, set1(1.92596299e-8f), fma(bound, set1(1.44269502f), sub(zero(), n)));
    Vec p = fma(set1(1.3276472e-3f), r, set1(9.67554148e-3f));
    p = fma(p, r, set1(5.55071327e-2f));
    p = fma(p, r, set1(2.40221197e-1f));
    p = fma(p, r, set1(6.93146967e-1f));
    p = fma(p, r, set1(1.00000007f));
    return shift_exponent(p, whole);
}
INLINE Vec exp(Vec x, const bf16*) {  // to about 1e-4, a fortieth of its rounding
    const Vec bound = min(set1(88.0f), max(set1(-86.0f), x));
    const Vec whole = fma(bound, set1(1.44269504f), set1(12582912.0f));
    const Vec r = fma(bound, set1(1.44269504f), sub(set1(12582912.0f), whole));
    Vec p = fma(set1(5.51716694e-2f), r, set1(2.42611131e-1f));
    p = fma(p, r, set1(6.93260986e-1f));
    p = fma(p, r, set1(9.99928073e-1f));
    return shift_exponent(p, whole);
}

}  // namespace
}  // namespace llamakit::LEVEL
