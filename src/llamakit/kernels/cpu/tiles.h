// Matrix tiles of Intel AMX: eight registers of 16 rows of 64 bytes.
#pragma once
#include <immintrin.h>

#include "vec.h"

namespace llamakit::LEVEL {
namespace {

// Registers 0-3 sum, 4-5 and 6-7 hold operands; `width` is the number of 4-byte columns of the right operand.
struct alignas(64) TileConfig {
    uint8_t palette = 1, start_row = 0, reserved[14] = {};
    uint16_t column_bytes[16] = {};
    uint8_t rows[16] = {};
};

// Configures the tiles of this thread for as long as it lives.
class Tiles {
  public:
    // Left operands are 16 x 64 bytes (registers `left`, a bit mask), all others 16 rows of `width` words.
    Tiles(unsigned left, int width) {
        TileConfig config;
        for (int i = 0; i < 8; ++i) {
            config.rows[i] = 16;
            config.column_bytes[i] = static_cast<uint16_t>((left >> i & 1) ? 64 : width * 4);
        }
        _tile_loadconfig(&config);
    }
    ~Tiles() { _tile_release(); }
    Tiles(const Tiles&) = delete;
    Tiles& operator=(const Tiles&) = delete;
};

}  // namespace
}  // namespace llamakit::LEVEL
