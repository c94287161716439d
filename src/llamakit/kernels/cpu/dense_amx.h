// bf16 products on AMX tiles, weights as they lie in the checkpoint.
//
// The weight is the left operand: 16 of its rows by 32 values are one tile, read in place for few rows and copied
// together for many. The activations are the right operand, repacked once a call to [k / 2][16 rows] pairs. A sum tile
// holds [16 columns][16 rows] of the result and takes the steps of k in order, so an output depends on its own row and
// column only.
#pragma once
#include "dense.h"
#include "tiles.h"

namespace llamakit::LEVEL {
namespace {

constexpr int64_t kPairStep = 32;  // bf16 values in 64 bytes

struct PairTiles {
    static INLINE void step(const void* w, const void* w_other, const void* x, const void* x_other) {
        _tile_loadd(4, w, 64);
        _tile_stream_loadd(6, x, 64);  // read once a pass: leaves the cache to the panel
        _tile_dpbf16ps(0, 4, 6);
        _tile_loadd(5, w_other, 64);
        _tile_dpbf16ps(1, 5, 6);
        _tile_stream_loadd(7, x_other, 64);
        _tile_dpbf16ps(2, 4, 7);
        _tile_dpbf16ps(3, 5, 7);
    }
};

// Activations as right-hand tiles: [row block][step][pair][row], `width` rows a block, zero beyond `rows`.
struct PairRows {
    const uint32_t* words;
    int64_t rows, steps, width;
};
INLINE const uint32_t* tile_of(const PairRows& x, int64_t block, int64_t step) {
    return x.words + (block * x.steps + step) * 16 * x.width;
}

// 64 bytes of a row, zeros behind its `left` values. An odd last value is paired with zero.
INLINE Vec row_piece(const bf16* row, int64_t left) {
    if (left >= kPairStep) return load(reinterpret_cast<const float*>(row));
    return from_bits(_mm512_maskz_loadu_epi16(static_cast<__mmask32>((1u << left) - 1), row));
}

// One block of up to 16 rows.
void pack_block(const bf16* x, int64_t x_stride, int64_t rows, int64_t depth, uint32_t* to) {
    for (int64_t k = 0; k < depth; k += kPairStep, to += 256) {
        Vec r[16];
        for (int64_t i = 0; i < 16; ++i) r[i] = i < rows ? row_piece(x + i * x_stride + k, depth - k) : zero();
        transpose(r);
        for (int i = 0; i < 16; ++i) store(reinterpret_cast<float*>(to) + i * 16, r[i]);
    }
}

// A sum tile [column][row], `width` rows wide, to out[row][column].
void put_tile(const void* tile, int64_t width, int64_t rows, int64_t columns, bf16* out, int64_t out_stride) {
    const float* sums = static_cast<const float*>(tile);
    if (width == 1) {
        if (columns >= 16) store(out, load(sums));
        else store_part(out, load(sums), columns);
        return;
    }
    Vec r[16];
    for (int i = 0; i < 16; ++i) r[i] = load(sums + i * 16);
    transpose(r);
    for (int64_t i = 0; i < rows && i < 16; ++i) {
        if (columns >= 16) store(out + i * out_stride, r[i]);
        else store_part(out + i * out_stride, r[i], columns);
    }
}

// 64 columns for up to 16 rows, sums in registers and weights in place.
void dense_few_rows(const Matrix& m, const PairRows& x, int64_t column, bf16* out, int64_t out_stride) {
    const bf16 *weight = static_cast<const bf16*>(m.dense) + column * m.stride, *w = weight;
    const int64_t stride = m.stride * 2, quarter = 16 * m.stride;
    alignas(64) float sums[4][256];
    Tiles tiles(16, static_cast<int>(x.width));
    zero_sums();
    for (int64_t step = 0; step < x.steps; ++step, w += kPairStep) {
        // The rows are too many streams for the hardware to follow, so they are asked for: a quarter of them at a time, four
        // steps of each, so that memory is read in longer runs. Past their end the next 64 rows begin. They wait in the
        // second-level cache: in the first all would fall into the same few places.
        const int64_t soon = (step / 4 + 3) * 4 * kPairStep, row = step % 4 * 16;
        const bf16* runs = soon < m.depth ? weight + soon : weight + soon - m.depth + 4 * quarter;
        for (int64_t j = row; j < row + 16; ++j)
            for (int64_t line = 0; line < 4; ++line) _mm_prefetch(runs + j * m.stride + line * kPairStep, _MM_HINT_T1);
        _tile_loadd(6, tile_of(x, 0, step), x.width * 4);
        _tile_loadd(4, w, stride);
        _tile_dpbf16ps(0, 4, 6);
        _tile_loadd(5, w + quarter, stride);
        _tile_dpbf16ps(1, 5, 6);
        _tile_loadd(4, w + 2 * quarter, stride);
        _tile_dpbf16ps(2, 4, 6);
        _tile_loadd(5, w + 3 * quarter, stride);
        _tile_dpbf16ps(3, 5, 6);
    }
    store_sums(sums, x.width * 4);
    for (int q = 0; q < 4; ++q) put_tile(sums[q], x.width, x.rows, 16, out + q * 16, out_stride);
}

// 32 columns for all rows, two blocks of them at a time, sums in registers and weights in place.
void dense_some_rows(const Matrix& m, const PairRows& x, int64_t column, bf16* out, int64_t out_stride) {
    const bf16* weight = static_cast<const bf16*>(m.dense) + column * m.stride;
    const int64_t stride = m.stride * 2, half = 16 * m.stride, blocks = ceil_div(x.rows, 16);
    alignas(64) float sums[4][256];
    Tiles tiles;
    for (int64_t block = 0; block < blocks; block += 2) {
        const int64_t other = block + 1 < blocks ? block + 1 : block;
        const bf16* w = weight;
        zero_sums();
        for (int64_t step = 0; step < x.steps; ++step, w += kPairStep) {
            _tile_loadd(4, w, stride);
            _tile_loadd(6, tile_of(x, block, step), 64);
            _tile_loadd(5, w + half, stride);
            _tile_loadd(7, tile_of(x, other, step), 64);
            _tile_dpbf16ps(0, 4, 6);
            _tile_dpbf16ps(1, 5, 6);
            _tile_dpbf16ps(2, 4, 7);
            _tile_dpbf16ps(3, 5, 7);
        }
        store_sums(sums);
        for (int q = 0; q < 4; ++q) {
            const int64_t row = (block + q / 2) * 16;
            put_tile(sums[q], 16, x.rows - row, 16, out + row * out_stride + q % 2 * 16, out_stride);
        }
    }
}

// The weight's columns [first, first + count) as left-hand tiles, [block][step]. Copied all at once, row by row: long
// runs are what memory is good at, and products between them would break the runs.
void copy_panel(const Matrix& m, int64_t first, int64_t count, int64_t steps, uint8_t* to) {
    for (int64_t j = 0; j < round_up(count, 16); ++j) {
        const bf16* w = static_cast<const bf16*>(m.dense) + (first + j) * m.stride;
        float* row = reinterpret_cast<float*>(to + j / 16 * steps * kTileBytes + j % 16 * 64);
        for (int64_t step = 0; step < steps; ++step, row += kTileBytes / 4)
            store(row, j < count ? row_piece(w + step * kPairStep, m.depth - step * kPairStep) : zero());
    }
}

// The columns [column, column + columns) for up to kGridStream blocks of rows from `row` on.
void dense_many_rows(const Matrix& m, const PairRows& x, int64_t row, int64_t rows, int64_t column, int64_t columns,
                     bf16* out, int64_t out_stride) {
    const int64_t stream = ceil_div(rows, 16), panel = ceil_div(columns, 16), bytes = panel * x.steps * kTileBytes;
    uint8_t* copy = static_cast<uint8_t*>(scratch(kPerProduct, bytes + TileGrid::bytes(panel, stream)));
    copy_panel(m, column, columns, x.steps, copy);
    const TileGrid grid(copy + bytes, x.steps, panel, stream);
    const auto panel_tiles = [&](int64_t block, int64_t from, int64_t) {
        const uint8_t* first = copy + (block * x.steps + from) * kTileBytes;
        return PanelTiles{first, block + 1 < panel ? first + x.steps * kTileBytes : first};
    };
    Tiles tiles;
    grid.run<PairTiles>(panel_tiles, tile_of(x, row / 16, 0), x.steps * kTileBytes,
                        [&](int64_t p, int64_t s, const void* sums) {
                            put_tile(sums, 16, rows - s * 16, columns - p * 16, out + s * 16 * out_stride + p * 16, out_stride);
                        });
}

}  // namespace
}  // namespace llamakit::LEVEL
