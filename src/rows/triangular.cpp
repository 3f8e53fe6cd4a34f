#include <ATen/ops/aminmax.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/frexp.h>
#include <ATen/ops/geqrf.h>
#include <ATen/ops/isfinite.h>
#include <ATen/ops/maximum.h>
#include <ATen/ops/mul.h>
#include <ATen/ops/scalar_tensor.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/where.h>
#include <ATen/ops/zeros.h>
#include <c10/core/GradMode.h>
#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>
#include <dds/error.hpp>
#include <dds/triangular.hpp>
#include <numeric>
#include <tuple>
#include <utility>

#include "src/base/check.hpp"

namespace dds {
namespace {

// Long enough that the merges cost little beside the leaves, and what a block costs whatever its size little beside its
// rows (./tests/benchmarks/run spectral); short enough for the cache.
std::int64_t block_of(std::int64_t width) {
  constexpr std::int64_t kPerWidth = 4, kEntries = std::int64_t{1} << 16, kLeast = 2048, kMost = 4096;
  return std::max(kPerWidth * width, std::clamp(kEntries / width, kLeast, kMost));
}

// Of a batch that is longer than a block as much is reduced at once: 8 d rows, or what fits in a cache of 4 MiB.
constexpr std::int64_t kLongestPerWidth = 8;
constexpr std::int64_t kCachedEntries = std::int64_t{1} << 19;

constexpr int kLowestExponent = -1000;
constexpr int kPlainExponent = 64;  // up to here scaling is spared: no square gets near the ends of double's range

/// e with 2^(e-1) <= largest < 2^e where scaling by 2^-e is called for, 0 where it is not; at least -1000, which is
/// that of a zero matrix: it must not win over any other. NaN where `largest` is not finite.
double exponent_of(double largest) {
  if (!std::isfinite(largest)) return NAN;
  if (!(largest > 0)) return kLowestExponent;
  int exponent = 0;
  std::frexp(largest, &exponent);
  return std::abs(exponent) <= kPlainExponent ? 0 : std::max(exponent, kLowestExponent);
}

/// The same for the entries of `rows`, 0-d and fp64, on a device that must not be waited for: scales whatever it is.
at::Tensor binary_exponent(const at::Tensor& rows) {
  const auto [low, high] = at::aminmax(rows);
  const at::Tensor largest = at::maximum(low.neg(), high);
  const at::Tensor exponent = std::get<1>(at::frexp(largest)).clamp_min(kLowestExponent);
  return largest.sub(largest).add(exponent.masked_fill(largest.le(0), kLowestExponent));
}

/// Copies rows (CPU) into a column-major matrix and returns the largest absolute value, NaN if one is not finite: what
/// three operators do in three passes, at the speed of one.
template <class T>
double transpose(const at::Tensor& rows, at::Tensor& columns) {
  constexpr std::int64_t kLanes = 8;
  const std::int64_t n = rows.size(0), d = rows.size(1);
  const std::int64_t down = rows.stride(0), across = rows.stride(1), leading = columns.stride(1);
  const T* const from = rows.data_ptr<T>();
  double* const to = columns.data_ptr<double>();
  std::array<double, kLanes> largest{}, odd{};  // odd: 0 - 0, or NaN
  const auto take = [&](std::int64_t i, std::int64_t j, std::int64_t lane) {
    const double x = static_cast<double>(from[i * down + j * across]), size = std::abs(x);
    to[j * leading + i] = x;
    largest[lane] = size > largest[lane] ? size : largest[lane];
    odd[lane] += x - x;
  };
  std::int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) {
    for (std::int64_t j = 0; j < d; ++j) {
      for (std::int64_t lane = 0; lane < kLanes; ++lane) take(i + lane, j, lane);
    }
  }
  for (; i < n; ++i) {
    for (std::int64_t j = 0; j < d; ++j) take(i, j, 0);
  }
  return *std::max_element(largest.begin(), largest.end()) + std::accumulate(odd.begin(), odd.end(), 0.0);
}

/// Copies rows of any floating type into a column-major fp64 matrix; gives their exponent.
at::Tensor copy_rows(const at::Tensor& rows, at::Tensor& columns) {
  if (!rows.is_cpu()) {
    columns.copy_(rows);
    return binary_exponent(columns);
  }
  const at::ScalarType type = rows.scalar_type();
  const double largest = type == at::kDouble  ? transpose<double>(rows, columns)
                         : type == at::kFloat ? transpose<float>(rows, columns)
                                              : transpose<double>(rows.to(at::kDouble), columns);
  return at::scalar_tensor(exponent_of(largest), columns.options());
}

/// True if the exponent is known to be 0, without waiting for a device.
bool is_zero(const at::Tensor& exponent) { return exponent.is_cpu() && *exponent.data_ptr<double>() == 0; }

}  // namespace

