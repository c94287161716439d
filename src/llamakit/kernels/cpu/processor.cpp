#include "processor.h"

#if defined(__x86_64__)
#include <cpuid.h>
#include <stdint.h>
#endif
#if defined(__linux__) && defined(__x86_64__)
#include <sys/syscall.h>
#include <unistd.h>
#endif

namespace llamakit {

bool has_portable() { return true; }

#if defined(__x86_64__)
namespace {

struct Registers {
    unsigned a = 0, b = 0, c = 0, d = 0;
};

Registers cpuid(unsigned leaf, unsigned sub = 0) {
    Registers r;
    __get_cpuid_count(leaf, sub, &r.a, &r.b, &r.c, &r.d);
    return r;
}

bool bit(unsigned word, int position) { return word >> position & 1u; }

// Register sets the system saves on a switch (XCR0): bit 2 AVX, bits 5-7 AVX-512, bits 17-18 AMX.
uint64_t saved_state() {
    if (!bit(cpuid(1).c, 27)) return 0;
    unsigned low, high;
    asm volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
    return (static_cast<uint64_t>(high) << 32) | low;
}

bool saves(uint64_t mask) { return (saved_state() & mask) == mask; }

// Linux hands out the 8 KiB of tile state only to processes that ask (arch_prctl ARCH_REQ_XCOMP_PERM, XTILEDATA).
bool ask_for_tiles() {
#if defined(__linux__)
    return syscall(SYS_arch_prctl, 0x1023, 18) == 0;
#else
    return false;
#endif
}

}  // namespace

// Bit positions: Intel SDM volume 2, CPUID.
bool has_avx2() {
    const Registers basic = cpuid(1), more = cpuid(7);
    return saves(0x6) && bit(basic.c, 12) && bit(basic.c, 29) && bit(more.b, 5);  // FMA, F16C, AVX2
}
bool has_avxvnni() { return has_avx2() && bit(cpuid(7, 1).a, 4); }
bool has_avx512() {
    const unsigned b = cpuid(7).b;
    return has_avx2() && saves(0xe6) && bit(b, 16) && bit(b, 17) && bit(b, 30) && bit(b, 31);  // F, DQ, BW, VL
}
bool has_avx512vnni() { return has_avx512() && bit(cpuid(7).c, 11); }
bool has_avx512bf16() { return has_avx512vnni() && bit(cpuid(7, 1).a, 5); }
bool has_amx() {
    const unsigned d = cpuid(7).d;
    const bool there = bit(d, 22) && bit(d, 24) && bit(d, 25);  // AMX-BF16, AMX-TILE, AMX-INT8
    return has_avx512bf16() && there && saves(0x60000) && ask_for_tiles();
}
#endif

}  // namespace llamakit
