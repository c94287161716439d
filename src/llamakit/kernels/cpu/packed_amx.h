// Products of byte activations with packed weights on AMX tiles.
//
// A step of a block, [16 k / 4][16 columns][4 k], is a right-hand tile as it lies in memory; 16 rows of activations
// are the left one. Nibbles are widened to bytes a few steps at a time, into the cache. Sums are the same integers as
// in packed.h.
#pragma once
#include "packed.h"
#include "tiles.h"

namespace llamakit::LEVEL {
namespace {

// Activations (signed) on the left, weights (with their offset, unsigned) on the right.
struct ByteTiles {
    static INLINE void step(const void* w, const void* w_other, const void* x, const void* x_other) {
        _tile_stream_loadd(4, x, 64);  // read once a pass: leaves the cache to the panel
        _tile_loadd(6, w, 64);
        _tile_dpbsud(0, 4, 6);
        _tile_loadd(7, w_other, 64);
        _tile_dpbsud(1, 4, 7);
        _tile_stream_loadd(5, x_other, 64);
        _tile_dpbsud(2, 5, 6);
        _tile_dpbsud(3, 5, 7);
    }
};

// Sums of rows [row, row + rows) to floats; each carries 128 * total too much. `out` points at the first of them.
template <class Out>
INLINE void put_sum_tile(const void* sums, const Activations& x, int64_t row, int64_t rows, const float* scales, Out* out,
                         int64_t out_stride, int64_t columns) {
    const Vec column_scales = load(scales);
    for (int64_t i = 0; i < 16 && i < rows; ++i) {
        const __m512i raw = _mm512_loadu_si512(static_cast<const int32_t*>(sums) + i * 16);
        const __m512i exact = _mm512_sub_epi32(raw, _mm512_set1_epi32(128 * x.totals[row + i]));
        const Vec y = mul(mul(_mm512_cvtepi32_ps(exact), column_scales), set1(x.scales[row + i]));
        if (columns >= 16) store(out + i * out_stride, y);
        else store_part(out + i * out_stride, y, columns);
    }
}

// Blocks [first, first + count) of a matrix as byte tiles: in place, or widened into `buffer` (2 * kNearSteps tiles).
class ByteBlocks {
  public:
    ByteBlocks(const Matrix& w, int64_t steps, int64_t first, int64_t count, uint8_t* buffer)
        : w_(w), steps_(steps), first_(first), count_(count), buffer_(buffer) {}

    PanelTiles operator()(int64_t block, int64_t from, int64_t to) const {
        const uint8_t* tiles = get(block, from, to, buffer_);
        const uint8_t* other = block + 1 < count_ ? get(block + 1, from, to, buffer_ + kNearSteps * kTileBytes) : tiles;
        // The next pair of blocks, or the first one's next steps.
        const int64_t size = w_.kind == Kind::kBytes ? kBlockBytes : kNibbleBytes;
        const bool same = block + 3 < count_;
        const int64_t soon = same ? (first_ + block + 2) * steps_ + from : first_ * steps_ + to;
        if (!same && to == steps_) return {tiles, other};
        return {tiles, other, w_.codes + soon * size, w_.codes + (soon + steps_) * size, (to - from) * size};
    }

    const uint8_t* get(int64_t block, int64_t from, int64_t to, uint8_t* buffer, int64_t ahead = 0) const {
        const int64_t tile = (first_ + block) * steps_ + from;
        if (w_.kind == Kind::kBytes) return w_.codes + tile * kBlockBytes;
        widen_steps(w_.codes + tile * kNibbleBytes, w_.multipliers + tile * 32, to - from, buffer, ahead);
        return buffer;
    }

