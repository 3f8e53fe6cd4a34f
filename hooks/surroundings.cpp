#include "hooks/surroundings.hpp"

#include <ATen/ops/logical_and.h>

#include <algorithm>

#include "hooks/operators.hpp"

namespace dds::hooks {
namespace {

using Dims = std::vector<std::int64_t>;

/// True where all of a matrix is zero along `dim`.
at::Tensor zero_along(const at::Tensor& matrix, std::int64_t dim) { return matrix.eq(0).all(dim); }

bool is_one_link(const Node& node) {
  return std::count_if(node.links.begin(), node.links.end(),
                       [](const Link& link) { return link.way != Link::Way::Hidden; }) == 1;
}

/// True if entries along a dimension depend on those of the operand at the same place alone.
bool by_feature(Link::Way way) {
  return way == Link::Way::Linear || way == Link::Way::Entries || way == Link::Way::Clips;
}

/// The dimension of the result that is dimension `feature` of the link's operand, entry by entry.
std::optional<int> kept(const Link& link, int feature) {
  if (!by_feature(link.way)) return std::nullopt;
  for (std::size_t dim = 0; dim < link.axes.size(); ++dim) {
    const DimSource& axis = link.axes[dim];
    if (axis.kind == DimSource::Kind::Same && axis.from.size() == 1 && axis.from.front() == feature) {
      return static_cast<int>(dim);
    }
  }
  return std::nullopt;
}

std::string same_or_none(const std::string& a, const std::string& b) { return a == b ? a : std::string(); }

at::Tensor both(const at::Tensor& a, const at::Tensor& b) {
  if (!a.defined() || !b.defined() || a.sizes() != b.sizes() || a.device() != b.device()) return {};
  return at::logical_and(a, b);
}

}  // namespace

Surroundings around_run(const LayerRun& run, std::string_view op) {
  Surroundings around;
  if (!run.weight.defined() || run.inputs.empty()) return around;
  const at::Tensor weight = run.weight.detach();
  const Operator* const entry = find_operator(op);
  if (run.patch != kUnbounded && run.patch > 0) around.taps = run.patch;
  if (run.family == Family::Contraction && weight.dim() == 2 && run.output_features == Dims{-1} &&
      run.input_features == Dims{-1} && weight.size(0) == run.inputs.front().size(-1)) {
    around.unfed = zero_along(weight, 0);
    around.unread = zero_along(weight, 1);
  } else if (run.family == Family::Convolution && weight.dim() >= 3) {
    around.pads = true;
    const auto* const convolution = entry ? entry->as<kind::Convolution>() : nullptr;
    const std::int64_t channels = run.inputs.front().size(1 - weight.dim());
    if (!convolution || convolution->transposed || convolution->is_transposed != kind::kNone) return around;
    around.unfed = zero_along(weight.flatten(1), 1);
    if (weight.size(1) == channels) around.unread = zero_along(weight.transpose(0, 1).flatten(1), 1);
  } else if (const auto* const norm = entry ? entry->as<kind::Norm>() : nullptr;
             norm && norm->over == kind::Norm::Over::Layer && weight.dim() == 1) {
    around.gain = weight.clone();
  }
  return around;
}

SurroundingsFinder::SurroundingsFinder(const PassGraph& graph) : graph_(graph) {
  for (NodeId id = 0; id < graph.size(); ++id) {
    for (const Link& link : graph[id].links) {
      if (link.gradient) consumers_.emplace(link.operand, id);
    }
  }
}

void SurroundingsFinder::look_ahead(NodeId output, int feature, Surroundings& around) const {
  std::optional<int> place = feature;
  constexpr int kMostSteps = 16;
  for (int step = 0; step < kMostSteps && place; ++step) {
    const auto [begin, end] = consumers_.equal_range(output);
    if (begin == end || std::next(begin) != end || !graph_[output].unseen.empty() || graph_[output].root) return;
    const Node& next = graph_[begin->second];
    if (step == 0) around.taken_by = bare_name(next.op);
    if (const auto reader = inputs_.find(output); reader != inputs_.end()) {
      around.read_by = reader->second;
      around.read_directly = step == 0;
      return;
    }
    const auto link = std::find_if(next.links.begin(), next.links.end(),
                                   [&](const Link& each) { return each.gradient && each.operand == output; });
    place = kept(*link, *place);
    output = begin->second;
  }
}

NodeId SurroundingsFinder::look_back(NodeId input, int feature, Surroundings& around) const {
  const Node& node = graph_[input];
  if (!is_one_link(node) || node.kind != Node::Kind::Sum || node.shift != 0) return input;
  const auto link = std::find_if(node.links.begin(), node.links.end(),
                                 [](const Link& each) { return each.way != Link::Way::Hidden; });
  if (link->way != Link::Way::Entries && link->way != Link::Way::Clips) return input;
  if (kept(*link, feature) != feature) return input;
  around.made_by = bare_name(node.op);
  return link->operand;
}

void keep_common(Surroundings& around, const Surroundings& other) {
  around.read_directly = around.read_directly && other.read_directly && around.read_by == other.read_by;
  around.taken_by = same_or_none(around.taken_by, other.taken_by);
  around.read_by = same_or_none(around.read_by, other.read_by);
  if (around.input_of != other.input_of || around.made_by != other.made_by) around.input_of = around.made_by = "";
  if (around.taps != other.taps) around.taps = 0;
  around.pads = around.pads || other.pads;
  around.unfed = both(around.unfed, other.unfed);
  around.unread = both(around.unread, other.unread);
  around.gain.reset();  // to compare would wait for the device
}

}  // namespace dds::hooks
