#include "hooks/layer_index.hpp"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <utility>

#include "src/base/check.hpp"
#include "src/base/glob.hpp"

namespace dds::hooks {

bool is_tap(std::string_view pattern) { return pattern.starts_with("tap:"); }

LayerIndex::LayerIndex(std::shared_ptr<ParameterSource> source, LayerSelection selection)
    : source_(std::move(source)), selection_(std::move(selection)) {
  add_layers();
  if (!grows()) check_selection();
}

void LayerIndex::add_layers() {
  source_->for_each([this](const FoundParameter& found) {
    if (!by_name_.try_emplace(found.layer, layers_.size()).second) return;
    const bool selected =
        selection_.patterns.select(found.layer) && (!selection_.select || selection_.select(found.layer));
    if (selected) selected_.push_back(found.layer);
    layers_.push_back({found.layer, found.kind, selected});
  });
}

void LayerIndex::check_selection() const {
  std::vector<std::string> all;
  for (const Layer& layer : layers_) all.push_back(layer.name);
  if (all.empty()) {
    throw_invalid("Recorder", "the model", "one with no parameters", "at least one layer that has some");
  }
  const auto& patterns = selection_.patterns.list();
  for (const std::string& pattern : patterns) {
    if (is_tap(pattern) || glob_match_any(pattern, all)) continue;
    throw_invalid("Recorder", "the layer pattern", fmt::format("'{}'", pattern),
                  fmt::format("one that matches a layer of {}", fmt::join(all, ", ")));
  }
  if (selected_.empty() && std::none_of(patterns.begin(), patterns.end(), is_tap)) {
    throw_invalid("Recorder", "select", "a predicate for no layer",
                  fmt::format("one for some layer of {}", fmt::join(all, ", ")));
  }
}

bool LayerIndex::adopt(const at::Tensor& leaf) {
  if (!source_->adopt(leaf)) return false;
  add_layers();
  refresh();
  return true;
}

void LayerIndex::refresh() {
  if (grows()) add_layers();
  parameters_.clear();
  holders_.clear();
  source_->for_each([this](const FoundParameter& found) {
    const auto layer = by_name_.find(found.layer);
    if (layer == by_name_.end()) return;
    const std::size_t number = parameters_.add(found.tensor);
    if (number >= holders_.size()) holders_.resize(number + 1);
    std::vector<std::size_t>& holders = holders_[number];
    if (std::find(holders.begin(), holders.end(), layer->second) == holders.end()) holders.push_back(layer->second);
  });
}

const std::vector<std::size_t>* LayerIndex::layers_of(const at::Tensor& tensor) const {
  const auto place = parameters_.find(tensor);
  return place ? &holders_[place->number] : nullptr;
}

}  // namespace dds::hooks
