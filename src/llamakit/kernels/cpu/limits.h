// What a level can do at best: products out of registers, and a plain read of memory. Kernels are measured by these.
#pragma once
#include "ints.h"
#include "level.h"
#include "pool.h"
#if defined(__AMX_INT8__)
#include "tiles.h"
#endif

namespace llamakit::LEVEL {
namespace {

constexpr int kChains = 12;  // sums at a time: enough to hide the latency of an addition, few enough for registers

// What `memory` holds is unknown from here on: nothing computed from it can be moved out of a loop or left out.
INLINE void forget(void* memory) { asm volatile("" ::"r"(memory) : "memory"); }

inline int64_t float_work(int64_t rounds) {
    alignas(64) float seed[kLanes] = {};
    Vec sums[kChains];
    UNROLL for (int j = 0; j < kChains; ++j) sums[j] = set1(static_cast<float>(j));
    for (int64_t r = 0; r < rounds; ++r) {
        forget(seed);
        const Vec a = load(seed);
        UNROLL for (int j = 0; j < kChains; ++j) sums[j] = fma(a, a, sums[j]);
    }
    UNROLL for (int j = 1; j < kChains; ++j) sums[0] = add(sums[0], sums[j]);
    store(seed, sums[0]);
    forget(seed);
    return rounds * kChains * kLanes * 2;
}

#if defined(__AMX_INT8__)
template <class Step>
INLINE int64_t tile_work(int64_t rounds, int values, Step&& step) {
    alignas(64) uint8_t zeros[kTileBytes] = {};
    Tiles tiles;
    zero_sums();
    _tile_loadd(4, zeros, 64);
    _tile_loadd(5, zeros, 64);
    _tile_loadd(6, zeros, 64);
    _tile_loadd(7, zeros, 64);
    for (int64_t r = 0; r < rounds; ++r) step();
    return rounds * 4 * 16 * 16 * values * 2;
}
#endif

inline int64_t half_work(int64_t rounds) {
#if defined(__AMX_BF16__)
    return tile_work(rounds, 32, [] {
        _tile_dpbf16ps(0, 4, 6);
        _tile_dpbf16ps(1, 4, 7);
        _tile_dpbf16ps(2, 5, 6);
        _tile_dpbf16ps(3, 5, 7);
    });
#elif defined(__AVX512BF16__)
    alignas(64) float seed[kLanes] = {};
    Vec sums[kChains];
    UNROLL for (int j = 0; j < kChains; ++j) sums[j] = set1(static_cast<float>(j));
    for (int64_t r = 0; r < rounds; ++r) {
        forget(seed);
        const __m512bh a = (__m512bh)bits(load(seed));
        UNROLL for (int j = 0; j < kChains; ++j) sums[j] = _mm512_dpbf16_ps(sums[j], a, a);
    }
    UNROLL for (int j = 1; j < kChains; ++j) sums[0] = add(sums[0], sums[j]);
    store(seed, sums[0]);
    forget(seed);
    return rounds * kChains * kLanes * 4;
#else
    return float_work(rounds);
#endif
}

inline int64_t byte_work(int64_t rounds) {
#if defined(__AMX_INT8__)
    return tile_work(rounds, 64, [] {
        _tile_dpbsud(0, 4, 6);
        _tile_dpbsud(1, 4, 7);
        _tile_dpbsud(2, 5, 6);
        _tile_dpbsud(3, 5, 7);
    });
#else
    alignas(64) int32_t seed[kIntLanes] = {};
    Ints sums[kChains];
    UNROLL for (int j = 0; j < kChains; ++j) sums[j] = ints(j);
    for (int64_t r = 0; r < rounds; ++r) {
        forget(seed);
        const Ints a = load_ints(seed);
        UNROLL for (int j = 0; j < kChains; ++j) sums[j] = dot_bytes(sums[j], a, a);
    }
    UNROLL for (int j = 1; j < kChains; ++j) sums[0] = add(sums[0], sums[j]);
    store_ints(seed, sums[0]);
    forget(seed);
    return rounds * kChains * kIntLanes * 8;
#endif
}

// The operations that `rounds` of nothing but multiplying and adding did, two for each product.
int64_t work(Unit unit, int64_t rounds) {
    return unit == Unit::kFloat ? float_work(rounds) : unit == Unit::kHalf ? half_work(rounds) : byte_work(rounds);
}

// Reads memory as fast as we know how, in whole pieces of kRun bytes; returns the bytes it read.
int64_t read_all(const void* from, int64_t bytes, int threads) {
    constexpr int64_t kRun = 1 << 20;
    for_each(threads, bytes / kRun, [&](int64_t run) {
        const char* p = static_cast<const char*>(from) + run * kRun;
        Ints found[8];
        UNROLL for (int j = 0; j < 8; ++j) found[j] = ints(0);
        // Four runs side by side, each asked for a little ahead, as the products do (packed.h).
        constexpr int64_t kPart = kRun / 4, kBytes = kIntLanes * 4;
        for (int64_t i = 0; i < kPart; i += 64)
            UNROLL for (int j = 0; j < 4; ++j) {
                __builtin_prefetch(p + j * kPart + i + 512);
                UNROLL for (int64_t k = 0; k < 64; k += kBytes)
                    found[2 * j + k / kBytes % 2] = add(found[2 * j + k / kBytes % 2], load_ints(p + j * kPart + i + k));
            }
        UNROLL for (int j = 1; j < 8; ++j) found[0] = add(found[0], found[j]);
        alignas(64) int32_t kept[kIntLanes];
        store_ints(kept, found[0]);
        forget(kept);
    });
    return bytes / kRun * kRun;
}

}  // namespace
}  // namespace llamakit::LEVEL
