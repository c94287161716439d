#include "pool.h"

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdlib>
#include <mutex>
#include <system_error>
#include <thread>

#if defined(__unix__) || defined(__APPLE__)
#include <pthread.h>
#endif
#if defined(__linux__)
#include <sched.h>
#endif
#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace llamakit {
namespace {

constexpr int kMaxThreads = 256;
// A worker that finds nothing to do spins this long before it sleeps: about the pause between two kernels of a
// step, far less than a step. A sleeping worker costs nothing and takes some microseconds to wake.
constexpr auto kSpin = std::chrono::microseconds(60);

void pause_cpu() {
#if defined(__x86_64__)
    _mm_pause();
#elif defined(__aarch64__)
    asm volatile("yield");
#endif
}

std::atomic<bool> pinning{false};

// The processor after the first `rank` ones that this thread may use; the first is left to whoever calls.
void pin(int rank) {
#if defined(__linux__)
    cpu_set_t allowed;
    if (sched_getaffinity(0, sizeof allowed, &allowed) != 0) return;
    int left = (rank + 1) % CPU_COUNT(&allowed);
    for (int cpu = 0; cpu < CPU_SETSIZE; ++cpu) {
        if (!CPU_ISSET(cpu, &allowed) || left-- > 0) continue;
        cpu_set_t one;
        CPU_ZERO(&one);
        CPU_SET(cpu, &one);
        (void)sched_setaffinity(0, sizeof one, &one);  // A refusal leaves the thread free.
        return;
    }
#else
    (void)rank;
#endif
}

// One job at a time. `ticket` holds the number of the job (upper half) and the next index to run (lower half); a
// worker claims an index by compare-and-swap, so a late worker can never take one of a job that has ended, and the
// caller waits only for indices that were claimed, never for a worker that has not woken. Numbers of jobs are even.
// While the fields of the next job are written the ticket has an odd number, with which nothing can be claimed: else a
// worker still looking for an index of the last job could read some of the new fields and claim with the old number.
class Pool {
  public:
    void run(int threads, int64_t count, Task task, void* context) {
        std::unique_lock<std::mutex> mine(busy_, std::try_to_lock);
        if (!mine.owns_lock()) {
            for (int64_t i = 0; i < count; ++i) task(context, i);
            return;
        }
        grow(threads - 1);
        // More indices than fit into the ticket are grouped.
        const int64_t group = (count + kMaxIndices - 1) / kMaxIndices;
        const uint64_t job = (ticket_.load(std::memory_order_relaxed) >> 32) + 2;
        ticket_.store((job - 1) << 32, std::memory_order_relaxed);
        // No field may be seen with its new value before the odd number is.
        std::atomic_thread_fence(std::memory_order_seq_cst);
        task_.store(task, std::memory_order_relaxed);
        context_.store(context, std::memory_order_relaxed);
        count_.store(count, std::memory_order_relaxed);
        group_.store(group, std::memory_order_relaxed);
        helpers_.store(threads - 1, std::memory_order_relaxed);
        done_.store(0, std::memory_order_relaxed);
        ticket_.store(job << 32, std::memory_order_seq_cst);
        if (sleeping_.load(std::memory_order_seq_cst) > 0) {
            { std::lock_guard<std::mutex> lock(sleep_); }
            wake_.notify_all();
        }
        take_part(job & 0xffffffffu);
        const int64_t groups = (count + group - 1) / group;
        for (int spins = 0; done_.load(std::memory_order_acquire) < groups; ++spins) {
            // A claimed index can belong to a thread the system has set aside: let it run.
            if (spins < 4000) pause_cpu();
            else std::this_thread::yield();
        }
    }

  private:
    static constexpr int64_t kMaxIndices = int64_t{1} << 30;

    void grow(int workers) {
        while (num_workers_ < workers && num_workers_ < kMaxThreads) {
            const int rank = num_workers_;
            const uint64_t seen = ticket_.load(std::memory_order_relaxed) >> 32;
            try {
                std::thread([this, rank, seen] { work(rank, seen); }).detach();
            } catch (const std::system_error&) {
                return;  // The system grants no more threads: those we have do the work.
            }
            ++num_workers_;
        }
    }

