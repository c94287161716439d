// Linear layers over packed weights: activations to bytes, then the product on the best unit of the level.
#pragma once
#include "packed.h"
#if defined(__AMX_INT8__)
#include "packed_amx.h"
#endif

namespace llamakit::LEVEL {
namespace {

// Fewer rows go to the vector units, which need neither tiles nor widened nibbles.
constexpr int64_t kTileMinRows = 4;

INLINE bool wants_tiles(int64_t rows) {
#if defined(__AMX_INT8__)
    return rows >= kTileMinRows;
#else
    (void)rows;
    return false;
#endif
}

// `x` must be tiled exactly when `wants_tiles(x.rows)`.
template <class Out>
void multiply(const PackedMatrix& w, const Activations& x, Out* out, int threads) {
#if defined(__AMX_INT8__)
    if (wants_tiles(x.rows)) return packed_product_amx(w, x, out, threads);
#endif
    packed_product(w, x, out, threads);
}

template <class T>
void packed_linear_of(const T* x, const PackedMatrix& w, T* out, int64_t rows, int threads) {
    void* memory = scratch(kShared, activation_bytes(rows, w.depth));
    const Activations a = cut_activations(memory, rows, w.depth, wants_tiles(rows));
    activate(x, w.depth, w.rotation, a, threads);
    multiply(w, a, out, threads);
}

void packed_linear(Dtype dtype, const void* x, const PackedMatrix& w, void* out, int64_t rows, int threads) {
    if (dtype == kF32) packed_linear_of(static_cast<const float*>(x), w, static_cast<float*>(out), rows, threads);
    else packed_linear_of(static_cast<const bf16*>(x), w, static_cast<bf16*>(out), rows, threads);
}

}  // namespace
}  // namespace llamakit::LEVEL