TriangularAccumulator::TriangularAccumulator(std::int64_t width) : width_(width) {
  check_at_least<std::int64_t>("TriangularAccumulator", "width", width, 1);
  block_ = block_of(width);
}

void TriangularAccumulator::check_device(at::Device device) {
  if (!device_) device_ = device;
  check(*device_ == device, "TriangularAccumulator", "the device of rows", device.str(), "{} as before",
        device_->str());
}

void TriangularAccumulator::update(const at::Tensor& rows) {
  if (!rows.defined() || rows.dim() != 2 || rows.size(1) != width_ || !at::isFloatingType(rows.scalar_type())) {
    throw_invalid("TriangularAccumulator::update", "rows", text_of(rows),
                  fmt::format("a floating matrix of {} columns", width_));
  }
  check_device(rows.device());
  const at::NoGradGuard no_grad;
  const std::int64_t longest = std::max({block_, kLongestPerWidth * width_, kCachedEntries / width_});
  for (std::int64_t begin = 0; begin < rows.size(0);) {
    const bool direct = buffer_.used == 0 && rows.size(0) - begin >= block_;
    const std::int64_t count = std::min(rows.size(0) - begin, direct ? longest : block_ - buffer_.used);
    const at::Tensor part = count == rows.size(0) ? rows : rows.narrow(0, begin, count);
    begin += count;
    if (direct) {
      add(part);
    } else {
      keep(part);
    }
  }
  rows_ += rows.size(0);
}

TriangularAccumulator::Buffer::Buffer(const Buffer& other) : used(other.used) {
  if (used > 0) rows = other.rows.narrow(0, 0, used).clone();
}

TriangularAccumulator::Buffer& TriangularAccumulator::Buffer::operator=(Buffer other) {
  rows = std::move(other.rows);
  used = other.used;
  return *this;
}

void TriangularAccumulator::keep(const at::Tensor& rows) {
  const std::int64_t needed = buffer_.used + rows.size(0);
  const std::int64_t capacity = buffer_.rows.defined() ? buffer_.rows.size(0) : 0;
  if (needed > capacity) {
    const std::int64_t larger = capacity == 0 ? needed : std::min(block_, 2 * needed);
    const at::Tensor room = at::empty({larger, width_}, rows.options().dtype(at::kDouble).requires_grad(false));
    if (buffer_.used > 0) room.narrow(0, 0, buffer_.used).copy_(buffered());
    buffer_.rows = room;
  }
  if (rows.is_cpu() && rows.scalar_type() == at::kDouble && rows.is_contiguous()) {
    // The same without the dispatcher, which costs more than a small batch.
    std::memcpy(buffer_.rows.data_ptr<double>() + buffer_.used * width_, rows.data_ptr<double>(), rows.nbytes());
  } else {
    buffer_.rows.narrow(0, buffer_.used, rows.size(0)).copy_(rows);
  }
  buffer_.used = needed;
  if (needed < block_) return;
  add(buffered());
  buffer_.used = 0;
}

at::Tensor TriangularAccumulator::buffered() const {
  return buffer_.used > 0 ? buffer_.rows.narrow(0, 0, buffer_.used) : at::Tensor();
}

