// Products of byte activations with packed weights on vector units.
//
// The sums are exact integers, sum_k byte[n][k] * code[m][k], where a nibble stands for the byte
// multiplier * (nibble - 8). So any order and any grouping gives the same sum, and one fixed expression makes a float
// of it: a row has the same bits at every batch size, thread count and level, given the same codes.
#pragma once
#include "activations.h"
#include "ints.h"

namespace llamakit::LEVEL {
namespace {

constexpr int64_t kBlockBytes = kBlockColumnsPacked * kStep;    // bytes: 16 columns of one step
constexpr int64_t kNibbleBytes = kBlockColumnsPacked * kStep / 2;
constexpr int kHalves = kBlockColumnsPacked / kIntLanes;  // integer vectors that cover a block

// One row of sums of a block to floats.
template <class Out>
INLINE void put_sums(const int32_t* sums, const float* scales, float row_scale, Out* out, int64_t columns) {
    const Vec row = set1(row_scale);
    for (int64_t i = 0; i < kBlockColumnsPacked && i < columns; i += kLanes) {
        const Vec y = mul(mul(load_as_float(sums + i), load(scales + i)), row);
        if (columns - i >= kLanes) store(out + i, y);
        else store_part(out + i, y, columns - i);
    }
}

INLINE const int8_t* row_codes(const Activations& x, int64_t row) {
    return x.codes + row / 16 * x.block_stride + row % 16 * x.row_stride;
}

INLINE Ints broadcast(const int8_t* p) {
    int32_t word;
    memcpy(&word, p, sizeof word);
    return ints(word);
}

// kRows rows (inside one block of 16) by kBlocks blocks of byte weights.
template <int kRows, int kBlocks>
INLINE void byte_tile(const uint8_t* codes, int64_t block_bytes, const Activations& x, int64_t row,
                      int32_t (&sums)[kRows][kBlocks * kBlockColumnsPacked]) {
    constexpr int kVectors = kBlocks * kHalves;
    const int8_t* activations = row_codes(x, row);
    Ints acc[kRows][kVectors];
    for (int i = 0; i < kRows; ++i)
        for (int j = 0; j < kVectors; ++j) acc[i][j] = ints(-kWeightOffset * x.totals[row + i]);
    for (int64_t step = 0; step < x.steps; ++step, codes += kBlockBytes, activations += x.step_stride) {
        if constexpr (kRows == 1)
            for (int b = 0; b < kBlocks; ++b)
                for (int line = 0; line < kBlockBytes; line += 64)
                    __builtin_prefetch(codes + b * block_bytes + line + 4 * kBlockBytes);
        for (int64_t k = 0; k < kStep; k += 4) {
            Ints w[kVectors];
            for (int j = 0; j < kVectors; ++j)
                w[j] = load_ints(codes + j / kHalves * block_bytes + k * kBlockColumnsPacked + j % kHalves * kIntLanes * 4);
            for (int i = 0; i < kRows; ++i) {
                const Ints a = broadcast(activations + i * x.row_stride + k);
                for (int j = 0; j < kVectors; ++j) acc[i][j] = dot_bytes(acc[i][j], w[j], a);
            }
        }
    }
    for (int i = 0; i < kRows; ++i)
        for (int j = 0; j < kVectors; ++j) store_ints(sums[i] + j * kIntLanes, acc[i][j]);
}

// kRows rows by one block of nibbles. A group of 32 k values is four vectors of bytes: low nibbles are k 0-15, high
// nibbles k 16-31.
template <int kRows>
INLINE void nibble_tile(const uint8_t* codes, const int8_t* multipliers, const Activations& x, int64_t row,
                        int32_t (&sums)[kRows][kBlockColumnsPacked]) {
    const int8_t* activations = row_codes(x, row);
    Ints acc[kRows][kHalves];
    for (auto& r : acc)
        for (Ints& a : r) a = ints(0);
    for (int64_t step = 0; step < x.steps; ++step, activations += x.step_stride) {
        if constexpr (kRows == 1) {
            for (int line = 0; line < kNibbleBytes; line += 64) __builtin_prefetch(codes + line + 8 * kNibbleBytes);
            __builtin_prefetch(multipliers + 256);
        }
        for (int64_t half = 0; half < 2; ++half, codes += kNibbleBytes / 2, multipliers += kBlockColumnsPacked) {
            const int64_t group = step * 2 + half;
            for (int h = 0; h < kHalves; ++h) {
                Ints low[4], high[4];
                for (int c = 0; c < 4; ++c) {
                    const Ints both = load_ints(codes + c * 64 + h * kIntLanes * 4);
                    low[c] = low_nibbles(both);
                    high[c] = high_nibbles(both);
                }
                for (int i = 0; i < kRows; ++i) {
                    const int8_t* a = activations + i * x.row_stride + half * kGroup;
                    // Two chains hide the latency of a product.
                    Ints first = ints(-8 * x.sums[(row + i) * x.steps * 2 + group]), second = ints(0);
                    for (int c = 0; c < 4; ++c) {
                        first = dot_nibbles(first, low[c], broadcast(a + c * 4));
                        second = dot_nibbles(second, high[c], broadcast(a + 16 + c * 4));
                    }
                    // |sum| <= 32 * 8 * 127 < 2^15.
                    acc[i][h] = multiply_add(acc[i][h], add(first, second), multipliers + h * kIntLanes);
                }
            }
        }
    }
    for (int i = 0; i < kRows; ++i)
        for (int h = 0; h < kHalves; ++h) store_ints(sums[i] + h * kIntLanes, acc[i][h]);
}

// Nibbles of one group of a block to the bytes that stand for them: 128 + multiplier * (nibble - 8).
INLINE void widen_group(const uint8_t* codes, const int8_t* multipliers, uint8_t* to) {
#if defined(__AVX512BW__)
    // m * (u - 8) is |m| * u - 8 |m|, or |m| * (u ^ 15) - 7 |m| for a negative m. Both bytes of a 16-bit lane are
    // multiplied at once: |m| * 15 stays below 256.
    const __m512i m = _mm512_cvtepi8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(multipliers)));
    const __m512i size = _mm512_abs_epi32(m), negative = _mm512_srai_epi32(m, 31);
    const __m512i factor = _mm512_mullo_epi32(size, _mm512_set1_epi32(0x00010001));
    const __m512i eights = _mm512_add_epi32(_mm512_slli_epi32(size, 3), _mm512_mullo_epi32(size, negative));
    const __m512i start = _mm512_mullo_epi32(_mm512_sub_epi32(_mm512_set1_epi32(128), eights), _mm512_set1_epi32(0x01010101));
    const __m512i mask = _mm512_set1_epi8(15), flip = _mm512_and_si512(negative, mask);
    constexpr int kAndXor = 0x6a;  // (a & b) ^ c
    for (int c = 0; c < 4; ++c) {
        const __m512i both = _mm512_loadu_si512(codes + c * 64);
        const __m512i low = _mm512_ternarylogic_epi32(both, mask, flip, kAndXor);
        const __m512i high = _mm512_ternarylogic_epi32(_mm512_srli_epi16(both, 4), mask, flip, kAndXor);
        _mm512_storeu_si512(to + c * 64, _mm512_add_epi8(_mm512_mullo_epi16(low, factor), start));
        _mm512_storeu_si512(to + 256 + c * 64, _mm512_add_epi8(_mm512_mullo_epi16(high, factor), start));
    }
#else
    for (int c = 0; c < 4; ++c)
        for (int n = 0; n < 16; ++n)
            for (int k = 0; k < 4; ++k) {
                const uint8_t both = codes[c * 64 + n * 4 + k];
                to[c * 64 + n * 4 + k] = static_cast<uint8_t>(128 + multipliers[n] * ((both & 15) - 8));
                to[256 + c * 64 + n * 4 + k] = static_cast<uint8_t>(128 + multipliers[n] * ((both >> 4) - 8));
            }
#endif
}

