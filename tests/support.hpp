// What tests of several folders share.
#pragma once

#include <torch/torch.h>

#include <cmath>
#include <cstdint>
#include <dds/error.hpp>
#include <string>
#include <vector>

namespace dds::test {

/// Largest |a - b| over the largest |b|; 0 where both are zero.
inline double relative_difference(const at::Tensor& a, const at::Tensor& b) {
  const double scale = b.abs().max().item<double>();
  const double difference = (a - b).abs().max().item<double>();
  return difference == 0 ? 0 : difference / scale;
}

/// n x d, columns orthonormal, fp64.
inline at::Tensor orthonormal(std::int64_t n, std::int64_t d) {
  return std::get<0>(torch::linalg_qr(torch::randn({n, d}, torch::kDouble)));
}

/// Sylvester's Hadamard matrix of order 2^k: entries +-1, columns exactly orthogonal.
inline at::Tensor hadamard(int k) {
  at::Tensor h = torch::ones({1, 1}, torch::kDouble);
  for (int i = 0; i < k; ++i) h = torch::cat({torch::cat({h, h}, 1), torch::cat({h, -h}, 1)}, 0);
  return h;
}

/// What the library's error says that `call` ends with.
template <class Call>
std::string message_of(Call call) {
  try {
    call();
  } catch (const Error& error) {
    return error.what();
  }
  return "nothing was thrown";
}

}  // namespace dds::test
