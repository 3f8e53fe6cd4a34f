#include <c10/core/GradMode.h>

#include <dds/window.hpp>

#include "src/base/check.hpp"

namespace dds {

TriangularWindow::TriangularWindow(std::int64_t capacity) : capacity_(capacity) {
  check_at_least("TriangularWindow", "capacity", capacity, 1);
}

TriangularWindow::Part TriangularWindow::joined(const Part& a, const Part& b) {
  return {TriangularAccumulator::reduce({}, {a.node, b.node}), a.rows + b.rows};
}

void TriangularWindow::push(const TriangularAccumulator& accumulator) {
  check_at_least("TriangularWindow::push", "the number of rows", accumulator.rows(), 1);
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
  check_at_least("TriangularWindow::all", "size", size(), 1);
  const at::NoGradGuard no_grad;
  const Part part = older_.empty() ? *sum_ : sum_ ? joined(older_.back(), *sum_) : older_.back();
  return TriangularAccumulator::from_factor(part.rows, part.node.factor, part.node.exponent);
}

}  // namespace dds