// `ahead`: how many bytes before they are needed nibbles are asked for; 0 leaves it to the processor.
inline void widen_steps(const uint8_t* codes, const int8_t* multipliers, int64_t steps, uint8_t* to, int64_t ahead = 0) {
    for (int64_t group = 0; group < steps * 2; ++group) {
        if (ahead)
            for (int line = 0; line < kNibbleBytes / 2; line += 64)
                __builtin_prefetch(codes + group * kNibbleBytes / 2 + ahead + line);
        widen_group(codes + group * kNibbleBytes / 2, multipliers + group * 16, to + group * kBlockBytes / 2);
    }
}

// Blocks of 16 columns of a patch, and how many of them one tile holds.
constexpr int64_t kPatchBlocks = 4;
constexpr int kTileBlocks = kIntLanes == 16 ? 4 : 1;
constexpr int kTileRowsPacked = 4;
// From this many rows on nibbles are widened once instead of being unpacked for every few rows.
constexpr int64_t kWidenRows = 12;

template <int kRows, int kBlocks, class Out>
INLINE void byte_rows(const uint8_t* codes, int64_t block_bytes, const float* scales, const Activations& x, int64_t row,
                      Out* out, int64_t out_stride, int64_t columns) {
    alignas(64) int32_t sums[kRows][kBlocks * kBlockColumnsPacked];
    byte_tile<kRows, kBlocks>(codes, block_bytes, x, row, sums);
    for (int i = 0; i < kRows; ++i)
        for (int b = 0; b < kBlocks; ++b)
            put_sums(sums[i] + b * 16, scales + b * 16, x.scales[row + i], out + (row + i) * out_stride + b * 16,
                     columns - b * 16);
}

