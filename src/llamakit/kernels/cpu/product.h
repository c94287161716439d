// Any rows times any weight: activations made ready once, then the product in patches that threads share out.
//
// Which unit computes a patch depends on the kind of the weight and the number of rows, and changes no bits of a row.
#pragma once
#include "activations.h"
#include "dense.h"
#include "grouped.h"
#include "packed.h"
#if defined(__AMX_INT8__)
#include "dense_amx.h"
#include "grouped_amx.h"
#include "packed_amx.h"
#endif

namespace llamakit::LEVEL {
namespace {

#if defined(__AMX_INT8__)
constexpr bool kTiles = true;
constexpr int64_t kTaskRows = kGridStream * 16;
#else
constexpr bool kTiles = false;
constexpr int64_t kTaskRows = 0;  // without tiles there are no such tasks
struct PairRows {};
#endif
// Fewer rows of bytes go to the vector units, which need neither tiles nor widened nibbles.
constexpr int64_t kTileMinRows = 4;

// Rows of T in the form that products with one kind of weight read.
template <class T>
struct Operand {
    int64_t rows, depth;
    const T* plain;     // dense: the rows themselves, depth apart
    const float* wide;  // dense bf16 on a level that multiplies float32
    PairRows pairs;     // dense bf16 on tiles
    Activations bytes;  // packed
    GroupedRows groups;  // grouped
};

template <class T>
constexpr bool kWidens = sizeof(T) == 2 && !kNativeBf16;
template <class T>
constexpr bool kPairs = sizeof(T) == 2 && kTiles;

// Makes an operand in memory of `bytes(...)`; rows may be put in any order, by any thread.
template <class T>
class OperandMaker {
  public:
    static size_t bytes(Kind kind, int64_t rows, int64_t depth) {
        if (kind == Kind::kGrouped) return grouped_bytes(rows, depth, groups_in_tiles(rows));
        if (kind != Kind::kDense) return activation_bytes(rows, depth);
        const int64_t plain = round_up(rows * depth * static_cast<int64_t>(sizeof(T)), 64);
        if (kWidens<T>) return static_cast<size_t>(plain + rows * depth * 4);
        return static_cast<size_t>(plain + (kPairs<T> ? round_up(rows, 16) * round_up(depth, 32) * 2 : 0));
    }

    OperandMaker(const Matrix& w, int64_t rows, void* memory)
        : w_(w), memory_(static_cast<char*>(memory)), any_columns_(w.columns % 64 != 0) {
        operand_.rows = rows;
        operand_.depth = w.depth;
        if (w.kind == Kind::kDense) operand_.plain = static_cast<T*>(memory);
        else if (w.kind == Kind::kGrouped) operand_.groups = cut_grouped(memory, rows, w.depth, groups_in_tiles(rows));
        else operand_.bytes = cut_activations(memory, rows, w.depth, kTiles && rows >= kTileMinRows,
                                              w.kind == Kind::kNibbles && rows < (kTiles ? kTileMinRows : kWidenRows));
    }

    // Another weight of the same kind and depth will read the operand, too.
    void share(const Matrix& other) { any_columns_ = any_columns_ || other.columns % 64 != 0; }

    // Floats that `put` wants to read and may overwrite.
    int64_t buffer_floats() const { return round_up(w_.depth, kStep); }

    // Values of one row, already rounded to T.
    void put(int64_t row, float* values) const {
        if (w_.kind == Kind::kDense) {
            T* to = const_cast<T*>(operand_.plain) + row * w_.depth;
            for_lanes(w_.depth, [&](int64_t i, int count) { set(to + i, get(values + i, count), count); });
            return;
        }
        if (w_.kind == Kind::kGrouped) return put_grouped_row(values, w_.rotation, operand_.groups, row);
        for (int64_t i = w_.depth; i < buffer_floats(); ++i) values[i] = 0.0f;
        if (w_.rotation) rotate_blocks(values, w_.depth, w_.rotation);
        quantize_row(values, operand_.bytes, row);
    }

    // All rows at once from where they lie.
    void put_all(const T* x, int threads) {
        if (w_.kind == Kind::kDense) {
            operand_.plain = x;
            return;
        }
        for_rows(threads, operand_.rows, w_.depth * 4, [&](int64_t row) {
            float* buffer = static_cast<float*>(scratch(kPerTask, static_cast<size_t>(buffer_floats()) * sizeof(float)));
            widen_row(x + row * w_.depth, w_.depth, buffer);
            put(row, buffer);
        });
    }

