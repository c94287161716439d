// Any rows times a grouped weight, on tiles or on vector units; which of them computes changes no bits of a row.
#pragma once
#include "grouped.h"
#if defined(__AMX_INT8__)
#include "grouped_amx.h"
#endif

namespace llamakit::LEVEL {
namespace {

#if defined(__AMX_INT8__)
constexpr int64_t kGroupedTileMinRows = 24;
template <int kBits, bool kMinima, class T>
void grouped_tiles(const GroupedMatrix& w, const GroupedRows& x, T* out, int threads) {
    const int64_t blocks = ceil_div(w.columns, 16), panel = grid_panel(blocks, threads), strips = ceil_div(blocks, panel);
    for_each(threads, strips * ceil_div(x.rows, kGroupedStream * 16), [&](int64_t task) {
        const int64_t row = task / strips * kGroupedStream * 16, first = task % strips * panel;
        const int64_t rows = x.rows - row < kGroupedStream * 16 ? x.rows - row : kGroupedStream * 16;
        const int64_t count = blocks - first < panel ? blocks - first : panel;
        grouped_many_rows<kBits, kMinima>(w, x, row, rows, first, count, out + row * w.columns + first * 16, w.columns);
    });
}
#endif

template <class T>
void grouped_linear_of(const T* x, const GroupedMatrix& w, T* out, int64_t rows, int threads) {
#if defined(__AMX_INT8__)
    const bool tiled = rows >= kGroupedTileMinRows;
#else
    const bool tiled = false;
#endif
    const GroupedRows made = cut_grouped(scratch(kShared, grouped_bytes(rows, w.depth, tiled)), rows, w.depth, tiled);
    put_grouped_rows(x, w, made, threads);
#if defined(__AMX_INT8__)
    if (tiled) {
        if (w.bits == 8 && w.minima) grouped_tiles<8, true>(w, made, out, threads);
        else if (w.bits == 8) grouped_tiles<8, false>(w, made, out, threads);
        else if (w.minima) grouped_tiles<4, true>(w, made, out, threads);
        else grouped_tiles<4, false>(w, made, out, threads);
        return;
    }
#endif
    if (w.bits == 8 && w.minima) grouped_product<8, true>(w, made, out, threads);
    else if (w.bits == 8) grouped_product<8, false>(w, made, out, threads);
    else if (w.minima) grouped_product<4, true>(w, made, out, threads);
    else grouped_product<4, false>(w, made, out, threads);
}

void grouped_linear(Dtype dtype, const void* x, const GroupedMatrix& w, void* out, int64_t rows, int threads) {
    if (dtype == kF32) grouped_linear_of(static_cast<const float*>(x), w, static_cast<float*>(out), rows, threads);
    else grouped_linear_of(static_cast<const bf16*>(x), w, static_cast<bf16*>(out), rows, threads);
}

}  // namespace
}  // namespace llamakit::LEVEL
