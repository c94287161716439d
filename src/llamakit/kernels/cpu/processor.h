// Which levels this processor, and the system on it, can run.
#pragma once

namespace llamakit {

bool has_portable();
bool has_avx2();
bool has_avxvnni();
bool has_avx512();
bool has_avx512vnni();
bool has_avx512bf16();
bool has_amx();

}  // namespace llamakit
