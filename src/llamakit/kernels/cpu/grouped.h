// Products of byte activations with weights that have a scale, and perhaps a minimum, for every 32 values.
//
// Activations get a scale for every 32 values, too. The sum over a group is an exact integer; groups are added in
// float32 from the first to the last, so a row has the same bits whatever stands beside it and however many threads run.
#pragma once
#include "activations.h"
#include "grouped_level.h"
#include "ints.h"

namespace llamakit::LEVEL {
namespace {

// Rows as the product reads them.
struct GroupedRows {
    int8_t* codes;   // [rows][groups * 32]
    float* scales;   // [rows][groups]: value = scale * code
    float* offsets;  // [rows][groups]: -scale * sum of the codes, what a minimum is multiplied with
    int32_t* sums;   // [rows][groups]
    int64_t rows, groups;
};

constexpr int64_t kGroupColumns = 16;
constexpr int kVectors16 = kGroupColumns / kLanes;  // float vectors that cover a block
constexpr int kWordsOfGroup = kGroup / 4;
constexpr int64_t kGroupedBlocks = 4;    // blocks of a task
constexpr int64_t kGroupedRows = 128;    // rows of a task: their codes stay in the second-level cache

// A number of rows as a type.
template <int kCount>
struct RowCount {
    static constexpr int count = kCount;
};

inline size_t grouped_bytes(int64_t rows, int64_t depth) {
    return static_cast<size_t>(rows * (depth + depth / kGroup * 12)) + 64;
}

inline GroupedRows cut_grouped(void* memory, int64_t rows, int64_t depth) {
    GroupedRows x;
    x.rows = rows;
    x.groups = depth / kGroup;
    x.scales = static_cast<float*>(memory);
    x.offsets = x.scales + rows * x.groups;
    x.sums = reinterpret_cast<int32_t*>(x.offsets + rows * x.groups);
    x.codes = reinterpret_cast<int8_t*>(x.sums + rows * x.groups);
    return x;
}

// 16 halves as floats.
INLINE void load_halves(const uint16_t* p, Vec (&to)[kVectors16]) {
#if defined(__AVX512F__)
    to[0] = _mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
#elif defined(__AVX2__)
    for (int i = 0; i < 2; ++i) to[i] = _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p + i * 8)));
#else
    for (int i = 0; i < kVectors16; ++i) {
        // Exponent and fraction moved into place stand for the value over 2^112, also below the normal range.
        const Words wide = {p[i * 4], p[i * 4 + 1], p[i * 4 + 2], p[i * 4 + 3]};
        const Vec size = from_bits((wide & 0x7fff) << 13);
        to[i] = from_bits(bits(mul(size, set1(5.192296858534828e33f))) | ((wide & 0x8000) << 16));
    }
#endif
}

// 32 values times `factor`, rounded to integers in [-127, 127], as bytes; their sum.
INLINE int32_t store_group(int8_t* p, const float* x, Vec factor) {
#if defined(__AVX512F__)
    const __m512i low = _mm512_cvtps_epi32(mul(load(x), factor)), high = _mm512_cvtps_epi32(mul(load(x + 16), factor));
    _mm_storeu_si128(reinterpret_cast<__m128i*>(p), _mm512_cvtepi32_epi8(low));
    _mm_storeu_si128(reinterpret_cast<__m128i*>(p + 16), _mm512_cvtepi32_epi8(high));
    return _mm512_reduce_add_epi32(_mm512_add_epi32(low, high));
#else
    float whole[kGroup];
    for (int64_t i = 0; i < kGroup; i += kLanes) store(whole + i, round(mul(load(x + i), factor)));
    int32_t total = 0;
    for (int64_t i = 0; i < kGroup; ++i) {
        p[i] = static_cast<int8_t>(whole[i]);
        total += p[i];
    }
    return total;
#endif
}

