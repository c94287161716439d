// Attention of flat queries over their own paged keys and values.
//
// Keys are taken in chunks of kChunk, aligned at position 0. Each chunk gives a row its own maximum, sum and mix,
// computed from that chunk alone; these parts are folded in order of position inside a span of kSpan keys, and spans
// in order of position. So a query has the same bits in a decode step, in a batch and in any cut of a prompt, and the
// spans of one query may be worked on by different threads.
//
// A tile is a few consecutive tokens of one sequence with the query heads that share one key head: every key and
// value is read once for all its rows.
#pragma once
#include "words.h"

namespace llamakit::LEVEL {
namespace {

constexpr int64_t kChunk = 128;       // keys
constexpr int64_t kSpan = 8 * kChunk;  // keys

// Part of an answer: for each row the highest score, the sum of 2^(score - top) and the values mixed by it.
struct Part {
    float *tops, *totals, *mixes;
};

// Sizes that hold for every tile of a call, in floats.
template <class Mode>
struct TileShape {
    int64_t rows, words, dim;  // as the products want them: rounded up
    explicit TileShape(const AttentionArgs& a)
        : rows(round_up(a.tile_tokens * (a.heads / a.kv_heads), 16)),
          words(round_up(ceil_div(a.dim, Mode::kPerWord), Mode::kSteps)),
          dim(round_up(a.dim, kLanes)) {}
    int64_t work() const { return (words + dim + 2 * rows) * kChunk + rows * words; }
    int64_t part(int64_t rows_used) const { return round_up(rows_used, 16) * (2 + dim); }
    Part cut(float* memory, int64_t rows_used) const {
        const int64_t r = round_up(rows_used, 16);
        return {memory, memory + r, memory + 2 * r};
    }
};

// A tile of one key head, in memory of `shape.work()` floats.
template <class Mode, class Q, class P>
class TileWork {
    static constexpr int kPer = Mode::kPerWord;

  public:
    TileWork(const AttentionArgs& args, const TileShape<Mode>& shape, const AttentionTile& tile, int64_t kv_head,
             float* memory)
        : a_(args), shape_(shape), tile_(tile), kv_head_(kv_head), group_(args.heads / args.kv_heads),
          rows_(tile.tokens * group_) {
        keys_ = memory;
        values_ = keys_ + shape.words * kChunk;
        scores_ = values_ + shape.dim * kChunk;
        weights_ = scores_ + shape.rows * kChunk;
        queries_ = weights_ + shape.rows * kChunk;
        read_queries();
    }

    // What the keys of one span contribute; `spare` holds a second part.
    void attend_span(int64_t span, const Part& to, const Part& spare) {
        const int64_t first = span * (kSpan / kChunk), end = first + kSpan / kChunk;
        attend(first, to);
        for (int64_t chunk = first + 1; chunk < end && chunk * kChunk < keys_of(tile_); ++chunk) {
            attend(chunk, spare);
            fold(chunk * kChunk, to, spare);
        }
    }

    // Adds the part of later keys, which begin at `position`.
    void fold(int64_t position, const Part& sum, const Part& part) const {
        alignas(64) float shrink[kLanes], grow[kLanes];
        for (int64_t first = 0; first < rows_; first += kLanes) {
            const Vec old_top = load(sum.tops + first), new_top = load(part.tops + first);
            const Vec top = max(old_top, new_top);
            const Vec s = exp2(sub(old_top, top)), g = exp2(sub(new_top, top));
            store(sum.tops + first, top);
            store(sum.totals + first, fma(load(part.totals + first), g, mul(load(sum.totals + first), s)));
            store(shrink, s);
            store(grow, g);
            const int64_t end = rows_ - first < kLanes ? rows_ - first : kLanes;
            for (int64_t i = 0; i < end; ++i) {
                // Rows that end before these keys are not touched: their bits are those of a shorter past.
                if (visible(first + i, position, 1) == 0) continue;
                float* to = sum.mixes + (first + i) * shape_.dim;
                const float* from = part.mixes + (first + i) * shape_.dim;
                for (int64_t d = 0; d < shape_.dim; d += kLanes)
                    store(to + d, fma(load(from + d), set1(grow[i]), mul(load(to + d), set1(shrink[i]))));
            }
        }
    }

