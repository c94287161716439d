// Products of grouped weights on AMX tiles.
//
// Tiles compute the sums of a group, vector units scale them and add them to the groups before. A processor that has
// tiles in flight runs float operations on one port instead of two, so these are what counts: two fused operations for
// 16 sums (see `kWholeBits`), while the next tiles are loaded, multiplied and stored beside them. The floats are those
// of grouped.h, in the same order.
#pragma once
#include "grouped.h"
#include "tiles.h"

namespace llamakit::LEVEL {
namespace {

constexpr int64_t kGroupTile = 16 * kGroup;  // bytes of a group of 16 rows, or of 16 columns
constexpr int64_t kUnitTiles = 2 * kTileGroups;
// Groups of k worked on in a pass: a pair of panel blocks stays in the first-level cache where many rows meet it.
constexpr int64_t kNearGroups = 16, kFarGroups = 64;

// Registers 0-1 are sums, 2 a group of columns and 4-7 groups of rows, which two blocks of columns meet.
class GroupTiles {
  public:
    GroupTiles() {
        TileConfig config;
        for (int i = 0; i < 8; ++i) {
            config.rows[i] = i == 2 || i == 3 ? 8 : 16;
            config.column_bytes[i] = i >= 4 ? kGroup : 64;
        }
        asm volatile("" ::"r"(&config) : "memory");
        _tile_loadconfig(&config);
    }
    ~GroupTiles() { _tile_release(); }
    GroupTiles(const GroupTiles&) = delete;
    GroupTiles& operator=(const GroupTiles&) = delete;
};

// Some groups of a block of columns, ready for tiles; zeros behind the last one.
template <bool kMinima>
struct PanelBlock {
    alignas(64) int8_t codes[kFarGroups][kGroupTile];
    alignas(64) float scales[kFarGroups][16];
    alignas(64) float wholes[kFarGroups][16];  // -kWhole * scale
    alignas(64) float minima[kMinima ? kFarGroups : 1][16];
};

template <class Form>
INLINE void fill_panel(const Matrix& w, int64_t block, int64_t from, int64_t to, PanelBlock<Form::kMinima>& panel) {
    constexpr int kBits = Form::kBits;
    constexpr bool kMinima = Form::kMinima;
    const int64_t first = block * (w.depth / kGroup) * kGroupColumns;
    const uint16_t *scales = w.halves + first, *minima = kMinima ? w.minima + first : nullptr;
    const uint8_t* codes = w.codes + first * kGroup * kBits / 8;
    constexpr int64_t kBytes = kGroupTile * kBits / 8;
    const __m512i zero_code = _mm512_set1_epi8(static_cast<char>(Form::kZero));
    for (int64_t g = from; g < to; ++g) {
        int8_t* wide = panel.codes[g - from];
        const uint8_t* stored = codes + g * kBytes;
        for (int64_t line = 0; line < kBytes; line += 64) {
            const __m512i both = _mm512_loadu_si512(stored + line);
            __builtin_prefetch(stored + line + 2048);
            if constexpr (kBits == 8) {
                _mm512_store_si512(wide + line, _mm512_xor_si512(both, zero_code));
            } else {
                _mm512_store_si512(wide + line, _mm512_sub_epi8(low_nibbles(both), zero_code));
                _mm512_store_si512(wide + 256 + line, _mm512_sub_epi8(high_nibbles(both), zero_code));
            }
        }
        Vec found[1];
        load_halves(scales + g * 16, found);
        store(panel.scales[g - from], found[0]);
        store(panel.wholes[g - from], mul(found[0], set1(-kWhole)));
        if constexpr (kMinima) {
            load_halves(minima + g * 16, found);
            store(panel.minima[g - from], found[0]);
        }
    }
    for (int64_t g = to - from; g % kTileGroups; ++g) {
        memset(panel.codes[g], 0, kGroupTile);
        store(panel.scales[g], zero());
        store(panel.wholes[g], zero());
        if constexpr (kMinima) store(panel.minima[g], zero());
    }
}

// kTileGroups groups of 16 rows, which meet two blocks of columns: tiles are [block][group][16 rows][16 columns].
struct GroupUnit {
    const int8_t* rows;
    const float *scales, *offsets;  // of the rows: [group][16]
    int64_t group;                  // of the panel
    const float* before;            // what the groups before have come to: [block][16 rows][16 columns]
    float* added;                   // where that goes with these
};

// Multiplies one tile of a unit and stores the one of the step before, which had the time until now.
template <int kTile, bool kMinima>
INLINE void multiply_tile(const GroupUnit& u, const PanelBlock<kMinima>* panel, int32_t* sums) {
    constexpr int64_t kGroupOfTile = kTile % kTileGroups;
    const int8_t *columns = panel[kTile / kTileGroups].codes[u.group + kGroupOfTile], *rows = u.rows + kGroupOfTile * kGroupTile;
    int32_t* last = sums + (kTile + kUnitTiles - 1) % kUnitTiles * 256;
    if constexpr (kTile == 0) _tile_loadd(4, rows, kGroup);
    if constexpr (kTile == 1) _tile_loadd(5, rows, kGroup);
    if constexpr (kTile == 2) _tile_loadd(6, rows, kGroup);
    if constexpr (kTile == 3) _tile_loadd(7, rows, kGroup);
    _tile_loadd(2, columns, 64);
    if constexpr (kTile % 2 == 0) {
        _tile_zero(0);
        if constexpr (kGroupOfTile == 0) _tile_dpbssd(0, 4, 2);
        else _tile_dpbssd(0, 6, 2);
        _tile_stored(1, last, 64);
    } else {
        _tile_zero(1);
        if constexpr (kGroupOfTile == 1) _tile_dpbssd(1, 5, 2);
        else _tile_dpbssd(1, 7, 2);
        _tile_stored(0, last, 64);
    }
    settle_stores();
}

template <int kTile, bool kMinima>
INLINE void scale_tile(const GroupUnit& u, const PanelBlock<kMinima>* panel, const int32_t* sums, Vec (&acc)[16]) {
    constexpr int64_t kGroupOfTile = kTile % kTileGroups;
    const PanelBlock<kMinima>& block = panel[kTile / kTileGroups];
    const Vec scale = load(block.scales[u.group + kGroupOfTile]), whole = load(block.wholes[u.group + kGroupOfTile]);
    const Vec least = kMinima ? load(block.minima[u.group + kGroupOfTile]) : zero();
    const float *scales = u.scales + kGroupOfTile * 16, *offsets = u.offsets + kGroupOfTile * 16;
    UNROLL for (int i = 0; i < 16; ++i) {
        const __m512i sum = _mm512_add_epi32(_mm512_set1_epi32(kWholeBits), _mm512_load_si512(sums + kTile * 256 + i * 16));
        acc[i] = fma(scaled_sum(from_bits(sum), scale, whole), set1(scales[i]), acc[i]);
        if constexpr (kMinima) acc[i] = fma(least, set1(offsets[i]), acc[i]);
    }
}

template <bool kMultiply, bool kScale, int kTile, bool kMinima>
INLINE void run_tile(const GroupUnit& unit, const GroupUnit& before, const PanelBlock<kMinima>* panel, int32_t* sums,
                     Vec (&acc)[16]) {
    if constexpr (kMultiply) multiply_tile<kTile>(unit, panel, sums);
    if constexpr (kScale) scale_tile<kTile>(before, panel, sums, acc);
}

template <bool kMultiply, bool kScale, int kBlock, bool kMinima>
INLINE void run_block(const GroupUnit& unit, const GroupUnit& before, const PanelBlock<kMinima>* panel, int32_t* sums) {
    constexpr int kFirst = kBlock * kTileGroups;
    Vec acc[16];
    if constexpr (kScale) UNROLL for (int i = 0; i < 16; ++i) acc[i] = load(before.before + kBlock * 256 + i * 16);
    run_tile<kMultiply, kScale, kFirst>(unit, before, panel, sums, acc);
    run_tile<kMultiply, kScale, kFirst + 1>(unit, before, panel, sums, acc);
    run_tile<kMultiply, kScale, kFirst + 2>(unit, before, panel, sums, acc);
    run_tile<kMultiply, kScale, kFirst + 3>(unit, before, panel, sums, acc);
    if constexpr (kScale) UNROLL for (int i = 0; i < 16; ++i) store(before.added + kBlock * 256 + i * 16, acc[i]);
}

// Multiplies a unit, and beside it scales and adds the sums of the unit before: each tile makes room for the next one's.
template <bool kMultiply, bool kScale, bool kMinima>
INLINE void run_unit(const GroupUnit& unit, const GroupUnit& before, const PanelBlock<kMinima>* panel, int32_t* sums) {
    run_block<kMultiply, kScale, 0>(unit, before, panel, sums);
    run_block<kMultiply, kScale, 1>(unit, before, panel, sums);
}

alignas(64) constexpr float kNothing[512] = {};

// Up to kGridStream blocks of rows from `row` on, a multiple of 16, by `count` blocks of columns.
template <class Form, class T>
void grouped_many_rows(const Matrix& w, const GroupedRows& x, int64_t row, int64_t rows, int64_t first,
                       int64_t count, T* out, int64_t out_stride) {
    using Panel = PanelBlock<Form::kMinima>;
    const int64_t stream = ceil_div(rows, 16), pairs = ceil_div(count, 2), near = stream < 4 ? kFarGroups : kNearGroups;
    const size_t fixed = 2 * sizeof(Panel) + kUnitTiles * kTileBytes;
    char* memory = static_cast<char*>(scratch(kPerProduct, fixed + static_cast<size_t>(pairs * stream * 2 * kTileBytes)));
    Panel* panel = reinterpret_cast<Panel*>(memory);
    int32_t* sums = reinterpret_cast<int32_t*>(memory + 2 * sizeof(Panel));
    float* added = reinterpret_cast<float*>(memory + fixed);
    GroupTiles tiles;
    for (int64_t from = 0; from < x.groups; from += near) {
        const int64_t to = from + near < x.groups ? from + near : x.groups;
        const int64_t quads = ceil_div(to - from, kTileGroups), units = stream * quads;
        const int64_t start = row / 16 * x.block_stride + from * 16;
        for (int64_t p = 0; p < pairs; ++p) {
            fill_panel<Form>(w, first + 2 * p, from, to, panel[0]);
            if (2 * p + 1 < count) fill_panel<Form>(w, first + 2 * p + 1, from, to, panel[1]);
            settle_stores();
            const auto unit = [&](int64_t s, int64_t quad) {
                const int64_t place = start + s * x.block_stride + quad * kTileGroups * 16;
                float* to_add = added + (s * pairs + p) * 512;
                return GroupUnit{x.codes + place * kGroup, x.scales + place, x.offsets + place, quad * kTileGroups,
                                 from == 0 && quad == 0 ? kNothing : to_add, to_add};
            };
            run_unit<true, false>(unit(0, 0), unit(0, 0), panel, sums);
            int64_t s = 0, quad = 0;
            for (int64_t i = 1; i < units; ++i) {
                const GroupUnit before = unit(s, quad);
                if (++quad == quads) {
                    quad = 0;
                    ++s;
                }
                run_unit<true, true>(unit(s, quad), before, panel, sums);
            }
            _tile_stored(1, sums + (kUnitTiles - 1) * 256, 64);
            settle_stores();
            run_unit<false, true>(unit(s, quad), unit(s, quad), panel, sums);
        }
    }
    for (int64_t r = 0; r < rows; ++r)
        for (int64_t b = 0; b < count; ++b) {
            const int64_t left = w.columns - (first + b) * 16;
            const float* from = added + ((r / 16 * pairs + b / 2) * 2 + b % 2) * 256 + r % 16 * 16;
            set(out + r * out_stride + b * 16, load(from), left < 16 ? static_cast<int>(left) : 16);
        }
}

}  // namespace
}  // namespace llamakit::LEVEL