// One group of 32 floats to bytes; a group with a NaN or an infinity gets a NaN scale.
INLINE void quantize_group(const float* x, const GroupedRows& to, int64_t index) {
    Vec most = zero();
    for (int64_t i = 0; i < kGroup; i += kLanes) most = max_magnitude(most, load(x + i));
    float lanes[kLanes], high = 0.0f;
    store(lanes, most);
    bool finite = true;
    for (const float lane : lanes) {
        finite = finite && lane <= __FLT_MAX__;
        high = lane > high ? lane : high;
    }
    const float scale = finite ? high / 127.0f : __builtin_nanf("");
    const Vec factor = set1(finite && high > kSmallest ? 127.0f / high : 0.0f);
    int8_t* codes = to.codes + index * kGroup;
    const int32_t total = finite ? store_group(codes, x, factor) : 0;
    if (!finite) memset(codes, 0, kGroup);
    to.scales[index] = scale;
    to.sums[index] = total;
    to.offsets[index] = -scale * static_cast<float>(total);
}

template <class T>
void make_grouped_rows(const T* x, const GroupedMatrix& w, const GroupedRows& to, int threads) {
    const Vec factor = set1(w.rotation ? 1.0f / __builtin_sqrtf(static_cast<float>(w.rotation)) : 1.0f);
    for_rows(threads, to.rows, w.depth * 4, [&](int64_t row) {
        float* wide = static_cast<float*>(scratch(kPerTask, static_cast<size_t>(w.depth) * sizeof(float)));
        widen_row(x + row * w.depth, w.depth, wide);
        if (w.rotation) {
            rotate_blocks(wide, w.depth, w.rotation);
            for (int64_t i = 0; i < w.depth; i += kLanes) store(wide + i, mul(load(wide + i), factor));
        }
        for (int64_t g = 0; g < to.groups; ++g) quantize_group(wide + g * kGroup, to, row * to.groups + g);
    });
}

INLINE Ints grouped_broadcast(const int8_t* p) {
    int32_t word;
    memcpy(&word, p, sizeof word);
    return ints(word);
}

// Products of bytes where a weight may be -128, which files can hold and `dot_bytes` does not take on every level.
INLINE Ints dot_any_bytes(Ints sum, Ints w, Ints x) {
#if defined(__AVX2__) && !defined(__AVX512VNNI__) && !defined(__AVXVNNI__)
    const __m256i plain = _mm256_xor_si256(w, _mm256_set1_epi8(static_cast<char>(0x80)));
    const __m256i pairs = _mm256_maddubs_epi16(_mm256_abs_epi8(plain), _mm256_sign_epi8(x, plain));
    return add(sum, _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)));
#else
    return dot_bytes(sum, w, x);
#endif
}

// The sums of a block as floats.
INLINE void sums_to_floats(const Ints (&sums)[kGroupColumns / kIntLanes], Vec (&to)[kVectors16]) {
#if defined(__AVX512VNNI__)
    to[0] = _mm512_cvtepi32_ps(sums[0]);
#else
    alignas(64) int32_t stored[kGroupColumns];
    for (int64_t h = 0; h < kGroupColumns / kIntLanes; ++h) store_ints(stored + h * kIntLanes, sums[h]);
    for (int i = 0; i < kVectors16; ++i) to[i] = load_as_float(stored + i * kLanes);
#endif
}

