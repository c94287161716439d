// bf16 products on AMX tiles, weights as they lie in the checkpoint.
//
// The weight is the left operand: 16 of its rows by 32 values are one tile, read in place. The activations are the
// right operand, repacked once a call to [k / 2][16 rows] pairs. A sum tile holds [16 columns][16 rows] of the result
// and takes the steps of k in order, so an output depends on its own row and column only, in any block shape.
#pragma once
#include "dense.h"
#include "tiles.h"

namespace llamakit::LEVEL {
namespace {

constexpr int64_t kTileDepth = 32;      // bf16 values in 64 bytes
constexpr int64_t kTileWords = 16 * 16;  // 4-byte words of a full tile

// Activations as right-hand tiles: packed[row block][k step][pair][row], `width` rows a block, zero beyond `rows`.
struct PackedRows {
    const uint32_t* words;
    int64_t steps, width;
    const uint32_t* tile(int64_t block, int64_t step) const { return words + (block * steps + step) * 16 * width; }
};

inline Vec load_words(const bf16* p, int64_t words_left) {
    if (words_left >= 16) return load(reinterpret_cast<const float*>(p));
    return _mm512_maskz_loadu_ps(static_cast<__mmask16>((1u << words_left) - 1), p);
}

// One block of up to 16 rows. An odd last value is paired with zero.
void pack_block(const bf16* x, int64_t x_stride, int64_t rows, int64_t depth, uint32_t* to) {
    const int64_t steps = ceil_div(depth, kTileDepth);
    for (int64_t step = 0; step < steps; ++step, to += kTileWords) {
        const int64_t left = depth - step * kTileDepth;
        Vec r[16];
        for (int64_t i = 0; i < 16; ++i) {
            if (i >= rows) {
                r[i] = zero();
                continue;
            }
            const bf16* from = x + i * x_stride + step * kTileDepth;
            r[i] = load_words(from, left / 2);
            if (left < kTileDepth && left % 2) {
                const uint32_t last = from[left - 1].bits;
                r[i] = from_bits(_mm512_mask_set1_epi32(bits(r[i]), static_cast<__mmask16>(1u << (left / 2)), last));
            }
        }
        transpose(r);
        for (int i = 0; i < 16; ++i) store(reinterpret_cast<float*>(to) + i * 16, r[i]);
    }
}

// 16 rows of the weight by one step, copied with zeros where the matrix ends.
void copy_edge(const bf16* w, int64_t stride, int64_t columns, int64_t depth, bf16* to) {
    memset(to, 0, 1024);
    for (int64_t j = 0; j < columns && j < 16; ++j)
        memcpy(to + j * kTileDepth, w + j * stride, static_cast<size_t>(depth < kTileDepth ? depth : kTileDepth) * 2);
}

void put_tile(const float* sums, int64_t width, int64_t rows, int64_t columns, bf16* out, int64_t out_stride) {
    if (width == 16) {
        Vec r[16];
        for (int i = 0; i < 16; ++i) r[i] = load(sums + i * 16);
        transpose(r);
        for (int64_t i = 0; i < rows; ++i) {
            if (columns >= 16) store(out + i * out_stride, r[i]);
            else store_part(out + i * out_stride, r[i], columns);
        }
        return;
    }
    for (int64_t i = 0; i < rows; ++i)
        for (int64_t j = 0; j < columns && j < 16; ++j) put(out + i * out_stride + j, sums[j * width + i]);
}

// 64 columns of the result for one block of at most 16 rows.
void tiles_4x1(const LinearArgs& a, const PackedRows& x, int64_t n, int64_t block) {
    const bf16* w = static_cast<const bf16*>(a.weight) + n * a.weight_stride;
    const int64_t stride = a.weight_stride * 2, ahead = 8 * kTileDepth;
    alignas(64) float sums[4][kTileWords];
    _tile_zero(0);
    _tile_zero(1);
    _tile_zero(2);
    _tile_zero(3);
    const int64_t quarter = 16 * a.weight_stride;
    for (int64_t step = 0; step < x.steps; ++step, w += kTileDepth) {
        // The rows are too many streams for the hardware to follow; past the end the next strip begins.
        const int64_t k = step * kTileDepth + ahead;
        const bf16* soon = k < a.depth ? w + ahead : w + ahead - a.depth + 4 * quarter;
        for (int64_t j = 0; j < 64; ++j) _mm_prefetch(soon + j * a.weight_stride, _MM_HINT_T0);
        _tile_loadd(6, x.tile(block, step), x.width * 4);
        _tile_loadd(4, w, stride);
        _tile_dpbf16ps(0, 4, 6);
        _tile_loadd(5, w + quarter, stride);
        _tile_dpbf16ps(1, 5, 6);
        _tile_loadd(4, w + 2 * quarter, stride);
        _tile_dpbf16ps(2, 4, 6);
        _tile_loadd(5, w + 3 * quarter, stride);
        _tile_dpbf16ps(3, 5, 6);
    }
    _tile_stored(0, sums[0], x.width * 4);
    _tile_stored(1, sums[1], x.width * 4);
    _tile_stored(2, sums[2], x.width * 4);
    _tile_stored(3, sums[3], x.width * 4);
    const int64_t rows = a.rows - block * x.width < x.width ? a.rows - block * x.width : x.width;
    for (int q = 0; q < 4; ++q)
        put_tile(sums[q], x.width, rows, 16, static_cast<bf16*>(a.out) + block * x.width * a.out_stride + n + q * 16,
                 a.out_stride);
}

// 32 columns for two full blocks of rows.
void tiles_2x2(const LinearArgs& a, const PackedRows& x, int64_t n, int64_t block) {
    const bf16* w = static_cast<const bf16*>(a.weight) + n * a.weight_stride;
    const int64_t stride = a.weight_stride * 2;
    alignas(64) float sums[4][kTileWords];
    _tile_zero(0);
    _tile_zero(1);
    _tile_zero(2);
    _tile_zero(3);
    const int64_t half = 16 * a.weight_stride;
    for (int64_t step = 0; step < x.steps; ++step, w += kTileDepth) {
        _tile_loadd(4, w, stride);
        _tile_loadd(6, x.tile(block, step), 64);
        _tile_loadd(5, w + half, stride);
        _tile_loadd(7, x.tile(block + 1, step), 64);
        _tile_dpbf16ps(0, 4, 6);
        _tile_dpbf16ps(1, 5, 6);
        _tile_dpbf16ps(2, 4, 7);
        _tile_dpbf16ps(3, 5, 7);
    }
    _tile_stored(0, sums[0], 64);
    _tile_stored(1, sums[1], 64);
    _tile_stored(2, sums[2], 64);
    _tile_stored(3, sums[3], 64);
    bf16* out = static_cast<bf16*>(a.out) + block * 16 * a.out_stride + n;
    for (int q = 0; q < 4; ++q) {
        const int64_t row = q / 2 * 16;
        const int64_t rows = a.rows - block * 16 - row;
        put_tile(sums[q], 16, rows < 16 ? rows : 16, 16, out + row * a.out_stride + q % 2 * 16, a.out_stride);
    }
}

// Up to 16 columns for one block of rows where the matrix or a step of k ends.
void tiles_edge(const LinearArgs& a, const PackedRows& x, int64_t n, int64_t block) {
    const bf16* w = static_cast<const bf16*>(a.weight) + n * a.weight_stride;
    const int64_t columns = a.columns - n < 16 ? a.columns - n : 16;
    alignas(64) float sums[kTileWords];
    alignas(64) bf16 edge[16 * kTileDepth];
    _tile_zero(0);
    for (int64_t step = 0; step < x.steps; ++step) {
        copy_edge(w + step * kTileDepth, a.weight_stride, columns, a.depth - step * kTileDepth, edge);
        _tile_loadd(4, edge, 64);
        _tile_loadd(6, x.tile(block, step), x.width * 4);
        _tile_dpbf16ps(0, 4, 6);
    }
    _tile_stored(0, sums, x.width * 4);
    const int64_t rows = a.rows - block * x.width < x.width ? a.rows - block * x.width : x.width;
    put_tile(sums, x.width, rows, columns, static_cast<bf16*>(a.out) + block * x.width * a.out_stride + n,
             a.out_stride);
}

constexpr int64_t kAmxStrip = 64;

void dense_strip_amx(const LinearArgs& a, const PackedRows& x, int64_t n) {
    const int64_t blocks = ceil_div(a.rows, x.width);
    const int64_t end = n + kAmxStrip < a.columns ? n + kAmxStrip : a.columns;
    const bool whole = end - n == kAmxStrip && a.depth % kTileDepth == 0;
    Tiles tiles((1u << 4) | (1u << 5), static_cast<int>(x.width));
    int64_t block = 0;
    if (whole) {
        for (; block + 2 <= blocks; block += 2)
            for (int64_t c = n; c < end; c += 32) tiles_2x2(a, x, c, block);
        for (; block < blocks; ++block) tiles_4x1(a, x, n, block);
    }
    for (; block < blocks; ++block)
        for (int64_t c = n; c < end; c += 16) tiles_edge(a, x, c, block);
}

void dense_amx(Dtype dtype, const LinearArgs& a, int threads) {
    if (dtype == kF32) return dense(dtype, a, threads);
    const bf16* rows = static_cast<const bf16*>(a.x);
    PackedRows x{nullptr, ceil_div(a.depth, kTileDepth), 16};
    if (a.rows == 1 && a.depth % kTileDepth == 0) {
        // A single row is already [pair][1].
        x.words = reinterpret_cast<const uint32_t*>(rows);
        x.width = 1;
    } else {
        const int64_t blocks = ceil_div(a.rows, 16);
        uint32_t* packed = static_cast<uint32_t*>(scratch(kShared, blocks * x.steps * kTileWords * 4));
        for_each(blocks > 2 ? threads : 1, blocks, [&](int64_t b) {
            const int64_t count = a.rows - b * 16 < 16 ? a.rows - b * 16 : 16;
            pack_block(rows + b * 16 * a.x_stride, a.x_stride, count, a.depth, packed + b * x.steps * kTileWords);
        });
        x.words = packed;
    }
    for_each(threads, ceil_div(a.columns, kAmxStrip), [&](int64_t strip) { dense_strip_amx(a, x, strip * kAmxStrip); });
}

}  // namespace
}  // namespace llamakit::LEVEL
