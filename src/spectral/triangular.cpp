#include <ATen/ops/aminmax.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/isfinite.h>
#include <ATen/ops/linalg_qr.h>
#include <ATen/ops/maximum.h>
#include <ATen/ops/where.h>
#include <ATen/ops/zeros_like.h>
#include <c10/core/GradMode.h>
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <dds/error.hpp>
#include <dds/triangular.hpp>
#include <tuple>
#include <utility>

namespace dds {
namespace {

// A leaf of 8 d rows costs 16 d^3 and its share of the merges 10/3 d^3: the tree stays within 1.2 of a single QR.
constexpr std::int64_t kBlockPerWidth = 8;
constexpr std::int64_t kMinBlock = 512;
// Entries reduced at once: bounds the fp64 copy of a long, thin batch (a convolution's rows are its positions).
constexpr std::int64_t kMaxBlockEntries = std::int64_t{1} << 22;

/// e (0-d, fp64) with 2^e <= max |rows| < 2^(e+1); -1000 for a zero matrix, NaN where the rows hold a NaN or Inf.
at::Tensor binary_exponent(const at::Tensor& rows) {
  const auto [low, high] = at::aminmax(rows);
  const at::Tensor largest = at::maximum(low.neg(), high).to(at::kDouble);
  const at::Tensor exponent = largest.log2().floor().clamp(-1000, 1000);
  return at::where(at::isfinite(largest).logical_and(largest.gt(0)), exponent, largest.sub(largest).sub(1000));
}

/// R of the rows' QR; rows no more than columns are their own factor.
at::Tensor triangle(const at::Tensor& rows) {
  return rows.size(0) > rows.size(1) ? std::get<1>(at::linalg_qr(rows, "r")) : rows;
}

}  // namespace

TriangularAccumulator::TriangularAccumulator(std::int64_t width)
    : width_(width), block_(std::max(kMinBlock, kBlockPerWidth * width)) {
  if (width <= 0) throw InvalidArgument(fmt::format("TriangularAccumulator: width is {}, expected at least 1", width));
}

void TriangularAccumulator::check_device(at::Device device) {
  if (!device_) device_ = device;
  if (*device_ != device) {
    throw InvalidArgument(
        fmt::format("TriangularAccumulator: rows are on {}, expected {} as before", device.str(), device_->str()));
  }
}

void TriangularAccumulator::update(const at::Tensor& rows) {
  if (!rows.defined() || rows.dim() != 2 || rows.size(1) != width_ || !at::isFloatingType(rows.scalar_type())) {
    const std::string got =
        rows.defined() ? fmt::format("{} [{}]", c10::toString(rows.scalar_type()), fmt::join(rows.sizes().vec(), ", "))
                       : "undefined";
    throw InvalidArgument(fmt::format(
        "TriangularAccumulator::update: rows are {}, expected a floating matrix of {} columns", got, width_));
  }
  check_device(rows.device());
  const at::NoGradGuard no_grad;
  const std::int64_t longest = std::max(block_, kMaxBlockEntries / width_);
  for (std::int64_t begin = 0; begin < rows.size(0);) {
    const std::int64_t count = std::min(rows.size(0) - begin, longest - buffered_);
    const at::Tensor part = rows.detach().narrow(0, begin, count);
    begin += count;
    if (buffer_.empty() && count >= block_) {
      add(reduce(part), 0);
      continue;
    }
    buffer_.push_back(part.to(at::kDouble, /*non_blocking=*/false, /*copy=*/true));
    buffered_ += count;
    if (buffered_ >= block_) flush();
  }
  rows_ += rows.size(0);
}

void TriangularAccumulator::merge(const TriangularAccumulator& other) {
  if (other.width_ != width_) {
    throw InvalidArgument(
        fmt::format("TriangularAccumulator::merge: the other has width {}, expected {}", other.width_, width_));
  }
  if (other.device_) check_device(*other.device_);
  const at::NoGradGuard no_grad;
  const auto levels = other.levels_;  // a copy, so that an accumulator may be merged with itself
  const auto buffer = other.buffer_;
  rows_ += other.rows_;
  for (std::size_t level = 0; level < levels.size(); ++level) {
    if (levels[level]) add(*levels[level], level);
  }
  for (const at::Tensor& rows : buffer) {
    buffer_.push_back(rows);
    buffered_ += rows.size(0);
  }
  if (buffered_ >= block_) flush();
}

TriangularAccumulator::Node TriangularAccumulator::reduce(const at::Tensor& rows) {
  // The exponent of fp32 rows is found before they are converted, to save a pass; not every LibTorch reduces shorter
  // types.
  const at::Tensor values = rows.scalar_type() == at::kFloat ? rows : rows.to(at::kDouble);
  at::Tensor exponent = binary_exponent(values);
  return {triangle(values.to(at::kDouble).mul((-exponent).exp2())), std::move(exponent)};
}

TriangularAccumulator::Node TriangularAccumulator::merge(const Node& a, const Node& b) {
  at::Tensor exponent = at::maximum(a.exponent, b.exponent);
  const auto scaled = [&](const Node& node) { return node.factor.mul(node.exponent.sub(exponent).exp2()); };
  return {triangle(at::cat({scaled(a), scaled(b)})), std::move(exponent)};
}

void TriangularAccumulator::add(Node node, std::size_t level) {
  for (; level < levels_.size() && levels_[level]; ++level) {
    node = merge(*std::exchange(levels_[level], std::nullopt), node);
  }
  if (level >= levels_.size()) levels_.resize(level + 1);
  levels_[level] = std::move(node);
}

void TriangularAccumulator::flush() {
  const at::Tensor rows = buffer_.size() == 1 ? buffer_.front() : at::cat(buffer_);
  buffer_.clear();
  buffered_ = 0;
  add(reduce(rows), 0);
}

TriangularAccumulator::Factor TriangularAccumulator::factor() const {
  if (rows_ == 0) throw InvalidArgument("TriangularAccumulator::factor: no rows were added, expected at least one");
  const at::NoGradGuard no_grad;
  std::optional<Node> all;
  if (!buffer_.empty()) all = reduce(at::cat(buffer_));
  for (const std::optional<Node>& node : levels_) {
    if (node) all = all ? merge(*node, *all) : *node;
  }
  at::Tensor finite = at::isfinite(all->exponent);
  return {at::where(finite, all->factor, at::zeros_like(all->factor)), all->exponent, finite};
}

}  // namespace dds
