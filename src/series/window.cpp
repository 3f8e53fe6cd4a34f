#include <c10/core/GradMode.h>
#include <fmt/format.h>

#include <dds/error.hpp>
#include <dds/window.hpp>

namespace dds {

TriangularWindow::TriangularWindow(std::int64_t capacity) : capacity_(capacity) {
  if (capacity <= 0)
    throw InvalidArgument(fmt::format("TriangularWindow: capacity is {}, expected at least 1", capacity));
}

TriangularWindow::Part TriangularWindow::joined(const Part& a, const Part& b) {
  return {TriangularAccumulator::reduce({}, {a.node, b.node}), a.rows + b.rows};
}

void TriangularWindow::push(const TriangularAccumulator& accumulator) {
  if (accumulator.rows() == 0) {
    throw InvalidArgument("TriangularWindow::push: the accumulator has no rows, expected at least one");
  }
  const at::NoGradGuard no_grad;
  if (width_ != accumulator.width_ || device_ != accumulator.device_) {
    older_.clear();
    newer_.clear();
    sum_.reset();
    width_ = accumulator.width_;
    device_ = accumulator.device_;
  }
  Part part{accumulator.node(), accumulator.rows_};
  sum_ = sum_ ? joined(*sum_, part) : part;
  newer_.push_back(std::move(part));
  if (size() <= capacity_) return;
  if (older_.empty()) {
    for (; !newer_.empty(); newer_.pop_back()) {
      older_.push_back(older_.empty() ? newer_.back() : joined(newer_.back(), older_.back()));
    }
    sum_.reset();
  }
  older_.pop_back();
}

TriangularAccumulator TriangularWindow::all() const {
  if (size() == 0)
    throw InvalidArgument("TriangularWindow::all: nothing was pushed, expected at least one accumulator");
  const at::NoGradGuard no_grad;
  const Part part = older_.empty() ? *sum_ : sum_ ? joined(older_.back(), *sum_) : older_.back();
  TriangularAccumulator result(width_);
  result.device_ = device_;
  result.rows_ = part.rows;
  result.add(part.node, 0);
  return result;
}

}  // namespace dds