    void finish(const Part& sum) const {
        for (int64_t r = 0; r < rows_; ++r) {
            const Vec total = set1(sum.totals[r]);
            Q* to = static_cast<Q*>(a_.out) + row_offset(r);
            const float* mix = sum.mixes + r * shape_.dim;
            for (int64_t d = 0; d < a_.dim; d += kLanes) {
                const Vec x = div(load(mix + d), total);
                if (a_.dim - d >= kLanes) store(to + d, x);
                else store_part(to + d, x, a_.dim - d);
            }
        }
    }

  private:
    void attend(int64_t chunk, const Part& to) {
        const int64_t first = chunk * kChunk;
        const int64_t count = keys_of(tile_) - first < kChunk ? keys_of(tile_) - first : kChunk;
        read_chunk(first, count);
        product<Mode>(queries_, shape_.words, keys_, kChunk, scores_, kChunk, rows_, shape_.words,
                      ceil_div(count, kLanes));
        for (int64_t r = 0; r < rows_; ++r) weigh(r, visible(r, first, count), count, to);
        product<Mode>(weights_, kChunk / kPer, values_, shape_.dim, to.mixes, shape_.dim, rows_, ceil_div(count, kPer),
                      shape_.dim / kLanes);
    }

    // Keys of [first, first + count) that row r may see.
    int64_t visible(int64_t r, int64_t first, int64_t count) const {
        const int64_t seen = tile_.position + r / group_ + 1 - first;
        return seen < 0 ? 0 : seen < count ? seen : count;
    }

    int64_t row_offset(int64_t r) const {
        return ((tile_.first_token + r / group_) * a_.heads + kv_head_ * group_ + r % group_) * a_.dim;
    }

    // Where in the pools the rows of keys [first, first + count) of this head begin.
    void find_rows(int64_t first, int64_t count, int64_t* offsets) const {
        const int32_t* table = a_.block_tables + tile_.sequence * a_.table_stride;
        const int64_t step = a_.kv_heads * a_.dim;
        int64_t block = first / a_.block_tokens, inside = first % a_.block_tokens;
        for (int64_t i = 0; i < count; ++block, inside = 0) {
            int64_t offset = (table[block] * a_.block_tokens + inside) * step + kv_head_ * a_.dim;
            for (; inside < a_.block_tokens && i < count; ++inside, ++i, offset += step) offsets[i] = offset;
        }
    }

    // kLanes words of a row from word `w` on, zeros behind its end.
    template <class T>
    INLINE Vec row_words(const T* row, int64_t w) const {
        const int64_t left = ceil_div(a_.dim, kPer) - w;
        if (left <= 0) return zero();
        if constexpr (kPer == 1) {
            return left >= kLanes ? load(row + w) : load_part(row + w, left);
        } else {
            const float* pairs = reinterpret_cast<const float*>(row) + w;
            return left >= kLanes ? load(pairs) : load_part(pairs, left);
        }
    }

    void read_queries() {
        const Q* q = static_cast<const Q*>(a_.q);
        for (int64_t r = 0; r < rows_; ++r)
            for (int64_t w = 0; w < shape_.words; w += kLanes) {
                const Vec x = row_words(q + row_offset(r), w);
                if (shape_.words - w >= kLanes) store(queries_ + r * shape_.words + w, x);
                else store_part(queries_ + r * shape_.words + w, x, shape_.words - w);
            }
    }

    // Keys transposed to [word][key], values as [key / per word][dim]; zeros from `count` on, whatever the pool holds.
    void read_chunk(int64_t first, int64_t count) {
        int64_t offsets[kChunk];
        find_rows(first, count, offsets);
        const P *k_pool = static_cast<const P*>(a_.k_pool), *v_pool = static_cast<const P*>(a_.v_pool);
        for (int64_t key = 0; key < count; key += kLanes) {
            for (int64_t w = 0; w < shape_.words; w += kLanes) {
                Vec block[kLanes];
                for (int i = 0; i < kLanes; ++i)
                    block[i] = key + i < count ? row_words(k_pool + offsets[key + i], w) : zero();
                transpose(block);
                const int64_t end = shape_.words - w < kLanes ? shape_.words - w : kLanes;
                for (int64_t i = 0; i < end; ++i) store(keys_ + (w + i) * kChunk + key, block[i]);
            }
        }
        int64_t word = 0;
        for (; word * kPer < count; ++word) {
            const P* row = v_pool + offsets[word * kPer];
            const P* next = kPer == 2 && word * kPer + 1 < count ? v_pool + offsets[word * kPer + 1] : nullptr;
            for (int64_t d = 0; d < a_.dim; d += kLanes)
                store(values_ + word * shape_.dim + d, value_words(row, next, d));
        }
        for (; word % Mode::kSteps; ++word)
            for (int64_t d = 0; d < shape_.dim; d += kLanes) store(values_ + word * shape_.dim + d, zero());
    }