    const Operand<T>& done(int threads) {
        if (w_.kind == Kind::kDense) finish_dense(threads);
        if (w_.kind == Kind::kGrouped) pad_grouped_rows(operand_.groups);
        return operand_;
    }

  private:
    void finish_dense(int threads) {
        const int64_t rows = operand_.rows, depth = w_.depth;
        char* after = memory_ + round_up(rows * depth * static_cast<int64_t>(sizeof(T)), 64);
        if constexpr (kWidens<T>) {
            float* wide = reinterpret_cast<float*>(after);
            for_rows(threads, rows, depth, [&](int64_t r) { widen_row(operand_.plain + r * depth, depth, wide + r * depth); });
            operand_.wide = wide;
        }
#if defined(__AMX_INT8__)
        if constexpr (kPairs<T>) {
            PairRows& pairs = operand_.pairs;
            pairs = {reinterpret_cast<const uint32_t*>(operand_.plain), rows, ceil_div(depth, kPairStep), 1};
            if (rows == 1 && !any_columns_ && depth % kPairStep == 0) return;  // already [pair][1]
            uint32_t* words = reinterpret_cast<uint32_t*>(after);
            const int64_t blocks = ceil_div(rows, 16);
            for_each(blocks > 2 ? threads : 1, blocks, [&](int64_t b) {
                const int64_t count = rows - b * 16 < 16 ? rows - b * 16 : 16;
                pack_block(operand_.plain + b * 16 * depth, depth, count, depth, words + b * pairs.steps * 256);
            });
            pairs.words = words;
            pairs.width = 16;
        }
#endif
    }

    const Matrix& w_;
    char* const memory_;
    bool any_columns_;  // of a weight: not all are whole tiles
    Operand<T> operand_{};
};

// A rectangle of the result.
struct Patch {
    int64_t row, rows, column, columns;
};

// out[rows][columns] of one operand and one weight, cut into patches.
template <class T>
class Product {
  public:
    Product(const Matrix& w, const Operand<T>& x, int threads) : w_(w), x_(x) {
        patch_rows_ = x.rows;
        if (w.kind == Kind::kGrouped) {
            patch_rows_ = groups_in_tiles(x.rows) ? kTaskRows : kGroupedRows;
            patch_columns_ = (groups_in_tiles(x.rows) ? panel_blocks(threads) : kGroupedBlocks * run_length(threads)) * 16;
        } else if (w.kind == Kind::kDense ? kPairs<T> : kTiles && x.rows >= kTileMinRows) {
            choose_tiles(threads);
        } else if (w.kind == Kind::kDense) {
            patch_columns_ = x.rows <= 4 ? kWideStripColumns : kStripColumns;
            const int64_t fitting = kPanelBytes / (w.depth * static_cast<int64_t>(sizeof(float))) / 48 * 48;
            patch_rows_ = fitting < 48 ? 48 : fitting;
        } else {
            patch_columns_ = kTileBlocks * 16 * run_length(threads);
        }
    }

    int64_t patches() const { return ceil_div(x_.rows, patch_rows_) * strips(); }

    Patch patch(int64_t index) const {
        const int64_t row = index / strips() * patch_rows_, column = index % strips() * patch_columns_;
        return {row, x_.rows - row < patch_rows_ ? x_.rows - row : patch_rows_, column,
                w_.columns - column < patch_columns_ ? w_.columns - column : patch_columns_};
    }
    // Values of the largest patch.
    int64_t patch_size() const { return patch_columns_ * (x_.rows < patch_rows_ ? x_.rows : patch_rows_); }

    // `out` points at the patch's first value.
    void run(const Patch& p, T* out, int64_t out_stride) const {
        if (w_.kind == Kind::kDense) run_dense(p, out, out_stride);
        else if (w_.kind == Kind::kGrouped) run_grouped(p, out, out_stride);
        else run_packed(p, out, out_stride);
    }

  private:
    // Consecutive blocks of a run, see packed.h: few enough that all threads find work.
    int64_t run_length(int threads) const {
        const int64_t fair = w_.columns / (kTileColumns * threads * 4);
        return fair < 1 ? 1 : fair < kLongestRun ? fair : kLongestRun;
    }

