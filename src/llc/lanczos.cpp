#include "src/llc/lanczos.hpp"

#include <ATen/TensorOperators.h>
#include <ATen/ops/dot.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/linalg_eigh.h>
#include <ATen/ops/mv.h>
#include <ATen/ops/stack.h>
#include <ATen/ops/zeros.h>

#include <algorithm>
#include <cmath>
#include <cstdint>

#include "src/base/dtype.hpp"
#include "src/llc/pass.hpp"

namespace dds {
namespace {

constexpr std::int64_t kMostSteps = 96, kFewestSteps = 16;
constexpr std::int64_t kMostNumbers = 50'000'000;  // in the basis
constexpr std::int64_t kStepsPerLook = 8;
constexpr double kSettled = 0.02;  // |H v - theta v| against |theta|

/// w less its parts in the rows of `basis`. Twice, for what rounding leaves.
void remove_rows(const at::Tensor& basis, at::Tensor& w) {
  for (int i = 0; i < 2; ++i) w.sub_(at::mv(basis.t(), at::mv(basis, w)));
}

/// An orthonormal basis in which H is tridiagonal, one vector longer with each step.
class Tridiagonal {
 public:
  Tridiagonal(const at::Tensor& start, const std::vector<at::Tensor>& known) {
    const auto size = start.numel();
    const auto steps = std::clamp(kMostNumbers / size, kFewestSteps, kMostSteps);
    rows_ = at::empty({std::min(size - static_cast<std::int64_t>(known.size()), steps), size}, start.options());
    if (!known.empty()) known_ = at::stack(known);
    next_ = start.clone();
    remove_known();
    off_.push_back(0);
    next_.div_(length_of(next_));
  }

  /// False once there is no further one: H maps the basis to itself, or it is as long as it may be.
  bool step(const std::function<at::Tensor(const at::Tensor&)>& times) {
    const auto k = static_cast<std::int64_t>(diagonal_.size());
    if (k == rows_.size(0)) return false;
    rows_.select(0, k).copy_(next_);
    auto image = times(next_).clone();
    const double along = at::dot(image, next_).item<double>();
    if (!std::isfinite(along)) return false;
    diagonal_.push_back(along);
    remove_rows(rows_.narrow(0, 0, k + 1), image);
    next_ = image;
    remove_known();
    const double rest = length_of(next_);
    largest_ = std::max({largest_, std::abs(along), rest});
    off_.push_back(rest);
    if (!(rest > rounding() * largest_) || !std::isfinite(rest)) return false;
    next_.div_(rest);
    return true;
  }

  struct Pairs {
    at::Tensor values, vectors;  // ascending; a column each, in the basis
  };
  Pairs eigenpairs() const {
    const auto k = static_cast<std::int64_t>(diagonal_.size());
    auto matrix = at::zeros({k, k}, at::kDouble);
    for (std::int64_t i = 0; i < k; ++i) {
      const auto at = static_cast<std::size_t>(i);
      matrix[i][i] = diagonal_[at];
      if (i > 0) matrix[i][i - 1] = matrix[i - 1][i] = off_[at];
    }
    const auto [values, vectors] = at::linalg_eigh(matrix);
    return {values, vectors};
  }

  bool has_settled() const {
    const auto k = static_cast<std::int64_t>(diagonal_.size());
    const auto pairs = eigenpairs();
    const double lowest = pairs.values[0].item<double>();
    return lowest < 0 && off_.back() * std::abs(pairs.vectors[k - 1][0].item<double>()) <= kSettled * -lowest;
  }

  at::Tensor vector(const at::Tensor& coefficients) const {
    return at::mv(rows_.narrow(0, 0, coefficients.numel()).t(), coefficients.to(rows_.options()));
  }
  std::int64_t length() const { return static_cast<std::int64_t>(diagonal_.size()); }
  /// A curvature of this size, against the largest, may be rounding.
  double rounding() const { return 100 * machine_epsilon(rows_.scalar_type(), "estimate_llc"); }
  double largest() const { return largest_; }

 private:
  void remove_known() {
    if (known_.defined()) remove_rows(known_, next_);
  }

  at::Tensor rows_, known_, next_;
  std::vector<double> diagonal_, off_;  // off_[i]: between i - 1 and i
  double largest_ = 0;
};

}  // namespace

std::vector<NegativeDirection> negative_directions(const std::function<at::Tensor(const at::Tensor&)>& times,
                                                   const at::Tensor& start, const std::vector<at::Tensor>& known,
                                                   const std::function<bool()>& stop) {
  std::vector<NegativeDirection> found;
  if (static_cast<std::int64_t>(known.size()) >= start.numel()) return found;
  Tridiagonal tridiagonal(start, known);
  while (!stop() && tridiagonal.step(times)) {
    if (tridiagonal.length() % kStepsPerLook == 0 && tridiagonal.has_settled()) break;
  }
  if (tridiagonal.length() == 0) return found;
  const auto pairs = tridiagonal.eigenpairs();
  for (std::int64_t i = 0; i < tridiagonal.length(); ++i) {
    const double curvature = pairs.values[i].item<double>();
    if (curvature >= -tridiagonal.rounding() * tridiagonal.largest()) break;
    found.push_back({curvature, tridiagonal.vector(pairs.vectors.select(1, i))});
  }
  return found;
}

}  // namespace dds
