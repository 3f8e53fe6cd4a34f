#include <ATen/ops/cat.h>
#include <ATen/ops/linalg_svd.h>
#include <ATen/ops/linalg_svdvals.h>
#include <c10/core/GradMode.h>
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <dds/error.hpp>
#include <dds/spectrum.hpp>
#include <limits>
#include <tuple>

namespace dds {
namespace {

double machine_epsilon(c10::ScalarType dtype) {
  switch (dtype) {
    case c10::ScalarType::Double:
      return 0x1p-52;
    case c10::ScalarType::Float:
      return 0x1p-23;
    case c10::ScalarType::Half:
      return 0x1p-10;
    case c10::ScalarType::BFloat16:
      return 0x1p-7;
    default:
      throw InvalidArgument(
          fmt::format("noise_floor: dtype is {}, expected Double, Float, Half or BFloat16", c10::toString(dtype)));
  }
}

/// Sums over the eigenvalues lambda = sigma^2 / n, which are kept as logarithms: sigma = s 2^exponent.
class EigenvalueLogarithms {
 public:
  explicit EigenvalueLogarithms(const Spectrum& spectrum)
      : sigma_(spectrum.sigma),
        offset_(2 * spectrum.exponent * std::log(2.0) - std::log(static_cast<double>(spectrum.divisor))) {}

  double log(std::size_t i) const { return of_square(2 * std::log(sigma_[i])); }
  double of_square(double log_square) const { return log_square + offset_; }

  /// Sum of the logarithms of the first k eigenvalues; empty if one of them is zero.
  std::optional<double> log_determinant(std::size_t k) const {
    double sum = 0;
    for (std::size_t i = 0; i < k; ++i) {
      if (i >= sigma_.size() || !(sigma_[i] > 0)) return std::nullopt;
      sum += log(i);
    }
    return sum;
  }

 private:
  const std::vector<double>& sigma_;
  double offset_;
};

double effective_rank(const std::vector<double>& sigma) {
  double sum = 0;
  for (const double s : sigma) sum += s;
  double entropy = 0;
  for (const double s : sigma) {
    if (s > 0) entropy -= s / sum * std::log(s / sum);
  }
  return std::exp(entropy);
}

}  // namespace

Spectrum read_spectrum(const TriangularAccumulator& accumulator, bool vectors) {
  const at::NoGradGuard no_grad;
  const TriangularAccumulator::Factor factor = accumulator.factor();
  Spectrum spectrum;
  spectrum.rows = spectrum.divisor = accumulator.rows();
  spectrum.width = accumulator.width();

  at::Tensor sigma;
  if (vectors) {
    at::Tensor right;
    std::tie(std::ignore, sigma, right) = at::linalg_svd(factor.factor, /*full_matrices=*/true);
    spectrum.right = right.to(at::kCPU);
  } else {
    sigma = at::linalg_svdvals(factor.factor);
  }
  const at::Tensor packed =
      at::cat({sigma, factor.exponent.reshape(1), factor.finite.to(at::kDouble).reshape(1)}).to(at::kCPU);
  const double* values = packed.data_ptr<double>();
  const std::int64_t count = sigma.numel();
  spectrum.finite = values[count + 1] != 0;
  if (!spectrum.finite) {
    spectrum.right.reset();
    return spectrum;
  }
  spectrum.sigma.assign(values, values + count);
  spectrum.exponent = static_cast<int>(values[count]);
  return spectrum;
}

double noise_floor(c10::ScalarType dtype, std::int64_t rows, std::int64_t width, double sigma_max) {
  return 2 * std::sqrt(static_cast<double>(std::min(rows, width))) * machine_epsilon(dtype) * sigma_max;
}

void read_numbers(const Spectrum& spectrum, c10::ScalarType dtype, Signature& signature) {
  signature.rows = spectrum.divisor;
  signature.width = spectrum.width;
  signature.dtype = c10::toString(dtype);
  signature.structural_bound = std::min({signature.structural_bound, spectrum.rows, spectrum.width});
  if (!spectrum.finite) {
    signature.status |= Status::NonFinite;
    return;
  }
  const std::vector<double>& sigma = spectrum.sigma;
  const auto unscaled = [&](double value) { return std::ldexp(value, spectrum.exponent); };
  const double floor = noise_floor(dtype, spectrum.rows, spectrum.width, sigma.front());
  const auto rank =
      static_cast<std::size_t>(std::count_if(sigma.begin(), sigma.end(), [&](double value) { return value > floor; }));
  signature.sigma_max = unscaled(sigma.front());
  signature.sigma_min = unscaled(sigma.back());
  signature.floor = unscaled(floor);
  signature.at_floor = sigma.back() <= floor;
  signature.rank = static_cast<std::int64_t>(rank);
  signature.dead_directions = std::max<std::int64_t>(0, signature.structural_bound - signature.rank);
  if (rank == 0) {
    signature.status |= Status::Zero;
    return;
  }

  const EigenvalueLogarithms logarithms(spectrum);
  double squares = 0;
  for (const double value : sigma) squares += value * value;
  const double ln10 = std::log(10.0);
  signature.sigma_min_plus = unscaled(sigma[rank - 1]);
  signature.log10_lambda_min_plus = logarithms.log(rank - 1) / ln10;
  signature.log10_trace = logarithms.of_square(std::log(squares)) / ln10;
  signature.logdet_plus = logarithms.log_determinant(rank);
  if (signature.fixed_rank) {
    signature.logdet_fixed_rank = logarithms.log_determinant(static_cast<std::size_t>(*signature.fixed_rank));
  }
  signature.condition = sigma.front() / sigma[rank - 1];
  signature.effective_rank = effective_rank(sigma);
  signature.stable_rank = squares / (sigma.front() * sigma.front());
}

at::Tensor dead_axes(const Spectrum& spectrum, const Signature& signature) {
  if (!spectrum.right.defined()) {
    throw InvalidArgument(
        "dead_axes: the spectrum was read without vectors, expected read_spectrum(..., vectors = true)");
  }
  return spectrum.right.narrow(0, signature.rank, spectrum.width - signature.rank);
}

}  // namespace dds