// kRows rows by one block of 16 columns. A group's words lie in order of k: word c holds k = 4 c .. 4 c + 3; of nibbles
// the low halves are words 0-3 and the high halves words 4-7.
template <int kBits, bool kMinima, int kRows>
INLINE void grouped_tile(const uint8_t* codes, const uint16_t* scales, const uint16_t* minima, const GroupedRows& x,
                         int64_t row, Vec (&acc)[kRows][kVectors16]) {
    constexpr int kHalves16 = kGroupColumns / kIntLanes;
    constexpr int64_t kBytes = kGroupColumns * kGroup * kBits / 8;
    constexpr int32_t kOffset = kBits == 8 ? kWeightOffset : kMinima ? 0 : 8;
    for (auto& r : acc)
        for (Vec& a : r) a = zero();
    const int64_t first = row * x.groups;
    for (int64_t g = 0; g < x.groups; ++g, codes += kBytes, scales += kGroupColumns) {
        if constexpr (kRows == 1)
            for (int64_t line = 0; line < kBytes; line += 64) __builtin_prefetch(codes + line + 8 * kBytes);
        Ints sums[kRows][kHalves16];
        for (int h = 0; h < kHalves16; ++h) {
            Ints words[kWordsOfGroup];
            if constexpr (kBits == 4) {
                for (int c = 0; c < 4; ++c) {
                    const Ints both = load_ints(codes + c * 64 + h * kIntLanes * 4);
                    words[c] = low_nibbles(both);
                    words[c + 4] = high_nibbles(both);
                }
            } else {
                for (int c = 0; c < 8; ++c) words[c] = load_ints(codes + c * 64 + h * kIntLanes * 4);
            }
            for (int i = 0; i < kRows; ++i) {
                const int64_t at = first + i * x.groups + g;
                const int8_t* a = x.codes + at * kGroup;
                Ints even = ints(-kOffset * x.sums[at]), odd = ints(0);  // two chains hide the latency of a product
                for (int c = 0; c < kWordsOfGroup; c += 2) {
                    if constexpr (kBits == 4) {
                        even = dot_nibbles(even, words[c], grouped_broadcast(a + c * 4));
                        odd = dot_nibbles(odd, words[c + 1], grouped_broadcast(a + c * 4 + 4));
                    } else {
                        even = dot_any_bytes(even, words[c], grouped_broadcast(a + c * 4));
                        odd = dot_any_bytes(odd, words[c + 1], grouped_broadcast(a + c * 4 + 4));
                    }
                }
                sums[i][h] = add(even, odd);
            }
        }
        Vec scale[kVectors16], least[kVectors16];
        load_halves(scales, scale);
        if constexpr (kMinima) {
            load_halves(minima, least);
            minima += kGroupColumns;
        }
        for (int i = 0; i < kRows; ++i) {
            const int64_t at = first + i * x.groups + g;
            const Vec row_scale = set1(x.scales[at]);
            Vec whole[kVectors16];
            sums_to_floats(sums[i], whole);
            for (int v = 0; v < kVectors16; ++v) {
                acc[i][v] = fma(whole[v], mul(scale[v], row_scale), acc[i][v]);
                if constexpr (kMinima) acc[i][v] = fma(least[v], set1(x.offsets[at]), acc[i][v]);
            }
        }
    }
}

template <int kBits, bool kMinima, int kRows, class T>
void grouped_rows(const uint8_t* codes, const uint16_t* scales, const uint16_t* minima, const GroupedRows& x, int64_t row,
                  T* out, int64_t stride, int64_t columns) {
    Vec acc[kRows][kVectors16];
    grouped_tile<kBits, kMinima, kRows>(codes, scales, minima, x, row, acc);
    for (int i = 0; i < kRows; ++i)
        for (int v = 0; v < kVectors16; ++v) {
            const int64_t left = columns - v * kLanes;
            if (left > 0) set(out + (row + i) * stride + v * kLanes, acc[i][v], left < kLanes ? static_cast<int>(left) : kLanes);
        }
}