void TriangularAccumulator::merge(const TriangularAccumulator& other) {
  if (other.width_ != width_) {
    throw_invalid("TriangularAccumulator::merge", "the other's width", std::to_string(other.width_),
                  std::to_string(width_));
  }
  if (other.device_) check_device(*other.device_);
  const at::NoGradGuard no_grad;
  const auto levels = other.levels_;  // copies, so that an accumulator may be merged with itself
  const Buffer buffer = other.buffer_;
  const std::int64_t total = rows_ + other.rows_;
  for (std::size_t level = 0; level < levels.size(); ++level) {
    if (levels[level]) add(*levels[level], level);
  }
  if (buffer.used > 0) update(buffer.rows);
  rows_ = total;
}

TriangularAccumulator TriangularAccumulator::to(at::Device device) const {
  const at::NoGradGuard no_grad;
  TriangularAccumulator result = *this;
  if (!device_ || *device_ == device) return result;
  result.device_ = device;
  if (result.buffer_.used > 0) result.buffer_.rows = result.buffer_.rows.to(device);
  for (std::optional<Node>& node : result.levels_) {
    if (node) node = Node{node->factor.to(device), node->exponent.to(device)};
  }
  return result;
}

// All parts are scaled into one column-major matrix, which LAPACK and its kin factorise in place.
TriangularAccumulator::Node TriangularAccumulator::reduce(const at::Tensor& rows, const std::vector<Node>& nodes) {
  if (!rows.defined() && nodes.size() == 1) return nodes.front();
  const at::TensorOptions options =
      (rows.defined() ? rows : nodes.front().factor).options().dtype(at::kDouble).requires_grad(false);
  const std::int64_t width = rows.defined() ? rows.size(1) : nodes.front().factor.size(1);
  std::int64_t total = rows.defined() ? rows.size(0) : 0;
  for (const Node& node : nodes) total += node.factor.size(0);
  at::Tensor matrix = at::empty({width, total}, options).t();

  at::Tensor exponent, own, into;
  std::int64_t begin = 0;
  if (rows.defined()) {
    begin = rows.size(0);
    into = matrix.narrow(0, 0, begin);
    own = copy_rows(rows, into);
    exponent = own;
  }
  for (const Node& node : nodes) exponent = exponent.defined() ? at::maximum(exponent, node.exponent) : node.exponent;
  if (rows.defined() && !is_zero(exponent)) into.mul_(exponent.neg().exp2());
  for (const Node& node : nodes) {
    at::Tensor part = matrix.narrow(0, begin, node.factor.size(0));
    at::mul_out(part, node.factor, node.exponent.sub(exponent).exp2());
    begin += part.size(0);
  }
  if (total <= width) return {matrix, exponent};  // rows no more than columns are their own factor
  at::Tensor tau = at::empty({width}, options);
  at::geqrf_out(matrix, tau, matrix);
  return {matrix.narrow(0, 0, width).triu(), exponent};
}

void TriangularAccumulator::add(const at::Tensor& rows) {
  std::vector<Node> carried;
  std::size_t level = 0;
  for (; level < levels_.size() && levels_[level]; ++level) {
    carried.push_back(*std::exchange(levels_[level], std::nullopt));
  }
  if (level >= levels_.size()) levels_.resize(level + 1);
  levels_[level] = reduce(rows, carried);
}

void TriangularAccumulator::add(Node node, std::size_t level) {
  for (; level < levels_.size() && levels_[level]; ++level) {
    node = reduce({}, {*std::exchange(levels_[level], std::nullopt), node});
  }
  if (level >= levels_.size()) levels_.resize(level + 1);
  levels_[level] = std::move(node);
}

TriangularAccumulator::Node TriangularAccumulator::node() const {
  std::vector<Node> nodes;
  for (const std::optional<Node>& node : levels_) {
    if (node) nodes.push_back(*node);
  }
  return reduce(buffered(), nodes);
}

TriangularAccumulator::Factor TriangularAccumulator::factor() const {
  check_at_least<std::int64_t>("TriangularAccumulator::factor", "rows", rows_, 1);
  const at::NoGradGuard no_grad;
  const Node all = node();
  at::Tensor finite = at::isfinite(all.exponent);
  return {at::where(finite, all.factor, at::zeros({}, all.factor.options())), all.exponent, finite};
}

