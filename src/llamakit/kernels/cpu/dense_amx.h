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
struct PackedRows {
    const uint32_t* words;
    int64_t steps, width;
    const uint32_t* tile(int64_t block, int64_t step) const { return words + (block * steps + step) * 16 * width; }
};

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
void dense_few_rows(const LinearArgs& a, const PackedRows& x, int64_t n) {
    const bf16* w = static_cast<const bf16*>(a.weight) + n * a.weight_stride;
    const int64_t stride = a.weight_stride * 2, quarter = 16 * a.weight_stride, ahead = 8 * kPairStep;
    alignas(64) float sums[4][256];
    zero_sums();
    for (int64_t step = 0; step < x.steps; ++step, w += kPairStep) {
        // The rows are too many streams for the hardware to follow; past their end the next 64 begin.
        const bf16* soon = step * kPairStep + ahead < a.depth ? w + ahead : w + ahead - a.depth + 4 * quarter;
        for (int64_t j = 0; j < 64; ++j) _mm_prefetch(soon + j * a.weight_stride, _MM_HINT_T0);
        _tile_loadd(6, x.tile(0, step), x.width * 4);
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
    for (int q = 0; q < 4; ++q)
        put_tile(sums[q], x.width, a.rows, 16, static_cast<bf16*>(a.out) + n + q * 16, a.out_stride);
}

// 32 columns for all rows, two blocks of them at a time, sums in registers and weights in place.
void dense_some_rows(const LinearArgs& a, const PackedRows& x, int64_t n) {
    const bf16* weight = static_cast<const bf16*>(a.weight) + n * a.weight_stride;
    const int64_t stride = a.weight_stride * 2, half = 16 * a.weight_stride, blocks = ceil_div(a.rows, 16);
    alignas(64) float sums[4][256];
    for (int64_t block = 0; block < blocks; block += 2) {
        const int64_t other = block + 1 < blocks ? block + 1 : block;
        const bf16* w = weight;
        zero_sums();
        for (int64_t step = 0; step < x.steps; ++step, w += kPairStep) {
            _tile_loadd(4, w, stride);
            _tile_loadd(6, x.tile(block, step), 64);
            _tile_loadd(5, w + half, stride);
            _tile_loadd(7, x.tile(other, step), 64);
            _tile_dpbf16ps(0, 4, 6);
            _tile_dpbf16ps(1, 5, 6);
            _tile_dpbf16ps(2, 4, 7);
            _tile_dpbf16ps(3, 5, 7);
        }
        store_sums(sums);
        for (int q = 0; q < 4; ++q) {
            const int64_t row = (block + q / 2) * 16;
            put_tile(sums[q], 16, a.rows - row, 16, static_cast<bf16*>(a.out) + row * a.out_stride + n + q % 2 * 16,
                     a.out_stride);
        }
    }
}

// The weight's columns [n, n + columns) as left-hand tiles, [block][step]. Copied all at once, row by row: long runs
// are what memory is good at, and products between them would break the runs.
void copy_panel(const LinearArgs& a, int64_t n, int64_t columns, int64_t steps, uint8_t* to) {
    for (int64_t j = 0; j < round_up(columns, 16); ++j) {
        const bf16* w = static_cast<const bf16*>(a.weight) + (n + j) * a.weight_stride;
        float* row = reinterpret_cast<float*>(to + j / 16 * steps * kTileBytes + j % 16 * 64);
        for (int64_t step = 0; step < steps; ++step, row += kTileBytes / 4)
            store(row, j < columns ? row_piece(w + step * kPairStep, a.depth - step * kPairStep) : zero());
    }
}

// Any rows from a block on by the columns [n, n + columns).
void dense_many_rows(const LinearArgs& a, const PackedRows& x, int64_t n, int64_t columns, int64_t row_block) {
    const int64_t blocks = ceil_div(a.rows, 16) - row_block, stream = blocks < kGridStream ? blocks : kGridStream;
    const int64_t panel = ceil_div(columns, 16), panel_bytes = panel * x.steps * kTileBytes;
    uint8_t* copy = static_cast<uint8_t*>(scratch(kPerTask, panel_bytes + TileGrid::bytes(panel, stream)));
    copy_panel(a, n, columns, x.steps, copy);
    const TileGrid grid(copy + panel_bytes, panel, stream);
    const auto tiles = [&](int64_t block, int64_t from, int64_t) {
        const uint8_t* first = copy + (block * x.steps + from) * kTileBytes;
        return PanelTiles{first, block + 1 < panel ? first + x.steps * kTileBytes : first};
    };
    grid.run<PairTiles>(x.steps, tiles, x.tile(row_block, 0), x.steps * kTileBytes);
    for (int64_t s = 0; s < stream; ++s) {
        const int64_t row = (row_block + s) * 16;
        for (int64_t p = 0; p < panel; ++p)
            put_tile(grid.tile(p, s), 16, a.rows - row, columns - p * 16,
                     static_cast<bf16*>(a.out) + row * a.out_stride + n + p * 16, a.out_stride);
    }
}

void dense_amx(Dtype dtype, const LinearArgs& a, int threads) {
    if (dtype == kF32) return dense(dtype, a, threads);
    const bf16* rows = static_cast<const bf16*>(a.x);
    PackedRows x{reinterpret_cast<const uint32_t*>(rows), ceil_div(a.depth, kPairStep), 1};
    const bool whole = a.columns % 64 == 0 && a.depth % kPairStep == 0;
    if (a.rows > 1 || !whole) {  // A single whole row is already [pair][1].
        x.width = 16;
        const int64_t blocks = ceil_div(a.rows, 16);
        uint32_t* packed = static_cast<uint32_t*>(scratch(kShared, blocks * x.steps * kTileBytes));
        for_each(blocks > 2 ? threads : 1, blocks, [&](int64_t b) {
            const int64_t count = a.rows - b * 16 < 16 ? a.rows - b * 16 : 16;
            pack_block(rows + b * 16 * a.x_stride, a.x_stride, count, a.depth, packed + b * x.steps * 256);
        });
        x.words = packed;
    }
    if (a.rows <= 16 && whole) {
        for_each(threads, a.columns / 64, [&](int64_t strip) {
            Tiles tiles(16, static_cast<int>(x.width));
            dense_few_rows(a, x, strip * 64);
        });
        return;
    }
    if (a.rows <= 128 && whole) {
        for_each(threads, a.columns / 32, [&](int64_t strip) {
            Tiles tiles;
            dense_some_rows(a, x, strip * 32);
        });
        return;
    }
    const int64_t panel = grid_panel(ceil_div(a.columns, 16), threads) * 16, panels = ceil_div(a.columns, panel);
    const int64_t streams = ceil_div(ceil_div(a.rows, 16), kGridStream);
    for_each(threads, panels * streams, [&](int64_t task) {
        const int64_t n = task % panels * panel;
        Tiles tiles;
        dense_many_rows(a, x, n, a.columns - n < panel ? a.columns - n : panel, task / panels * kGridStream);
    });
}

}  // namespace
}  // namespace llamakit::LEVEL
