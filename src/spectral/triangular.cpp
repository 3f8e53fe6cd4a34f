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
#include <fmt/ranges.h>

#include <algorithm>
#include <cmath>
#include <dds/error.hpp>
#include <dds/triangular.hpp>
#include <tuple>
#include <utility>

namespace dds {
namespace {

// Long enough that the merges cost little beside the leaves (./tests/benchmarks/run spectral), short enough for the
// cache.
constexpr std::int64_t kBlockPerWidth = 4;
constexpr std::int64_t kMinBlock = 2048;
// Of a batch that is longer than a block as much is reduced at once: 8 d rows, or what fits in a cache of 4 MiB.
constexpr std::int64_t kLongestPerWidth = 8;
constexpr std::int64_t kCachedEntries = std::int64_t{1} << 19;

constexpr int kLowestExponent = -1000;

/// e (0-d, fp64) with 2^(e-1) <= max |rows| < 2^e, at least -1000, which is that of a zero matrix: it must not win over
/// any other. NaN where the rows hold a NaN or Inf.
at::Tensor binary_exponent(const at::Tensor& rows) {
  const auto [low, high] = at::aminmax(rows);
  if (rows.is_cpu()) {  // the same without five calls of the dispatcher, which cost more than a small matrix
    const double largest = std::max(-*low.data_ptr<double>(), *high.data_ptr<double>());
    int exponent = 0;
    std::frexp(largest, &exponent);
    if (!(largest > 0)) exponent = kLowestExponent;
    return at::scalar_tensor(std::isfinite(largest) ? std::max(exponent, kLowestExponent) : NAN, rows.options());
  }
  const at::Tensor largest = at::maximum(low.neg(), high);
  const at::Tensor exponent = std::get<1>(at::frexp(largest)).clamp_min(kLowestExponent);
  return largest.sub(largest).add(exponent.masked_fill(largest.le(0), kLowestExponent));
}

std::string described(const at::Tensor& tensor) {
  return tensor.defined()
             ? fmt::format("{} [{}]", c10::toString(tensor.scalar_type()), fmt::join(tensor.sizes().vec(), ", "))
             : "undefined";
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
    throw InvalidArgument(
        fmt::format("TriangularAccumulator::update: rows are {}, expected a floating matrix of {} columns",
                    described(rows), width_));
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
      add(part.to(at::kDouble));
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
  buffer_.rows.narrow(0, buffer_.used, rows.size(0)).copy_(rows);
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
    throw InvalidArgument(
        fmt::format("TriangularAccumulator::merge: the other has width {}, expected {}", other.width_, width_));
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

// All parts are scaled into one column-major matrix, which LAPACK and its kin factorise in place.
TriangularAccumulator::Node TriangularAccumulator::reduce(const at::Tensor& rows, const std::vector<Node>& nodes) {
  if (!rows.defined() && nodes.size() == 1) return nodes.front();
  std::int64_t total = rows.defined() ? rows.size(0) : 0;
  at::Tensor exponent = rows.defined() ? binary_exponent(rows) : nodes.front().exponent;
  for (const Node& node : nodes) {
    total += node.factor.size(0);
    exponent = at::maximum(exponent, node.exponent);
  }
  const at::Tensor& like = rows.defined() ? rows : nodes.front().factor;
  const std::int64_t width = like.size(1);
  at::Tensor matrix = at::empty({width, total}, like.options()).t();
  std::int64_t begin = 0;
  const auto place = [&](const at::Tensor& part, const at::Tensor& shift) {
    at::Tensor into = matrix.narrow(0, begin, part.size(0));
    at::mul_out(into, part, shift.exp2());
    begin += part.size(0);
  };
  for (const Node& node : nodes) place(node.factor, node.exponent.sub(exponent));
  if (rows.defined()) place(rows, exponent.neg());
  if (total <= width) return {matrix, exponent};  // rows no more than columns are their own factor
  at::Tensor tau = at::empty({width}, like.options());
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
  if (rows_ == 0) throw InvalidArgument("TriangularAccumulator::factor: no rows were added, expected at least one");
  const at::NoGradGuard no_grad;
  const Node all = node();
  at::Tensor finite = at::isfinite(all.exponent);
  return {at::where(finite, all.factor, at::zeros({}, all.factor.options())), all.exponent, finite};
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
  const auto check = [](bool holds, const std::string& what) {
    if (!holds) throw InvalidArgument("TriangularAccumulator::from_state: " + what);
  };
  check(state.size() >= 2, fmt::format("{} tensors, expected at least 2", state.size()));
  check(state[0].defined() && state[0].is_cpu() && state[0].scalar_type() == at::kLong && state[0].numel() == 3,
        fmt::format("tensor 0 is {}, expected the header, Long [3]", described(state[0])));
  const at::Tensor header = state[0].contiguous();
  const std::int64_t* const numbers = header.data_ptr<std::int64_t>();
  TriangularAccumulator result(numbers[0]);
  result.rows_ = numbers[1];
  const auto matrix = [&](std::size_t i, std::int64_t most) {
    const at::Tensor& rows = state[i];
    check(rows.defined() && rows.dim() == 2 && rows.scalar_type() == at::kDouble && rows.size(1) == result.width_ &&
              rows.size(0) <= most,
          fmt::format("tensor {} is {}, expected Double [up to {}, {}]", i, described(rows), most, result.width_));
    result.check_device(rows.device());
    return rows.detach();
  };
  const at::Tensor buffer = matrix(1, result.block_ - 1);
  if (buffer.size(0) > 0) result.keep(buffer);
  std::size_t next = 2;
  for (std::size_t level = 0; level < 63; ++level) {
    if ((numbers[2] >> level & 1) == 0) continue;
    check(next + 1 < state.size(), fmt::format("{} tensors, expected more for level {}", state.size(), level));
    const at::Tensor factor = matrix(next, result.width_);
    const at::Tensor& exponent = state[next + 1];
    check(exponent.defined() && exponent.dim() == 0 && exponent.scalar_type() == at::kDouble,
          fmt::format("tensor {} is {}, expected Double []", next + 1, described(exponent)));
    result.levels_.resize(level + 1);
    result.levels_[level] = Node{factor, exponent.detach()};
    next += 2;
  }
  check(next == state.size(), fmt::format("{} tensors, expected {}", state.size(), next));
  const bool empty = buffer.size(0) == 0 && result.levels_.empty();
  check(numbers[1] >= buffer.size(0) && (numbers[1] == 0) == empty,
        fmt::format("the header tells of {} rows, which the tensors cannot hold", numbers[1]));
  return result;
}

}  // namespace dds