template <int kBlocks, class Out>
void byte_blocks(const uint8_t* codes, int64_t block_bytes, const float* scales, const Activations& x, Out* out,
                 int64_t out_stride, int64_t columns) {
    int64_t row = 0;
    for (; row + kTileRowsPacked <= x.rows; row += kTileRowsPacked)
        byte_rows<kTileRowsPacked, kBlocks>(codes, block_bytes, scales, x, row, out, out_stride, columns);
    switch (x.rows - row) {
        case 3: return byte_rows<3, kBlocks>(codes, block_bytes, scales, x, row, out, out_stride, columns);
        case 2: return byte_rows<2, kBlocks>(codes, block_bytes, scales, x, row, out, out_stride, columns);
        case 1: return byte_rows<1, kBlocks>(codes, block_bytes, scales, x, row, out, out_stride, columns);
    }
}

template <int kRows, class Out>
INLINE void nibble_rows(const uint8_t* codes, const int8_t* multipliers, const float* scales, const Activations& x,
                        int64_t row, Out* out, int64_t out_stride, int64_t columns) {
    alignas(64) int32_t sums[kRows][kBlockColumnsPacked];
    nibble_tile<kRows>(codes, multipliers, x, row, sums);
    for (int i = 0; i < kRows; ++i)
        put_sums(sums[i], scales, x.scales[row + i], out + (row + i) * out_stride, columns);
}

template <class Out>
void nibble_block(const uint8_t* codes, const int8_t* multipliers, const float* scales, const Activations& x, Out* out,
                  int64_t out_stride, int64_t columns) {
    int64_t row = 0;
    for (; row + 4 <= x.rows; row += 4) nibble_rows<4>(codes, multipliers, scales, x, row, out, out_stride, columns);
    switch (x.rows - row) {
        case 3: return nibble_rows<3>(codes, multipliers, scales, x, row, out, out_stride, columns);
        case 2: return nibble_rows<2>(codes, multipliers, scales, x, row, out, out_stride, columns);
        case 1: return nibble_rows<1>(codes, multipliers, scales, x, row, out, out_stride, columns);
    }
}

// The blocks [first, end) of the matrix for all rows; `out` points at the first of their columns.
template <class Out>
void packed_patch(const Matrix& w, const Activations& x, int64_t first, int64_t end, Out* out, int64_t out_stride) {
    const int64_t bytes = x.steps * kBlockBytes, nibbles = x.steps * kNibbleBytes, groups = x.steps * 2 * 16;
    const bool widen = w.kind == Kind::kNibbles && x.rows >= kWidenRows;
    const uint8_t* codes = w.codes + first * (w.kind == Kind::kNibbles ? nibbles : bytes);
    if (widen) {
        uint8_t* wide = static_cast<uint8_t*>(scratch(kPerProduct, static_cast<size_t>((end - first) * bytes)));
        for (int64_t b = first; b < end; ++b)
            widen_steps(codes + (b - first) * nibbles, w.multipliers + b * groups, x.steps, wide + (b - first) * bytes);
        codes = wide;
    }
    for (int64_t b = first; b < end;) {
        const int64_t columns = w.columns - b * 16;
        const float* scales = w.scales + b * 16;
        Out* to = out + (b - first) * 16;
        if (w.kind == Kind::kNibbles && !widen) {
            nibble_block(codes, w.multipliers + b * groups, scales, x, to, out_stride, columns);
            codes += nibbles;
            b += 1;
        } else if (kTileBlocks > 1 && b + kTileBlocks <= end) {
            byte_blocks<kTileBlocks>(codes, bytes, scales, x, to, out_stride, columns);
            codes += kTileBlocks * bytes;
            b += kTileBlocks;
        } else {
            byte_blocks<1>(codes, bytes, scales, x, to, out_stride, columns);
            codes += bytes;
            b += 1;
        }
    }
}

}  // namespace
}  // namespace llamakit::LEVEL