    void take_part(uint64_t job) {
        uint64_t ticket = ticket_.load(std::memory_order_acquire);
        while ((ticket >> 32) == job) {
            Task task = task_.load(std::memory_order_relaxed);
            void* context = context_.load(std::memory_order_relaxed);
            const int64_t count = count_.load(std::memory_order_relaxed);
            const int64_t group = group_.load(std::memory_order_relaxed);
            const int64_t first = static_cast<int64_t>(ticket & 0xffffffffu) * group;
            if (first >= count) return;
            // Success proves that the job is still the one whose fields were read above.
            if (!ticket_.compare_exchange_weak(ticket, ticket + 1, std::memory_order_acq_rel)) continue;
            const int64_t last = first + group < count ? first + group : count;
            for (int64_t i = first; i < last; ++i) task(context, i);
            done_.fetch_add(1, std::memory_order_release);
            ticket = ticket_.load(std::memory_order_acquire);
        }
    }

    void work(int rank, uint64_t seen) {
        if (pinning.load(std::memory_order_relaxed)) pin(rank);
        for (;;) {
            seen = next_job(seen);
            if (rank < helpers_.load(std::memory_order_relaxed)) take_part(seen & 0xffffffffu);
        }
    }

    uint64_t next_job(uint64_t seen) {
        const auto start = std::chrono::steady_clock::now();
        for (int spins = 1;; ++spins) {
            const uint64_t job = ticket_.load(std::memory_order_acquire) >> 32;
            if (is_new(job, seen)) return job;
            pause_cpu();
            if (spins % 64 == 0 && std::chrono::steady_clock::now() - start > kSpin) break;
        }
        std::unique_lock<std::mutex> lock(sleep_);
        sleeping_.fetch_add(1, std::memory_order_seq_cst);
        uint64_t job = seen;
        wake_.wait(lock, [&] { return is_new(job = ticket_.load(std::memory_order_seq_cst) >> 32, seen); });
        sleeping_.fetch_sub(1, std::memory_order_relaxed);
        return job;
    }

    static bool is_new(uint64_t job, uint64_t seen) { return job != seen && job % 2 == 0; }

    std::mutex busy_;
    int num_workers_ = 0;  // guarded by busy_

    alignas(64) std::atomic<uint64_t> ticket_{0};
    alignas(64) std::atomic<int64_t> done_{0};
    alignas(64) std::atomic<Task> task_{nullptr};
    std::atomic<void*> context_{nullptr};
    std::atomic<int64_t> count_{0};
    std::atomic<int64_t> group_{1};
    std::atomic<int> helpers_{0};

    alignas(64) std::atomic<int> sleeping_{0};
    std::mutex sleep_;
    std::condition_variable wake_;
};

std::atomic<Pool*> current{nullptr};

// The pool is never destroyed: its threads sleep until the process ends, in whatever order that tears things down.
Pool& pool() {
    Pool* found = current.load(std::memory_order_acquire);
    if (found) return *found;
#if defined(__unix__) || defined(__APPLE__)
    // A child of fork has the memory of the pool but not its threads: it starts anew.
    static const int registered = pthread_atfork(nullptr, nullptr, [] { current.store(nullptr); });
    (void)registered;
#endif
    Pool* made = new Pool;
    if (current.compare_exchange_strong(found, made, std::memory_order_acq_rel)) return *made;
    delete made;
    return *found;
}

struct Buffer {
    void* data = nullptr;
    size_t bytes = 0;
    ~Buffer() { std::free(data); }
};

}  // namespace

void parallel(int threads, int64_t count, Task task, void* context) {
    if (threads > count) threads = static_cast<int>(count);
    if (threads > kMaxThreads) threads = kMaxThreads;
    if (threads <= 1) {
        for (int64_t i = 0; i < count; ++i) task(context, i);
        return;
    }
    pool().run(threads, count, task, context);
}

void pin_threads() { pinning.store(true, std::memory_order_relaxed); }

void* scratch(ScratchSlot slot, size_t bytes) {
    thread_local Buffer buffers[kScratchSlots];
    Buffer& buffer = buffers[slot];
    if (buffer.bytes < bytes) {
        std::free(buffer.data);
        buffer.data = nullptr;
        buffer.bytes = 0;
        const size_t rounded = (bytes + 4095) / 4096 * 4096;
        buffer.data = std::aligned_alloc(64, rounded);
        if (!buffer.data) std::abort();  // Nothing on this path can report; the sizes are a few megabytes.
        buffer.bytes = rounded;
    }
    return buffer.data;
}

}  // namespace llamakit
