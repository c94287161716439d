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
#include "attention_tile.h"

namespace llamakit::LEVEL {
namespace {

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

    // All heads of a task meet a chunk before the next one: memory is read in order, and the next chunk on the way.
    void run_task(const AttentionTask& task) const {
        const AttentionTile& tile = a_.tiles[task.tile];
        const int64_t count = rows(tile), size = shape_.part(count), each = 2 * size + shape_.queries(count);
        float* spare = static_cast<float*>(
            scratch(kPerTask, (shape_.work() + size + task.heads * each) * sizeof(float)));
        float *memory = spare + size, *heads = memory + shape_.work();
        // Of head h of the task: its sum of all spans, of this span, and its queries.
        const auto sum = [&](int64_t h) {
            return shape_.cut(task.span < 0 ? heads + h * each : parts_ + task.parts + h * size, count);
        };
        const auto span_sum = [&](int64_t h) { return shape_.cut(heads + h * each + size, count); };
        const auto work = [&](int64_t h) {
            return Work(a_, shape_, tile, task.head + h, memory, heads + h * each + 2 * size);
        };
#if defined(__AMX_BF16__)
        Tiles tiles;
#endif
        for (int64_t h = 0; h < task.heads; ++h) work(h).read_queries();
        constexpr int64_t kChunks = kSpan / kChunk;
        const int64_t begin = task.span < 0 ? 0 : task.span * kChunks;
        const int64_t all = ceil_div(keys_of(tile), kChunk), end = task.span < 0 || all < begin + kChunks ? all : begin + kChunks;
        const int64_t head_bytes = a_.dim * static_cast<int64_t>(sizeof(P));
        Chunk chunks[2];
        chunks[0].find(a_, tile, begin);
        for (int64_t c = begin; c < end; ++c) {
            const Chunk& chunk = chunks[(c - begin) % 2];
            Chunk& next = chunks[(c - begin + 1) % 2];
            next.count = 0;
            if (c + 1 < end) next.find(a_, tile, c + 1);
            const bool fresh = c % kChunks == 0, first = c == begin, last = (c + 1) % kChunks == 0 || c + 1 == end;
            for (int64_t h = 0; h < task.heads; ++h) {
                Work own = work(h);
                const Ahead ahead(a_, next, h, task.heads, task.head * head_bytes, task.heads * head_bytes,
                                  a_.kv_heads * head_bytes);
                const Part whole = sum(h), span = begin / kChunks == c / kChunks ? whole : span_sum(h);
                const Part part = first || fresh ? span : shape_.cut(spare, count);
                own.attend(chunk, ahead, part);
                if (part.mixes != span.mixes) own.fold(chunk.first, span, part);
                if (last && span.mixes != whole.mixes) own.fold(c / kChunks * kSpan, whole, span);
                if (c + 1 == end && task.span < 0) own.finish(whole);
            }
        }
    }

    void fold_spans(const AttentionTile& tile, int64_t head, int64_t first) const {
        const int64_t count = rows(tile), size = shape_.part(count);
        const Work work(a_, shape_, tile, head, nullptr, nullptr);
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

template <class Mode, class Q>
void attention_over(const AttentionArgs& a, int threads) {
    if (a.k_scales) AttentionRun<Mode, Q, int8_t>(a, threads).run();
    else AttentionRun<Mode, Q, bf16>(a, threads).run();
}

void attention(const AttentionArgs& a, int threads) {
    const bool q32 = a.q_dtype == kF32, pool32 = a.pool_dtype == kF32 && !a.k_scales;
    if (q32 && pool32) return AttentionRun<WideWords, float, float>(a, threads).run();
    if (q32) return attention_over<WideWords, float>(a, threads);
    if (pool32) return AttentionRun<WideWords, bf16, float>(a, threads).run();
#if defined(__AVX512BF16__)
    attention_over<PairWords, bf16>(a, threads);
#else
    attention_over<WideWords, bf16>(a, threads);
#endif
}

}  // namespace
}  // namespace llamakit::LEVEL
