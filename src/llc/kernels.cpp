#include "src/llc/kernels.hpp"

#include <bit>
#include <cmath>
#include <cstring>

namespace dds::kernels {
namespace baseline {
#include "src/llc/kernels_body.hpp"
}

// The same loops compiled for AVX2, which is asked for when they run: twice as fast, and the library runs everywhere.
#if defined(__GNUC__) && defined(__x86_64__)
#define DDS_HAS_AVX2 1
#ifdef __clang__
#pragma clang attribute push(__attribute__((target("avx2"))), apply_to = function)
#else
#pragma GCC push_options
#pragma GCC target("avx2")
#endif
namespace avx2 {
#include "src/llc/kernels_body.hpp"
}
#ifdef __clang__
#pragma clang attribute pop
#else
#pragma GCC pop_options
#endif
#endif

namespace {

__extension__ using Wide = unsigned __int128;

bool has_avx2() {
#ifdef DDS_HAS_AVX2
  static const bool has = __builtin_cpu_supports("avx2") != 0;
  return has;
#else
  return false;
#endif
}

}  // namespace

void words(const RandomKey& key, std::uint32_t index, std::uint32_t out[4]) {
  std::uint32_t x[4][baseline::kLanes];
  baseline::philox(key, index, x);
  for (int i = 0; i < 4; ++i) out[i] = x[i][0];
}

void normals(const RandomKey& key, std::int64_t first, std::int64_t count, float* out) {
#ifdef DDS_HAS_AVX2
  if (has_avx2()) return avx2::normal_blocks(key, first, count, out);
#endif
  baseline::normal_blocks(key, first, count, out);
}

void indices(const RandomKey& key, std::int64_t bound, std::int64_t count, std::int64_t* out) {
  // The upper half of a product of 64 bits each (Lemire 2019); its bias is below bound / 2^64.
  const auto scaled = [bound](std::uint32_t high, std::uint32_t low) {
    const std::uint64_t word = static_cast<std::uint64_t>(high) << 32 | low;
    return static_cast<std::int64_t>(static_cast<Wide>(word) * static_cast<std::uint64_t>(bound) >> 64);
  };
  std::uint32_t x[4][baseline::kLanes];
  for (std::int64_t i = 0; i < count; ++i) {
    const std::int64_t lane = i / 2 % baseline::kLanes;
    if (lane == 0 && i % 2 == 0) baseline::philox(key, static_cast<std::uint32_t>(i / 2), x);
    out[i] = i % 2 == 0 ? scaled(x[0][lane], x[1][lane]) : scaled(x[2][lane], x[3][lane]);
  }
}

double uniform(const RandomKey& key) {
  std::uint32_t word[4];
  words(key, 0, word);
  return (static_cast<double>(word[0]) + 0.5) * 0x1p-32;
}

template <class T>
Sums run(const Pass<T>& pass) {
#ifdef DDS_HAS_AVX2
  if (has_avx2()) return avx2::run_blocks(pass);
#endif
  return baseline::run_blocks(pass);
}

template Sums run(const Pass<float>&);
template Sums run(const Pass<double>&);

}  // namespace dds::kernels