TriangularAccumulator TriangularAccumulator::from_factor(std::int64_t rows, const at::Tensor& factor,
                                                         const at::Tensor& exponent) {
  constexpr const char* kFunction = "TriangularAccumulator::from_factor";
  check(factor.defined() && factor.dim() == 2 && factor.scalar_type() == at::kDouble && factor.size(1) > 0 &&
            factor.size(0) > 0 && factor.size(0) == std::min(rows, factor.size(1)),
        kFunction, "factor", factor, "Double [min({}, d), d]", rows);
  check(exponent.defined() && exponent.dim() == 0 && exponent.scalar_type() == at::kDouble, kFunction, "exponent",
        exponent, "Double []");
  TriangularAccumulator result(factor.size(1));
  result.check_device(factor.device());
  result.rows_ = rows;
  result.add(Node{factor, exponent}, 0);
  return result;
}

// The state: a header {width, rows, levels that follow as bits}, the buffered rows in one matrix, and factor and
// exponent of each level.
std::vector<at::Tensor> TriangularAccumulator::state() const {
  const at::NoGradGuard no_grad;
  std::int64_t occupied = 0;
  for (std::size_t level = 0; level < levels_.size(); ++level) {
    if (levels_[level]) occupied |= std::int64_t{1} << level;
  }
  const auto options = at::TensorOptions(at::kDouble).device(device_.value_or(at::kCPU));
  std::vector<at::Tensor> state{at::tensor({width_, rows_, occupied}, at::kLong),
                                buffer_.used > 0 ? buffered().clone() : at::zeros({0, width_}, options)};
  for (const std::optional<Node>& node : levels_) {
    if (node) state.insert(state.end(), {node->factor, node->exponent});
  }
  return state;
}

TriangularAccumulator TriangularAccumulator::from_state(const std::vector<at::Tensor>& state) {
  constexpr const char* kFunction = "TriangularAccumulator::from_state";
  constexpr const char* kCount = "the number of tensors";
  check_at_least<std::size_t>(kFunction, kCount, state.size(), 2);
  check(state[0].defined() && state[0].is_cpu() && state[0].scalar_type() == at::kLong && state[0].numel() == 3,
        kFunction, "tensor 0", state[0], "the header, Long [3]");
  const at::Tensor header = state[0].contiguous();
  const std::int64_t* const numbers = header.data_ptr<std::int64_t>();
  TriangularAccumulator result(numbers[0]);
  result.rows_ = numbers[1];
  const auto matrix = [&](std::size_t i, std::int64_t most) {
    const at::Tensor& rows = state[i];
    check(rows.defined() && rows.dim() == 2 && rows.scalar_type() == at::kDouble && rows.size(1) == result.width_ &&
              rows.size(0) <= most,
          kFunction, fmt::format("tensor {}", i), rows, "Double [up to {}, {}]", most, result.width_);
    result.check_device(rows.device());
    return rows.detach();
  };
  const at::Tensor buffer = matrix(1, result.block_ - 1);
  if (buffer.size(0) > 0) result.keep(buffer);
  std::size_t next = 2;
  for (std::size_t level = 0; level < 63; ++level) {
    if ((numbers[2] >> level & 1) == 0) continue;
    check(next + 1 < state.size(), kFunction, kCount, state.size(), "more, for level {}", level);
    const at::Tensor factor = matrix(next, result.width_);
    const at::Tensor& exponent = state[next + 1];
    check(exponent.defined() && exponent.dim() == 0 && exponent.scalar_type() == at::kDouble, kFunction,
          fmt::format("tensor {}", next + 1), exponent, "Double []");
    result.levels_.resize(level + 1);
    result.levels_[level] = Node{factor, exponent.detach()};
    next += 2;
  }
  check(next == state.size(), kFunction, kCount, state.size(), "{}", next);
  const bool empty = buffer.size(0) == 0 && result.levels_.empty();
  check(numbers[1] >= buffer.size(0) && (numbers[1] == 0) == empty, kFunction, "the number of rows in the header",
        numbers[1], "one that the tensors can hold");
  return result;
}

}  // namespace dds
