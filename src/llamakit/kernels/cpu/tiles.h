// Matrix tiles of Intel AMX: eight registers of 16 rows of 64 bytes, and the loops that keep their operands near.
//
// A product runs over a panel (16-column blocks of the weight) and a stream (16-row blocks of the activations). A pair of
// panel blocks meets all of the stream before the next one; long rows are worked on in several passes, and sums wait in
// memory in between. Reloading a sum continues it exactly, so an output has the same bits however many rows there are.
#pragma once
#include <immintrin.h>

#include "vec.h"

namespace llamakit::LEVEL {
namespace {

constexpr int64_t kTileBytes = 1024;

// GCC's tile intrinsics do not say that they read memory: without this, stores before them could be moved or dropped.
INLINE void settle_stores() { asm volatile("" ::: "memory"); }

struct alignas(64) TileConfig {
    uint8_t palette = 1, start_row = 0, reserved[14] = {};
    uint16_t column_bytes[16] = {};
    uint8_t rows[16] = {};
};

// Configures the tiles of this thread for as long as it lives. Registers 0-3 are sums, 4-5 left and 6-7 right operands.
class Tiles {
  public:
    // Left operands and sums have `rows` rows; right operands and sums are `words` columns of 4 bytes wide.
    explicit Tiles(int rows = 16, int words = 16) {
        TileConfig config;
        for (int i = 0; i < 8; ++i) {
            config.rows[i] = static_cast<uint8_t>(i >= 6 ? 16 : rows);
            config.column_bytes[i] = static_cast<uint16_t>(i == 4 || i == 5 ? 64 : words * 4);
        }
        asm volatile("" ::"r"(&config) : "memory");
        _tile_loadconfig(&config);
    }
    ~Tiles() { _tile_release(); }
    Tiles(const Tiles&) = delete;
    Tiles& operator=(const Tiles&) = delete;
};

INLINE void zero_sums() {
    settle_stores();
    _tile_zero(0);
    _tile_zero(1);
    _tile_zero(2);
    _tile_zero(3);
}
INLINE void load_sums(const void* from, int64_t stride = 64) {
    const char* p = static_cast<const char*>(from);
    settle_stores();
    _tile_loadd(0, p, stride);
    _tile_loadd(1, p + kTileBytes, stride);
    _tile_loadd(2, p + 2 * kTileBytes, stride);
    _tile_loadd(3, p + 3 * kTileBytes, stride);
}
INLINE void store_sums(void* to, int64_t stride = 64) {
    char* p = static_cast<char*>(to);
    _tile_stored(0, p, stride);
    _tile_stored(1, p + kTileBytes, stride);
    _tile_stored(2, p + 2 * kTileBytes, stride);
    _tile_stored(3, p + 3 * kTileBytes, stride);
}

// Steps of k worked on at a time: a pair of panel blocks (32 KiB) stays in the first-level cache, the stream in the
// second.
constexpr int64_t kNearSteps = 16;
// Largest task: its sums (512 KiB) and its stream (512 KiB) share the second-level cache.
constexpr int64_t kGridPanel = 16, kGridStream = 32;

// Blocks of columns a task takes: enough tasks for all threads, at most what fits the cache.
INLINE int64_t grid_panel(int64_t blocks, int threads) {
    const int64_t fair = ceil_div(blocks, static_cast<int64_t>(threads) * 4) / 2 * 2;
    return fair < 2 ? 2 : fair < kGridPanel ? fair : kGridPanel;
}

// The tiles of some steps of two panel blocks, and what is worth asking for meanwhile: `ahead` bytes at two places.
struct PanelTiles {
    const uint8_t *first, *second;
    const uint8_t *next = nullptr, *other_next = nullptr;
    int64_t ahead = 0;
};

// Sums of a task as [panel pair][stream pair][stream block][panel block] tiles; odd counts end in a block to ignore.
class TileGrid {
  public:
    TileGrid(void* sums, int64_t steps, int64_t panel, int64_t stream)
        : sums_(static_cast<char*>(sums)), steps_(steps), panel_(panel), stream_(stream) {}

    static size_t bytes(int64_t panel, int64_t stream) {
        return static_cast<size_t>((panel + 1) / 2 * ((stream + 1) / 2) * 4 * kTileBytes);
    }

    // `tiles(block, from, to)` gives those steps of the panel blocks `block` and block + 1. Stream block b begins at
    // stream + b * block_stride and has one tile a step. `put(panel block, stream block, tile)` takes the sums at the end,
    // all columns of a stream block together: so the result is written in long runs.
    template <class Mode, class Panel, class Put>
    void run(const Panel& tiles, const void* stream, int64_t block_stride, const Put& put) const {
        for (int64_t from = 0; from < steps_; from += kNearSteps) {
            const int64_t to = from + kNearSteps < steps_ ? from + kNearSteps : steps_;
            const char* a = static_cast<const char*>(stream) + from * kTileBytes;
            char* sums = sums_;
            for (int64_t p = 0; p < panel_; p += 2) {
                const PanelTiles near = tiles(p, from, to);
                int64_t asked = 0;
                for (int64_t s = 0; s < stream_; s += 2, sums += 4 * kTileBytes) {
                    const char* row = a + s * block_stride;
                    add_steps<Mode>(near, row, s + 1 < stream_ ? row + block_stride : row, to - from, sums, from == 0, asked);
                }
            }
        }
        const int64_t stream_pairs = (stream_ + 1) / 2;
        for (int64_t s = 0; s < stream_; ++s)
            for (int64_t p = 0; p < panel_; ++p)
                put(p, s, sums_ + ((p / 2 * stream_pairs + s / 2) * 4 + s % 2 * 2 + p % 2) * kTileBytes);
    }

  private:
    template <class Mode>
    INLINE static void add_steps(const PanelTiles& panel, const char* stream, const char* other, int64_t steps,
                                 void* sums, bool fresh, int64_t& asked) {
        if (fresh) zero_sums();
        else load_sums(sums);
        for (int64_t i = 0; i < steps * kTileBytes; i += kTileBytes) {
            if (asked < panel.ahead) {
                _mm_prefetch(reinterpret_cast<const char*>(panel.next) + asked, _MM_HINT_T1);
                _mm_prefetch(reinterpret_cast<const char*>(panel.other_next) + asked, _MM_HINT_T1);
                asked += 64;
            }
            Mode::step(panel.first + i, panel.second + i, stream + i, other + i);
        }
        store_sums(sums);
        settle_stores();
    }

    char* sums_;
    const int64_t steps_, panel_, stream_;
};

}  // namespace
}  // namespace llamakit::LEVEL