    int64_t panel_blocks(int threads) const {
#if defined(__AMX_INT8__)
        return grid_panel(ceil_div(w_.columns, 16), threads);
#else
        (void)threads;
        return 1;
#endif
    }

    int64_t strips() const { return ceil_div(w_.columns, patch_columns_); }

    void run_dense(const Patch& p, T* out, int64_t out_stride) const {
        const T* w = static_cast<const T*>(w_.dense) + p.column * w_.stride;
        const int64_t depth = w_.depth;
        if constexpr (kPairs<T>) {
#if defined(__AMX_INT8__)
            if (few_) dense_few_rows(w_, x_.pairs, p.column, out, out_stride);
            else if (some_) dense_some_rows(w_, x_.pairs, p.column, out, out_stride);
            else dense_many_rows(w_, x_.pairs, p.row, p.rows, p.column, p.columns, out, out_stride);
#endif
        } else if constexpr (kWidens<T>) {
            dense_patch(x_.wide + p.row * depth, depth, w, w_.stride, out, out_stride, p.rows, p.columns, depth);
        } else {
            dense_patch(x_.plain + p.row * depth, depth, w, w_.stride, out, out_stride, p.rows, p.columns, depth);
        }
    }

    void run_packed(const Patch& p, T* out, int64_t out_stride) const {
        const int64_t first = p.column / 16, end = ceil_div(p.column + p.columns, 16);
#if defined(__AMX_INT8__)
        if (few_) return packed_few_rows<1>(w_, x_.bytes, first, end - first, out, out_stride);
        if (some_) return packed_few_rows<2>(w_, x_.bytes, first, end - first, out, out_stride);
        if (x_.rows >= kTileMinRows)
            return packed_many_rows(w_, x_.bytes, p.row, p.rows, first, end - first, out, out_stride);
#endif
        packed_patch(w_, x_.bytes, first, end, out, out_stride);
    }

    void run_grouped(const Patch& p, T* out, int64_t out_stride) const {
        const int64_t first = p.column / 16, count = ceil_div(p.columns, 16);
        of_form(w_, [&](auto form) {
#if defined(__AMX_INT8__)
            if (groups_in_tiles(x_.rows))
                return grouped_many_rows<decltype(form)>(w_, x_.groups, p.row, p.rows, first, count, out, out_stride);
#endif
            grouped_patch<decltype(form)>(w_, x_.groups, p.row, p.rows, first, count, out, out_stride);
        });
    }

    void choose_tiles(int threads) {
#if defined(__AMX_INT8__)
        const bool dense = w_.kind == Kind::kDense;
        const bool whole = w_.columns % 64 == 0 && (!dense || w_.depth % kPairStep == 0);
        few_ = whole && x_.rows <= 16;
        some_ = whole && !few_ && x_.rows <= (dense ? 128 : 32);
        patch_columns_ = few_ || some_ ? (few_ ? 64 : 32) * (dense ? 1 : run_length(threads)) : panel_blocks(threads) * 16;
        if (!few_ && !some_) patch_rows_ = kTaskRows;
#else
        (void)threads;
#endif
    }

    const Matrix& w_;
    const Operand<T>& x_;
    int64_t patch_rows_ = 1, patch_columns_ = 1;
    bool few_ = false, some_ = false;
};

template <class T>
void linear_of(const T* x, const Matrix& w, T* out, int64_t rows, int threads) {
    OperandMaker<T> maker(w, rows, scratch(kShared, OperandMaker<T>::bytes(w.kind, rows, w.depth)));
    maker.put_all(x, threads);
    const Product<T> product(w, maker.done(threads), threads);
    for_each(threads, product.patches(), [&](int64_t index) {
        const Patch p = product.patch(index);
        product.run(p, out + p.row * w.columns + p.column, w.columns);
    });
}

void linear(Dtype dtype, const void* x, const Matrix& w, void* out, int64_t rows, int threads) {
    if (dtype == kF32) linear_of(static_cast<const float*>(x), w, static_cast<float*>(out), rows, threads);
    else linear_of(static_cast<const bf16*>(x), w, static_cast<bf16*>(out), rows, threads);
}

}  // namespace
}  // namespace llamakit::LEVEL
