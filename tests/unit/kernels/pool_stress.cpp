// Small jobs one after another for some seconds: prints how many ran and how many indices did not run exactly once.
#include "pool.h"

#include <atomic>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <vector>

int main(int, char** argv) {
    const int threads = std::atoi(argv[1]);
    const auto end = std::chrono::steady_clock::now() + std::chrono::duration<double>(std::atof(argv[2]));
    long jobs = 0, wrong = 0;
    for (unsigned state = 1; std::chrono::steady_clock::now() < end; ++jobs) {
        state = state * 1664525u + 1013904223u;
        const int64_t count = 2 + (state >> 20) % 60;
        std::vector<std::atomic<int>> ran(static_cast<size_t>(count));
        llamakit::for_each(threads, count, [&](int64_t i) {
            if (i < 0 || i >= count) std::abort();
            ran[static_cast<size_t>(i)].fetch_add(1);
        });
        for (const auto& times : ran) wrong += times.load() != 1;
    }
    std::printf("%ld %ld\n", jobs, wrong);
}
