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

// Blocks of 16 columns that are multiplied side by side, each so far from the one before. Few rows wait for memory, and
// a core reads several runs of consecutive blocks sooner than a single one, when each is asked for just ahead.
struct Runs {
    const uint8_t* codes;
    int64_t codes_apart;
    const int8_t* multipliers;  // nibbles
    int64_t multipliers_apart;
    const float* scales;
    int64_t columns, columns_apart;  // columns that are left from the first block on
};
constexpr int64_t kAhead = 512;  // bytes of each run that are asked for ahead

// kRows rows (inside one block of 16) by kBlocks blocks of byte weights.
template <int kRows, int kBlocks>
INLINE void byte_tile(const Runs& w, const Activations& x, int64_t row,
                      int32_t (&sums)[kRows][kBlocks * kBlockColumnsPacked]) {
    constexpr int kVectors = kBlocks * kHalves;
    const int8_t* activations = row_codes(x, row);
    const uint8_t* codes = w.codes;
    Ints acc[kRows][kVectors];
    for (int i = 0; i < kRows; ++i)
        for (int j = 0; j < kVectors; ++j) acc[i][j] = ints(-kWeightOffset * x.totals[row + i]);
    for (int64_t step = 0; step < x.steps; ++step, codes += kBlockBytes, activations += x.step_stride) {
        for (int64_t k = 0; k < kStep; k += 4) {
            if constexpr (kRows < 4)
                for (int b = 0; b < kBlocks; ++b)
                    __builtin_prefetch(codes + b * w.codes_apart + k * kBlockColumnsPacked + kAhead);
            Ints v[kVectors];
            for (int j = 0; j < kVectors; ++j)
                v[j] = load_ints(codes + j / kHalves * w.codes_apart + k * kBlockColumnsPacked + j % kHalves * kIntLanes * 4);
            for (int i = 0; i < kRows; ++i) {
                const Ints a = broadcast(activations + i * x.row_stride + k);
                for (int j = 0; j < kVectors; ++j) acc[i][j] = dot_bytes(acc[i][j], v[j], a);
            }
        }
    }
    for (int i = 0; i < kRows; ++i)
        for (int j = 0; j < kVectors; ++j) store_ints(sums[i] + j * kIntLanes, acc[i][j]);
}