  private:
    const Matrix& w_;
    const int64_t steps_, first_, count_;
    uint8_t* const buffer_;
};

// Steps that few rows widen at a time: so few that widening one piece and multiplying the last overlap.
constexpr int64_t kFewSteps = 2;
// Bytes that few rows ask for ahead of each run.
constexpr int64_t kNibblesAhead = 2048, kBytesAhead = 3 * kTileBytes;

// Up to 16 rows by four blocks from `first` on, each `apart` from the one before, or up to 32 rows by two; sums in
// registers throughout.
template <int kRowTiles, class Out>
INLINE void packed_few_blocks(const Matrix& w, const Activations& x, int64_t first, int64_t apart, Out* out,
                              int64_t out_stride) {
    constexpr int kBlocks = 4 / kRowTiles;
    alignas(64) int32_t sums[4][256];
    alignas(64) uint8_t buffer[kBlocks][kFewSteps * kTileBytes];
    const ByteBlocks blocks(w, x.steps, first, kBlocks * apart, nullptr);
    zero_sums();
    for (int64_t begin = 0; begin < x.steps; begin += kFewSteps) {
        const int64_t end = begin + kFewSteps < x.steps ? begin + kFewSteps : x.steps;
        const uint8_t* b[kBlocks];
        for (int i = 0; i < kBlocks; ++i) b[i] = blocks.get(i * apart, begin, end, buffer[i], kNibblesAhead);
        settle_stores();
        for (int64_t step = 0; step < end - begin; ++step) {
            const int8_t* rows = x.codes + (begin + step) * x.step_stride;
            if (w.kind == Kind::kBytes)
                for (const uint8_t* p : b)
                    for (int line = 0; line < kTileBytes; line += 64)
                        _mm_prefetch(p + step * kTileBytes + kBytesAhead + line, _MM_HINT_T0);
            if constexpr (kRowTiles == 1) {
                _tile_loadd(4, rows, kStep);
                _tile_loadd(6, b[0] + step * kTileBytes, 64);
                _tile_dpbsud(0, 4, 6);
                _tile_loadd(7, b[1] + step * kTileBytes, 64);
                _tile_dpbsud(1, 4, 7);
                _tile_loadd(6, b[kBlocks - 2] + step * kTileBytes, 64);
                _tile_dpbsud(2, 4, 6);
                _tile_loadd(7, b[kBlocks - 1] + step * kTileBytes, 64);
                _tile_dpbsud(3, 4, 7);
            } else {
                ByteTiles::step(b[0] + step * kTileBytes, b[1] + step * kTileBytes, rows, rows + x.block_stride);
            }
        }
    }
    store_sums(sums);
    for (int i = 0; i < 4; ++i) {
        const int64_t row = i / kBlocks * 16, block = i % kBlocks * apart;
        put_sum_tile(sums[i], x, row, x.rows - row, w.scales + (first + block) * 16, out + row * out_stride + block * 16,
                     out_stride, w.columns - (first + block) * 16);
    }
}

// Up to 16 or 32 rows by `count` consecutive blocks, in runs that are read side by side; see packed.h.
template <int kRowTiles, class Out>
void packed_few_rows(const Matrix& w, const Activations& x, int64_t first, int64_t count, Out* out, int64_t out_stride) {
    const int64_t run = count * kRowTiles / 4;
    Tiles tiles(kRowTiles == 1 ? static_cast<int>(x.rows) : 16);
    for (int64_t i = 0; i < run; ++i) packed_few_blocks<kRowTiles>(w, x, first + i, run, out + i * 16, out_stride);
}

// Up to kGridStream blocks of rows from `row` on by `count` blocks of columns.
template <class Out>
void packed_many_rows(const Matrix& w, const Activations& x, int64_t row, int64_t rows, int64_t first, int64_t count,
                      Out* out, int64_t out_stride) {
    const int64_t stream = ceil_div(rows, 16);
    const size_t near_bytes = 2 * kNearSteps * kTileBytes;
    uint8_t* buffer = static_cast<uint8_t*>(scratch(kPerProduct, near_bytes + TileGrid::bytes(count, stream)));
    const TileGrid grid(buffer + near_bytes, x.steps, count, stream);
    Tiles tiles;
    grid.run<ByteTiles>(ByteBlocks(w, x.steps, first, count, buffer), x.codes + row / 16 * x.block_stride, x.block_stride,
                        [&](int64_t p, int64_t s, const void* sums) {
                            put_sum_tile(sums, x, row + s * 16, rows - s * 16, w.scales + (first + p) * 16,
                                         out + s * 16 * out_stride + p * 16, out_stride, w.columns - (first + p) * 16);
                        });
}

}  // namespace
}  // namespace llamakit::LEVEL