template <int kBits, bool kMinima, class T>
void grouped_product(const GroupedMatrix& w, const GroupedRows& x, T* out, int threads) {
    const int64_t blocks = ceil_div(w.columns, kGroupColumns), tasks = ceil_div(blocks, kGroupedBlocks);
    for_each(threads, tasks * ceil_div(x.rows, kGroupedRows), [&](int64_t task) {
        const int64_t start = task / tasks * kGroupedRows, first = task % tasks * kGroupedBlocks;
        const int64_t end = start + kGroupedRows < x.rows ? start + kGroupedRows : x.rows;
        for (int64_t b = first; b < first + kGroupedBlocks && b < blocks; ++b) {
            const int64_t group = b * x.groups * kGroupColumns;
            const uint8_t* codes = w.codes + group * kGroup * kBits / 8;
            const uint16_t *scales = w.scales + group, *minima = kMinima ? w.minima + group : nullptr;
            const int64_t column = b * kGroupColumns, columns = w.columns - column;
            const auto run = [&](auto rows, int64_t row) {
                grouped_rows<kBits, kMinima, decltype(rows)::count>(codes, scales, minima, x, row, out + column, w.columns, columns);
            };
            int64_t row = start;
            if constexpr (kIntLanes == 16)
                for (; row + 8 <= end; row += 8) run(RowCount<8>{}, row);
            for (; row + 4 <= end; row += 4) run(RowCount<4>{}, row);
            for (; row + 2 <= end; row += 2) run(RowCount<2>{}, row);
            if (row < end) run(RowCount<1>{}, row);
        }
    });
}

template <class T>
void grouped_linear_of(const T* x, const GroupedMatrix& w, T* out, int64_t rows, int threads) {
    const GroupedRows made = cut_grouped(scratch(kShared, grouped_bytes(rows, w.depth)), rows, w.depth);
    make_grouped_rows(x, w, made, threads);
    if (w.bits == 8 && w.minima) grouped_product<8, true>(w, made, out, threads);
    else if (w.bits == 8) grouped_product<8, false>(w, made, out, threads);
    else if (w.minima) grouped_product<4, true>(w, made, out, threads);
    else grouped_product<4, false>(w, made, out, threads);
}

void grouped_linear(Dtype dtype, const void* x, const GroupedMatrix& w, void* out, int64_t rows, int threads) {
    if (dtype == kF32) grouped_linear_of(static_cast<const float*>(x), w, static_cast<float*>(out), rows, threads);
    else grouped_linear_of(static_cast<const bf16*>(x), w, static_cast<bf16*>(out), rows, threads);
}

// Row `column` of the matrix.
inline void grouped_row(const GroupedMatrix& w, int64_t column, float* to) {
    const int64_t groups = w.depth / kGroup, n = column % kGroupColumns;
    const int64_t block = column / kGroupColumns * groups * kGroupColumns;
    const uint8_t* codes = w.codes + block * kGroup * w.bits / 8 + n * 4;
    const int zero = w.bits == 8 ? 128 : w.minima ? 0 : 8;
    for (int64_t g = 0; g < groups; ++g, codes += kGroupColumns * kGroup * w.bits / 8, to += kGroup) {
        Vec found[kVectors16];
        float scales[kGroupColumns], minima[kGroupColumns] = {};
        const int64_t at = block + g * kGroupColumns;
        load_halves(w.scales + at, found);
        for (int v = 0; v < kVectors16; ++v) store(scales + v * kLanes, found[v]);
        if (w.minima) {
            load_halves(w.minima + at, found);
            for (int v = 0; v < kVectors16; ++v) store(minima + v * kLanes, found[v]);
        }
        for (int64_t k = 0; k < kGroup; ++k) {
            const int64_t place = (w.bits == 4 ? k % 16 : k) / 4 * 64 + k % 4;
            const int code = w.bits == 8 ? codes[place] : k < 16 ? codes[place] & 15 : codes[place] >> 4;
            to[k] = static_cast<float>(code - zero) * scales[n] - minima[n];
        }
    }
}

void grouped_unpack(Dtype dtype, const GroupedMatrix& w, const int64_t* rows, int64_t count, void* out, int threads) {
    for_rows(threads, count, w.depth * 4, [&](int64_t i) {
        float* row = static_cast<float*>(scratch(kPerTask, static_cast<size_t>(w.depth) * sizeof(float)));
        grouped_row(w, rows[i], row);
        for (int64_t k = 0; k < w.depth; k += kLanes) {
            if (dtype == kF32) store(static_cast<float*>(out) + i * w.depth + k, load(row + k));
            else store(static_cast<bf16*>(out) + i * w.depth + k, load(row + k));
        }
    });
}

}  // namespace
}  // namespace llamakit::LEVEL