    INLINE Vec value_words(const P* row, const P* next, int64_t d) const {
        const int64_t left = a_.dim - d;
        const Vec low = left >= kLanes ? load(row + d) : load_part(row + d, left);
        if constexpr (kPer == 1) {
            return low;
        } else {
            return Mode::pair(low, !next ? zero() : left >= kLanes ? load(next + d) : load_part(next + d, left));
        }
    }

    // Scores of a row to weights; those from `seen` on are zero. Scores are in units of ln 2.
    void weigh(int64_t r, int64_t seen, int64_t count, const Part& to) {
        float* scores = scores_ + r * kChunk;
        float* weights = weights_ + r * (kChunk / kPer);
        const Vec scale = set1(a_.scale * 1.44269504f);
        Vec top = set1(-__builtin_inff()), total = zero();
        for (int64_t i = 0; i < count; i += kLanes) {
            if (seen - i < kLanes)
                for (int64_t j = seen > i ? seen - i : 0; j < kLanes; ++j) scores[i + j] = -__builtin_inff();
            const Vec x = mul(load(scores + i), scale);
            store(scores + i, x);
            top = max(top, x);
        }
        const float highest_score = highest(top);
        to.tops[r] = highest_score;
        const Vec shift = set1(seen ? highest_score : 0.0f);
        int64_t i = 0;
        for (; i < count; i += kLanes) {
            const Vec w = exp2(sub(load(scores + i), shift));
            total = add(total, w);
            Mode::put_weights(weights + i / kPer, w);
        }
        for (; i / kPer % Mode::kSteps; i += kLanes) Mode::put_weights(weights + i / kPer, zero());
        to.totals[r] = sum(total);
    }

    const AttentionArgs& a_;
    const TileShape<Mode>& shape_;
    const AttentionTile& tile_;
    const int64_t kv_head_, group_, rows_;
    float *keys_, *values_, *scores_, *weights_, *queries_;
};

// One piece of work: some key heads of a tile, over all its keys or over one span of them.
struct AttentionTask {
    int32_t tile, head, heads;
    int32_t span;   // -1: all, and the answer is finished
    int64_t parts;  // one span: where its parts go, in floats
};

template <class Mode, class Q, class P>
class AttentionRun {
  public:
    AttentionRun(const AttentionArgs& args, int threads) : a_(args), threads_(threads), shape_(args) {}

    void run() {
        plan();
        for_each(threads_, num_tasks_, [&](int64_t i) { run_task(tasks_[i]); });
        if (num_parts_ == 0) return;
        for_each(threads_, a_.num_tiles * a_.kv_heads, [&](int64_t i) {
            const int64_t tile = i / a_.kv_heads;
            if (splits(a_.tiles[tile])) fold_spans(a_.tiles[tile], i % a_.kv_heads, first_part_[tile]);
        });
    }

  private:
    using Work = TileWork<Mode, Q, P>;

    int64_t rows(const AttentionTile& tile) const { return tile.tokens * (a_.heads / a_.kv_heads); }
    int64_t spans(const AttentionTile& tile) const { return ceil_div(keys_of(tile), kSpan); }
    // Few rows over a long past: reading the keys is the work, and it is shared out by spans.
    bool splits(const AttentionTile& tile) const { return rows(tile) <= 16 && spans(tile) > 1; }

