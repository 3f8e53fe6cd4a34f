#include <ATen/ops/all.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/full.h>
#include <ATen/ops/isfinite.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/stack.h>
#include <ATen/ops/zeros.h>
#include <c10/core/GradMode.h>
#include <c10/util/Exception.h>
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <dds/spectrum.hpp>
#include <limits>
#include <utility>

#include "src/base/check.hpp"
#include "src/base/dtype.hpp"
#include "src/spectral/solver.hpp"

namespace dds {
namespace {

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

/// A matrix on its way to its spectrum.
struct Pending {
  TriangularAccumulator::Factor factor;
  at::Tensor cancellation;  ///< 0-d; undefined: 1
  at::Tensor sigma;
  at::Tensor right;
};

/// Matrices of one shape and device together, in batches of bounded size.
std::vector<std::vector<Pending*>> equal_shapes(std::vector<Pending>& pending) {
  constexpr std::int64_t kMostEntries = std::int64_t{1} << 24;  // of a batch: 128 MiB
  std::vector<std::vector<Pending*>> batches;
  for (Pending& one : pending) {
    const at::Tensor& factor = one.factor.factor;
    const auto place = std::find_if(batches.begin(), batches.end(), [&](const std::vector<Pending*>& batch) {
      const at::Tensor& other = batch.front()->factor.factor;
      return other.sizes() == factor.sizes() && other.device() == factor.device() &&
             (std::ssize(batch) + 1) * factor.numel() <= kMostEntries;
    });
    if (place == batches.end()) {
      batches.push_back({&one});
    } else {
      place->push_back(&one);
    }
  }
  return batches;
}

/// Fills in sigma and right of each; NaN where the solver does not converge.
void decompose(const std::vector<Pending*>& batch, bool vectors, const Solver& solver) {
  std::vector<at::Tensor> factors;
  factors.reserve(batch.size());
  for (const Pending* one : batch) factors.push_back(one->factor.factor);
  try {
    const at::Tensor matrices = factors.size() == 1 ? factors.front().unsqueeze(0) : at::stack(factors);
    const Decomposition all = solver(matrices, vectors);
    for (std::size_t i = 0; i < batch.size(); ++i) {
      batch[i]->sigma = all.sigma.select(0, static_cast<std::int64_t>(i));
      if (vectors) batch[i]->right = all.right.select(0, static_cast<std::int64_t>(i));
    }
  } catch (const c10::OutOfMemoryError&) {
    throw;
  } catch (const c10::Error&) {
    if (batch.size() > 1) {
      for (Pending* one : batch) decompose({one}, vectors, solver);
      return;
    }
    const at::Tensor& factor = factors.front();
    batch.front()->sigma = at::full({factor.size(0)}, std::numeric_limits<double>::quiet_NaN(), factor.options());
    if (vectors) batch.front()->right = at::zeros({axes_of(factor), factor.size(1)}, factor.options());
  }
}

/// Exponent, finite flag, cancellation and singular values of each, in one transfer from each device.
std::vector<std::vector<double>> to_host(const std::vector<Pending>& pending) {
  std::vector<std::vector<double>> values(pending.size());
  std::vector<bool> done(pending.size());
  for (std::size_t first = 0; first < pending.size(); ++first) {
    if (done[first]) continue;
    std::vector<at::Tensor> parts;
    std::vector<std::size_t> members;
    for (std::size_t i = first; i < pending.size(); ++i) {
      if (pending[i].sigma.device() != pending[first].sigma.device()) continue;
      done[i] = true;
      members.push_back(i);
      const TriangularAccumulator::Factor& factor = pending[i].factor;
      const at::Tensor& cancellation = pending[i].cancellation;
      parts.insert(parts.end(),
                   {factor.exponent.reshape(1), factor.finite.to(at::kDouble).reshape(1),
                    (cancellation.defined() ? cancellation : at::ones({}, factor.exponent.options())).reshape(1),
                    pending[i].sigma});
    }
    const at::Tensor packed = at::cat(parts).to(at::kCPU);
    const double* next = packed.data_ptr<double>();
    for (const std::size_t i : members) {
      const double* const end = next + 3 + pending[i].sigma.numel();
      values[i].assign(next, end);
      next = end;
    }
  }
  return values;
}

/// The safe way: the CPU's solver where another device's failed, then Jacobi.
void retry(const at::Tensor& factor, bool vectors, Spectrum& spectrum) {
  spectrum.retried = true;
  const at::Tensor matrix = factor.to(at::kCPU);
  Decomposition result;
  if (!factor.is_cpu()) {
    try {
      result = library_svd(matrix, vectors);
    } catch (const c10::Error&) {
      result = {};
    }
  }
  if (!result.sigma.defined() || !at::isfinite(result.sigma).all().item<bool>()) result = jacobi_svd(matrix, vectors);
  const double* const sigma = result.sigma.data_ptr<double>();
  spectrum.sigma.assign(sigma, sigma + result.sigma.numel());
  spectrum.right = result.right;
}

}  // namespace

std::vector<Spectrum> read_spectra(const std::vector<const TriangularAccumulator*>& accumulators, bool vectors,
                                   const Solver& solver, const std::vector<at::Tensor>& cancellations) {
  const at::NoGradGuard no_grad;
  std::vector<Pending> pending;
  for (std::size_t i = 0; i < accumulators.size(); ++i) {
    check_given("read_spectra", "an accumulator", accumulators[i], "one with rows");
    pending.push_back(Pending{accumulators[i]->factor(), {}, {}, {}});
    if (i < cancellations.size() && cancellations[i].defined()) {
      pending.back().cancellation = cancellations[i].to(pending.back().factor.exponent.device(), /*non_blocking=*/true);
    }
  }
  for (const std::vector<Pending*>& batch : equal_shapes(pending)) decompose(batch, vectors, solver);
  const std::vector<std::vector<double>> values = to_host(pending);

  std::vector<Spectrum> spectra;
  for (std::size_t i = 0; i < pending.size(); ++i) {
    const std::vector<double>& packed = values[i];
    Spectrum spectrum;
    spectrum.rows = spectrum.divisor = accumulators[i]->rows();
    spectrum.width = accumulators[i]->width();
    spectrum.finite = packed[1] != 0;
    if (spectrum.finite) {
      spectrum.exponent = static_cast<int>(packed[0]);
      spectrum.cancellation = packed[2];
      spectrum.sigma.assign(packed.begin() + 3, packed.end());
      spectrum.factor = pending[i].factor.factor;
      if (vectors) spectrum.right = pending[i].right.to(at::kCPU);
      if (std::any_of(spectrum.sigma.begin(), spectrum.sigma.end(), [](double s) { return !std::isfinite(s); })) {
        retry(pending[i].factor.factor, vectors, spectrum);
      }
    }
    spectra.push_back(std::move(spectrum));
  }
  return spectra;
}

std::vector<Spectrum> read_spectra(const std::vector<const TriangularAccumulator*>& accumulators, bool vectors) {
  return read_spectra(accumulators, vectors, library_svd);
}

Spectrum read_spectrum(const TriangularAccumulator& accumulator, bool vectors) {
  return read_spectra({&accumulator}, vectors).front();
}

double noise_floor(c10::ScalarType dtype, std::int64_t rows, std::int64_t width, double sigma_max) {
  const double engine = 10 * 0x1p-53;
  return std::sqrt(static_cast<double>(std::min(rows, width))) * (2 * machine_epsilon(dtype, "noise_floor") + engine) *
         sigma_max;
}

void read_numbers(const Spectrum& spectrum, c10::ScalarType dtype, Signature& signature) {
  signature.rows = spectrum.divisor;
  signature.width = spectrum.width;
  signature.dtype = dtype;
  const std::int64_t largest = std::min(spectrum.rows, spectrum.width);
  const std::int64_t bound = std::min(signature.structural_bound.value_or(largest), largest);
  signature.structural_bound = bound;
  if (!spectrum.finite) {
    if (!signature.bound_ended_by.empty()) signature.structural_bound.reset();
    signature.status |= Status::NonFinite;
    return;
  }
  if (spectrum.retried) signature.status |= Status::SolverRetried;
  const std::vector<double>& sigma = spectrum.sigma;
  const auto unscaled = [&](double value) { return std::ldexp(value, spectrum.exponent); };
  const double floor = noise_floor(dtype, spectrum.rows, spectrum.width, sigma.front()) * spectrum.cancellation;
  const auto rank =
      static_cast<std::size_t>(std::count_if(sigma.begin(), sigma.end(), [&](double value) { return value > floor; }));
  signature.sigma_max = unscaled(sigma.front());
  signature.sigma_min = unscaled(sigma.back());
  signature.floor = unscaled(floor);
  signature.at_floor = sigma.back() <= floor;
  signature.rank = static_cast<std::int64_t>(rank);
  if (*signature.rank > bound) signature.bound_ended_by = "rows of a larger rank";
  if (signature.bound_ended_by.empty() || *signature.rank == bound) {
    signature.dead_directions = bound - *signature.rank;
    signature.bound_ended_by.clear();
  } else {
    signature.structural_bound.reset();
    signature.status |= Status::BoundUnknown;
  }
  if (rank == 0) {
    signature.status |= sigma.front() > 0 ? Status::BelowFloor : Status::Zero;
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
    throw_invalid("dead_axes", "the spectrum", "without vectors", "read_spectrum(..., vectors = true)");
  }
  if (!signature.rank) {
    throw_invalid("dead_axes", "the signature's rank", "empty", "a signature that read_numbers filled in");
  }
  check(spectrum.width <= Spectrum::kMostAxes, "dead_axes", "the width", spectrum.width,
        "at most {}: in a wider layer they are what is orthogonal to the first `rank` of Signature::axes",
        Spectrum::kMostAxes);
  return spectrum.right.narrow(0, *signature.rank, spectrum.width - *signature.rank);
}

}  // namespace dds
