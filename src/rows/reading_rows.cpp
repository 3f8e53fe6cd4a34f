#include "src/rows/reading_rows.hpp"

#include <algorithm>
#include <utility>

namespace dds {

void ReadingRows::Layer::merge(const Layer& other) {
  rows.merge(other.rows);
  if (reduction.empty()) {  // of no rows
    reduction = other.reduction;
    targets = other.targets;
  } else if (!other.reduction.empty()) {
    targets = targets > 0 && other.targets > 0 ? targets + other.targets : 0;
  }
  cancellation.add(other.cancellation);
}

std::vector<at::Tensor> ReadingRows::tensors() const {
  std::vector<at::Tensor> all;
  for (const Layer& layer : layers) {
    const std::vector<at::Tensor> rows = layer.rows.tensors();
    all.insert(all.end(), rows.begin(), rows.end());
    const auto [known, terms, difference] = layer.cancellation.parts();
    if (terms.defined()) all.insert(all.end(), {terms, difference});
  }
  return all;
}

ReadingRows::Layer* ReadingRows::find(const std::string& layer) {
  const auto found =
      std::find_if(layers.begin(), layers.end(), [&](const Layer& each) { return each.rows.layer() == layer; });
  return found == layers.end() ? nullptr : &*found;
}

void ReadingRows::merge(Layer layer) {
  if (Layer* const own = find(layer.rows.layer())) {
    own->merge(layer);
  } else {
    layers.push_back(std::move(layer));
  }
}

void ReadingRows::keep_error() noexcept {
  if (!error) error = std::current_exception();
}

void ReadingRows::fail() noexcept {
  keep_error();
  incomplete = true;
}

void ReadingRows::reduce() {
  for (Layer& layer : layers) {
    try {
      layer.rows.reduce();
    } catch (...) {
      keep_error();
      layer.rows.mark(Status::CaptureFailed);
    }
  }
}

void ReadingRows::mark(StatusSet status) {
  for (Layer& layer : layers) layer.rows.mark(status);
}

}  // namespace dds