    // Last tiles first: they see most keys, and no thread should be left alone with one at the end. Neighbouring heads
    // lie in the same pages of memory, so a task of few rows takes as many of them as leaves work for all threads.
    void plan() {
        int64_t units = 0, most = 0;
        for (int64_t t = 0; t < a_.num_tiles; ++t) {
            units += splits(a_.tiles[t]) ? spans(a_.tiles[t]) : 1;
            most += splits(a_.tiles[t]) ? spans(a_.tiles[t]) * a_.kv_heads : a_.kv_heads;
        }
        int64_t heads = a_.kv_heads;
        while (heads > 1 && units * ceil_div(a_.kv_heads, heads) < 4 * threads_) heads = (heads + 1) / 2;
        const size_t table = static_cast<size_t>(most) * sizeof(AttentionTask);
        num_parts_ = 0;
        for (int64_t t = 0; t < a_.num_tiles; ++t)
            if (splits(a_.tiles[t])) num_parts_ += spans(a_.tiles[t]) * a_.kv_heads * shape_.part(rows(a_.tiles[t]));
        const size_t firsts = static_cast<size_t>(a_.num_tiles) * sizeof(int64_t);
        char* memory = static_cast<char*>(
            scratch(kShared, round_up(static_cast<int64_t>(table + firsts), 64) + num_parts_ * sizeof(float)));
        tasks_ = reinterpret_cast<AttentionTask*>(memory);
        first_part_ = reinterpret_cast<int64_t*>(memory + table);
        parts_ = reinterpret_cast<float*>(memory + round_up(static_cast<int64_t>(table + firsts), 64));
        int64_t next = 0;
        num_tasks_ = 0;
        for (int64_t t = a_.num_tiles - 1; t >= 0; --t) {
            const AttentionTile& tile = a_.tiles[t];
            const bool split = splits(tile);
            const int64_t step = rows(tile) <= 16 ? heads : 1, size = shape_.part(rows(tile));
            first_part_[t] = next;
            for (int64_t s = 0; s < (split ? spans(tile) : 1); ++s)
                for (int64_t h = 0; h < a_.kv_heads; h += step)
                    tasks_[num_tasks_++] = {static_cast<int32_t>(t), static_cast<int32_t>(h),
                                            static_cast<int32_t>(a_.kv_heads - h < step ? a_.kv_heads - h : step),
                                            split ? static_cast<int32_t>(s) : -1,
                                            next + (s * a_.kv_heads + h) * size};
            if (split) next += spans(tile) * a_.kv_heads * size;
        }
    }

    void run_task(const AttentionTask& task) const {
        const AttentionTile& tile = a_.tiles[task.tile];
        const int64_t count = rows(tile), size = shape_.part(count);
        float* memory = static_cast<float*>(scratch(kPerTask, (shape_.work() + 3 * size) * sizeof(float)));
        const Part sum = shape_.cut(memory, count), span = shape_.cut(memory + size, count);
        const Part spare = shape_.cut(memory + 2 * size, count);
#if defined(__AMX_BF16__)
        Tiles tiles(count < 16 ? static_cast<int>(count) : 16);
#endif
        for (int64_t h = task.head; h < task.head + task.heads; ++h) {
            Work work(a_, shape_, tile, h, memory + 3 * size);
            if (task.span >= 0) {
                float* to = parts_ + task.parts + (h - task.head) * size;
                work.attend_span(task.span, shape_.cut(to, count), spare);
                continue;
            }
            work.attend_span(0, sum, spare);
            for (int64_t s = 1; s < spans(tile); ++s) {
                work.attend_span(s, span, spare);
                work.fold(s * kSpan, sum, span);
            }
            work.finish(sum);
        }
    }

    void fold_spans(const AttentionTile& tile, int64_t head, int64_t first) const {
        const int64_t count = rows(tile), size = shape_.part(count);
        const Work work(a_, shape_, tile, head, static_cast<float*>(scratch(kPerTask, shape_.work() * sizeof(float))));
        const auto part = [&](int64_t s) { return shape_.cut(parts_ + first + (s * a_.kv_heads + head) * size, count); };
        for (int64_t s = 1; s < spans(tile); ++s) work.fold(s * kSpan, part(0), part(s));
        work.finish(part(0));
    }

    const AttentionArgs& a_;
    const int threads_;
    const TileShape<Mode> shape_;
    AttentionTask* tasks_ = nullptr;
    int64_t num_tasks_ = 0, num_parts_ = 0;
    int64_t* first_part_ = nullptr;
    float* parts_ = nullptr;
};

void attention(const AttentionArgs& a, int threads) {
    const bool q32 = a.q_dtype == kF32, pool32 = a.pool_dtype == kF32;
    if (q32 && pool32) return AttentionRun<WideWords, float, float>(a, threads).run();
    if (q32) return AttentionRun<WideWords, float, bf16>(a, threads).run();
    if (pool32) return AttentionRun<WideWords, bf16, float>(a, threads).run();
#if defined(__AVX512BF16__)
    AttentionRun<PairWords, bf16, bf16>(a, threads).run();
#else
    AttentionRun<WideWords, bf16, bf16>(a, threads).run();
#endif
}

}  // namespace
}  // namespace llamakit::LEVEL
