// What this machine can do at most: bytes read from memory, and 8-bit multiply-adds, with T threads.
//   g++ -O2 -march=native limits.cpp -o limits -pthread && ./limits THREADS
// Prints one JSON object. An operation is a multiplication or an addition.

#include <immintrin.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <thread>
#include <vector>

static double seconds() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

// Seconds until every thread has done its work once, started together.
template <class Work>
static double together(int threads, Work work) {
  std::atomic<int> ready{0};
  std::atomic<bool> go{false};
  std::vector<std::thread> crew;
  for (int t = 0; t < threads; t++)
    crew.emplace_back([&, t] {
      ready++;
      while (!go) _mm_pause();
      work(t);
    });
  while (ready < threads) _mm_pause();
  double start = seconds();
  go = true;
  for (auto& one : crew) one.join();
  return seconds() - start;
}

template <class Work>
static double fastest(int threads, int rounds, Work work) {
  double best = 1e9;
  for (int r = 0; r < rounds; r++) best = std::min(best, together(threads, work));
  return best;
}

static uint64_t sink;

// In four runs side by side, each asked for a little ahead: the fastest way to read that we know of.
static void read_all(const char* from, size_t bytes) {
  const size_t run = bytes / 4 / 128 * 128;
  __m256i sums[8];
  for (auto& sum : sums) sum = _mm256_setzero_si256();
  for (size_t i = 0; i < run; i += 128)
    for (int r = 0; r < 4; r++) {
      const char* at = from + r * run + i;
      for (int line = 0; line < 2; line++) {
        _mm_prefetch(at + 512 + 64 * line, _MM_HINT_T0);
        for (int half = 0; half < 2; half++) {
          const __m256i read = _mm256_load_si256((const __m256i*)(at + 64 * line + 32 * half));
          sums[2 * r + half] = _mm256_xor_si256(sums[2 * r + half], read);
        }
      }
    }
  for (int i = 1; i < 8; i++) sums[0] = _mm256_xor_si256(sums[0], sums[i]);
  __atomic_fetch_xor(&sink, (uint64_t)_mm256_extract_epi64(sums[0], 0), __ATOMIC_RELAXED);
}

#ifdef __AMX_INT8__
static bool may_use_tiles() { return syscall(SYS_arch_prctl, 0x1023, 18) == 0; }

static void tiles(long times) {
  alignas(64) uint8_t setting[64] = {1};
  for (int t = 0; t < 8; t++) {
    setting[16 + 2 * t] = 64;
    setting[48 + t] = 16;
  }
  asm volatile("" ::"m"(setting));  // some compilers take the stores above for dead
  _tile_loadconfig(setting);
  for (long i = 0; i < times; i++) {
    _tile_dpbssd(0, 4, 6);
    _tile_dpbssd(1, 4, 7);
    _tile_dpbssd(2, 5, 6);
    _tile_dpbssd(3, 5, 7);
  }
  _tile_release();
}
#endif

#ifdef __AVX512VNNI__
static void vectors(long times) {
  __m512i x = _mm512_set1_epi8(1), s[12];
  for (auto& one : s) one = _mm512_setzero_si512();
  for (long i = 0; i < times; i++) {
#pragma GCC unroll 12
    for (int j = 0; j < 12; j++) asm volatile("vpdpbusd %1, %1, %0" : "+v"(s[j]) : "v"(x));
  }
}
#endif

int main(int argc, char** argv) {
  int threads = argc > 1 ? std::atoi(argv[1]) : 1;
  size_t share = (size_t)1 << 30;
  char* memory = (char*)mmap(nullptr, share * threads, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (memory == MAP_FAILED) return 1;
  madvise(memory, share * threads, MADV_HUGEPAGE);
  together(threads, [&](int t) { std::memset(memory + share * t, 1, share); });
  double read = fastest(threads, 5, [&](int t) { read_all(memory + share * t, share); });
  double best = 0;
  const char* how = "none";
#ifdef __AVX512VNNI__
  long times = 20000000;
  best = threads * times * 12.0 * 128 / fastest(threads, 5, [&](int) { vectors(times); });
  how = "avx512vnni";
#endif
#ifdef __AMX_INT8__
  if (may_use_tiles()) {
    long rounds = 2000000;
    double amx = threads * rounds * 4.0 * 32768 / fastest(threads, 5, [&](int) { tiles(rounds); });
    if (amx > best) best = amx, how = "amx";
  }
#endif
  std::printf("{\"read_bytes_per_s\": %.4g, \"int8_ops_per_s\": %.4g, \"int8_by\": \"%s\"}\n", share * threads / read, best, how);
}