// kRows rows by kBlocks blocks of nibbles. A group of 32 k values is four vectors of bytes: low nibbles are k 0-15, high
// nibbles k 16-31.
template <int kRows, int kBlocks>
INLINE void nibble_tile(const Runs& w, const Activations& x, int64_t row,
                        int32_t (&sums)[kRows][kBlocks * kBlockColumnsPacked]) {
    constexpr int64_t kGroupBytes = kNibbleBytes / 2;
    const int8_t* activations = row_codes(x, row);
    const int32_t* group_sums = x.sums + row * x.steps * 2;
    Ints acc[kRows][kBlocks * kHalves];
    for (auto& r : acc)
        for (Ints& a : r) a = ints(0);
    for (int64_t group = 0; group < x.steps * 2; ++group) {
        const int8_t* piece = activations + group / 2 * x.step_stride + group % 2 * kGroup;
        UNROLL for (int b = 0; b < kBlocks; ++b) {
            const uint8_t* codes = w.codes + b * w.codes_apart + group * kGroupBytes;
            const int8_t* multipliers = w.multipliers + b * w.multipliers_apart + group * kBlockColumnsPacked;
            for (int line = 0; line < kGroupBytes; line += 64) __builtin_prefetch(codes + line + kAhead);
            if (group % 4 == 0) __builtin_prefetch(multipliers + 128);
            for (int h = 0; h < kHalves; ++h) {
                Ints low[4], high[4];
                for (int c = 0; c < 4; ++c) {
                    const Ints both = load_ints(codes + c * 64 + h * kIntLanes * 4);
                    low[c] = low_nibbles(both);
                    high[c] = high_nibbles(both);
                }
                for (int i = 0; i < kRows; ++i) {
                    const int8_t* a = piece + i * x.row_stride;
                    // Two chains hide the latency of a product.
                    Ints first = ints(-8 * group_sums[i * x.steps * 2 + group]), second = ints(0);
                    for (int c = 0; c < 4; ++c) {
                        first = dot_nibbles(first, low[c], broadcast(a + c * 4));
                        second = dot_nibbles(second, high[c], broadcast(a + 16 + c * 4));
                    }
                    // |sum| <= 32 * 8 * 127 < 2^15.
                    Ints& total = acc[i][b * kHalves + h];
                    total = multiply_add(total, add(first, second), multipliers + h * kIntLanes);
                }
            }
        }
    }
    for (int i = 0; i < kRows; ++i)
        for (int h = 0; h < kBlocks * kHalves; ++h) store_ints(sums[i] + h * kIntLanes, acc[i][h]);
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

// Blocks that are multiplied side by side, a matter of registers, and how many consecutive ones each run has at most.
constexpr int kTileBlocks = kIntLanes == 16 ? 4 : kIntLanes == 8 ? 2 : 1;
constexpr int64_t kTileColumns = kTileBlocks * kBlockColumnsPacked, kLongestRun = 4;
constexpr int kTileRowsPacked = 4;
// From this many rows on nibbles are widened once instead of being unpacked for every few rows.
constexpr int64_t kWidenRows = 12;

template <bool kNibbles, int kRows, int kBlocks, class Out>
INLINE void packed_rows(const Runs& w, const Activations& x, int64_t row, Out* out, int64_t out_stride) {
    alignas(64) int32_t sums[kRows][kBlocks * kBlockColumnsPacked];
    if constexpr (kNibbles) nibble_tile<kRows, kBlocks>(w, x, row, sums);
    else byte_tile<kRows, kBlocks>(w, x, row, sums);
    for (int i = 0; i < kRows; ++i)
        for (int64_t b = 0, n = 0; b < kBlocks; ++b, n += w.columns_apart)
            put_sums(sums[i] + b * 16, w.scales + n, x.scales[row + i], out + (row + i) * out_stride + n, w.columns - n);
}

template <bool kNibbles, int kBlocks, class Out>
void packed_blocks(const Runs& w, const Activations& x, Out* out, int64_t out_stride) {
    int64_t row = 0;
    for (; row + kTileRowsPacked <= x.rows; row += kTileRowsPacked)
        packed_rows<kNibbles, kTileRowsPacked, kBlocks>(w, x, row, out, out_stride);
    switch (x.rows - row) {
        case 3: return packed_rows<kNibbles, 3, kBlocks>(w, x, row, out, out_stride);
        case 2: return packed_rows<kNibbles, 2, kBlocks>(w, x, row, out, out_stride);
        case 1: return packed_rows<kNibbles, 1, kBlocks>(w, x, row, out, out_stride);
    }
}

// `count` consecutive blocks from the one `w` points at: as many runs as a tile holds, and what is left one by one.
template <bool kNibbles, class Out>
void packed_runs(Runs w, int64_t count, const Activations& x, Out* out, int64_t out_stride) {
    const int64_t bytes = x.steps * (kNibbles ? kNibbleBytes : kBlockBytes), groups = kNibbles ? x.steps * 2 * 16 : 0;
    const auto next = [&] {
        w.codes += bytes;
        w.multipliers += groups;
        w.scales += 16;
        w.columns -= 16;
        out += 16;
    };
    const int64_t length = count / kTileBlocks;
    w.codes_apart = length * bytes;
    w.multipliers_apart = length * groups;
    w.columns_apart = length * 16;
    for (int64_t i = 0; i < length; ++i, next()) packed_blocks<kNibbles, kTileBlocks>(w, x, out, out_stride);
    for (int64_t i = 0; i < length * (kTileBlocks - 1); ++i) next();
    for (int64_t i = length * kTileBlocks; i < count; ++i, next()) packed_blocks<kNibbles, 1>(w, x, out, out_stride);
}

// The blocks [first, end) of the matrix for all rows; `out` points at the first of their columns.
template <class Out>
void packed_patch(const Matrix& w, const Activations& x, int64_t first, int64_t end, Out* out, int64_t out_stride) {
    Runs runs{};
    runs.scales = w.scales + first * 16;
    runs.columns = w.columns - first * 16;
    const int64_t bytes = x.steps * kBlockBytes, nibbles = x.steps * kNibbleBytes, groups = x.steps * 2 * 16;
    if (w.kind == Kind::kBytes) {
        runs.codes = w.codes + first * bytes;
        return packed_runs<false>(runs, end - first, x, out, out_stride);
    }
    runs.codes = w.codes + first * nibbles;
    runs.multipliers = w.multipliers + first * groups;
    if (x.rows < kWidenRows) return packed_runs<true>(runs, end - first, x, out, out_stride);
    uint8_t* wide = static_cast<uint8_t*>(scratch(kPerProduct, static_cast<size_t>((end - first) * bytes)));
    widen_steps(runs.codes, runs.multipliers, (end - first) * x.steps, wide);
    runs.codes = wide;
    packed_runs<false>(runs, end - first, x, out, out_stride);
}

}  // namespace
}  // namespace llamakit::LEVEL
