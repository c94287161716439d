// The table at a model's ends: rows for ids, and a score for every row in two passes.
//
// Reading a vocabulary of rows is a third of what decoding reads, and nearly all of them are out of the question. So
// the first pass scores all rows by their nibbles, and the second scores those again by their bytes that stand out
// among them. Both passes sum exact integers, and what stands out is decided by a row's own scores in one fixed order:
// a row of scores has the same bits whatever stands beside it, however many threads run, and at every level.
#pragma once
#include "product.h"

namespace llamakit::LEVEL {
namespace {

constexpr int64_t kTableLanes = 16;      // partial sums of the moments, the same at all levels
constexpr int64_t kFineRows = 32;        // rows of a task of the second pass
constexpr double kStandsOut = 2.25;      // standard deviations above the mean: a row in eighty, if scores were normal

// What scores must exceed to be looked at again; an infinity where they are no numbers.
inline float fine_threshold(const float* scores, int64_t size, float* highest) {
    // Moments about the first score, in blocks: sums in float32 stay exact enough.
    constexpr int64_t kBlock = 256 * kTableLanes;
    const float origin = scores[0];
    double sum = 0.0, squares = 0.0;
    float most[kTableLanes];
    for (float& m : most) m = -__builtin_inff();
    for (int64_t start = 0; start < size; start += kBlock) {
        const int64_t end = start + kBlock < size ? start + kBlock : size;
        float sums[kTableLanes] = {}, powers[kTableLanes] = {};
        const auto add_one = [&](int64_t i, int64_t lane) {
            const float v = scores[i] - origin;
            sums[lane] += v;
            powers[lane] += v * v;
            most[lane] = scores[i] > most[lane] ? scores[i] : most[lane];
        };
        int64_t i = start;
        for (; i + kTableLanes <= end; i += kTableLanes)
            for (int64_t lane = 0; lane < kTableLanes; ++lane) add_one(i + lane, lane);
        for (int64_t lane = 0; i + lane < end; ++lane) add_one(i + lane, lane);
        for (int64_t lane = 0; lane < kTableLanes; ++lane) {
            sum += static_cast<double>(sums[lane]);
            squares += static_cast<double>(powers[lane]);
        }
    }
    float high = most[0];
    for (const float m : most) high = m > high ? m : high;
    *highest = high;
    const double mean = sum / static_cast<double>(size), variance = squares / static_cast<double>(size) - mean * mean;
    if (!(variance >= 0.0 && high <= __FLT_MAX__)) return __builtin_inff();
    const double deviation = __builtin_sqrt(variance);
    return static_cast<float>(static_cast<double>(origin) + mean + kStandsOut * deviation);
}

// Which of `count` <= 64 scores exceed the threshold.
INLINE uint64_t above(const float* scores, float threshold, int64_t count) {
    uint64_t found = 0;
    int64_t i = 0;
#if defined(__AVX512F__)
    for (; i + 16 <= count; i += 16)
        found |= static_cast<uint64_t>(_mm512_cmp_ps_mask(load(scores + i), set1(threshold), _CMP_GT_OQ)) << i;
#elif defined(__AVX2__)
    for (; i + 8 <= count; i += 8) {
        const __m256 is_above = _mm256_cmp_ps(load(scores + i), set1(threshold), _CMP_GT_OQ);
        found |= static_cast<uint64_t>(static_cast<uint32_t>(_mm256_movemask_ps(is_above))) << i;
    }
#endif
    for (; i < count; ++i) found |= static_cast<uint64_t>(scores[i] > threshold) << i;
    return found;
}

// Places of the scores above the threshold, ascending; at most `room`, for which the threshold rises as far as it must.
inline int64_t find_above(const float* scores, int64_t size, int64_t room, int32_t* places) {
    float high, threshold = fine_threshold(scores, size, &high);
    for (;;) {
        int64_t count = 0;
        for (int64_t i = 0; i < size && count <= room; i += 64)
            for (uint64_t found = above(scores + i, threshold, size - i < 64 ? size - i : 64); found; found &= found - 1) {
                if (count < room) places[count] = static_cast<int32_t>(i + __builtin_ctzll(found));
                ++count;
            }
        if (count <= room) return count;
        const float next = threshold + (high - threshold) * 0.5f;
        if (!(next > threshold && next < high)) return room;  // equals: the first ones
        threshold = next;
    }
}

// A row of the table by a row of activations, as put_sums makes a float of the sum.
INLINE float fine_score(const Table& t, const Activations& x, int64_t row, int64_t place) {
    const int8_t* a = row_codes(x, row);
    const uint8_t* w = t.rows + place * x.steps * kStep;
    Ints sums = ints(0);
    for (int64_t step = 0; step < x.steps; ++step, a += x.step_stride, w += kStep)
        for (int64_t k = 0; k < kStep; k += kIntLanes * 4) sums = dot_bytes(sums, load_ints(w + k), load_ints(a + k));
    alignas(64) int32_t parts[kIntLanes];
    store_ints(parts, sums);
    int32_t total = -kWeightOffset * x.totals[row];
    for (const int32_t part : parts) total += part;
    return static_cast<float>(total) * t.scales[place] * x.scales[row];
}

// out[rows][columns], the scores of all rows of the table.
void table_scores(const Table& t, const float* x, float* out, int64_t rows, int threads) {
    const Matrix& w = t.coarse;
    // Two and a half times what normal scores need.
    const int64_t room = w.columns / 32 + 16, chunks = ceil_div(room, kFineRows);
    const size_t operand = (OperandMaker<float>::bytes(w.kind, rows, w.depth) + 63) / 64 * 64;
    char* memory = static_cast<char*>(scratch(kShared, operand + static_cast<size_t>(rows) * (static_cast<size_t>(room) * 4 + 8)));
    int64_t* counts = reinterpret_cast<int64_t*>(memory + operand);
    int32_t* places = reinterpret_cast<int32_t*>(counts + rows);
    OperandMaker<float> maker(w, rows, memory);
    maker.put_all(x, threads);
    const Operand<float>& made = maker.done(threads);
    const Product<float> product(w, made, threads);
    for_each(threads, product.patches(), [&](int64_t index) {
        const Patch p = product.patch(index);
        product.run(p, out + p.row * w.columns + p.column, w.columns);
    });
    for_each(threads, rows, [&](int64_t r) { counts[r] = find_above(out + r * w.columns, w.columns, room, places + r * room); });
    for_each(threads, rows * chunks, [&](int64_t task) {
        const int64_t row = task / chunks, first = task % chunks * kFineRows;
        const int64_t end = first + kFineRows < counts[row] ? first + kFineRows : counts[row];
        const int32_t* found = places + row * room;
        for (int64_t i = first; i < end; ++i) {
            if (i + 1 < end)
                for (int64_t line = 0; line < made.bytes.steps * kStep; line += 64)
                    __builtin_prefetch(t.rows + found[i + 1] * made.bytes.steps * kStep + line);
            out[row * w.columns + found[i]] = fine_score(t, made.bytes, row, found[i]);
        }
    });
}

// Float rows to the bytes of the table; its nibbles are packed like any matrix.
template <class T>
void table_pack_of(const T* from, int64_t stride, const Table& t, int threads) {
    const Matrix& w = t.coarse;
    const int64_t padded = round_up(w.depth, kStep);
    for_rows(threads, w.columns, w.depth * 4, [&](int64_t n) {
        float* row = static_cast<float*>(scratch(kPerTask, static_cast<size_t>(padded * 4)));
        weight_row(from + n * stride, w.depth, padded, w.rotation, row);
        const float high = highest_of(row, padded);
        const Vec inverse = set1(high > kSmallest ? 127.0f / high : 0.0f);
        uint8_t* to = const_cast<uint8_t*>(t.rows) + n * padded;
        const_cast<float*>(t.scales)[n] = high / 127.0f;
        int8_t part[kStep];
        for (int64_t k = 0; k < padded; k += kStep) {
            store_bytes(part, row + k, inverse);
            for (int64_t i = 0; i < kStep; ++i) to[k + i] = static_cast<uint8_t>(part[i] + 128);
        }
    });
}

void table_pack(Dtype dtype, const void* from, int64_t stride, const Table& t, int threads) {
    if (dtype == kF32) table_pack_of(static_cast<const float*>(from), stride, t, threads);
    else table_pack_of(static_cast<const bf16*>(from), stride, t, threads);
    pack(dtype, from, stride, t.coarse, threads);
}

// Rows of the table as the floats their bytes stand for.
void table_rows(Dtype dtype, const Table& t, const int64_t* ids, int64_t count, void* out, int threads) {
    const int64_t depth = t.coarse.depth, padded = round_up(depth, kStep);
    for_rows(threads, count, depth * 4, [&](int64_t i) {
        float* row = static_cast<float*>(scratch(kPerTask, static_cast<size_t>(padded * 4)));
        const uint8_t* codes = t.rows + ids[i] * padded;
        const float scale = t.scales[ids[i]];
        for (int64_t k = 0; k < padded; ++k) row[k] = static_cast<float>(codes[k] - 128) * scale;
        if (t.coarse.rotation) rotate_blocks(row, depth, t.coarse.rotation);
        for_lanes(depth, [&](int64_t k, int lanes) {
            if (dtype == kF32) set(static_cast<float*>(out) + i * depth + k, get(row + k, lanes), lanes);
            else set(static_cast<bf16*>(out) + i * depth + k, get(row + k, lanes), lanes);
        });
    });
}

}  // namespace
}  // namespace llamakit::LEVEL
