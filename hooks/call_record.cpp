#include "hooks/call_record.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "hooks/captured_access.hpp"
#include "hooks/captured_operator.hpp"

namespace dds::hooks {
namespace {

/// True if a backward pass came through the output, or through a final state.
bool reached(const CapturedCall& captured) {
  if (captured.backwards() > 0) return true;
  const auto& op = captured.captured_operator();
  return op && std::any_of(op->states.begin(), op->states.end(), reached);
}

}  // namespace

SiteId CallRecord::site(std::optional<std::size_t> layer, const std::string& name, const std::string& kind,
                        const std::string& role) {
  std::size_t others = 0;
  for (SiteId i = 0; i < sites_.size(); ++i) {
    if (sites_[i].layer != layer || (!layer && sites_[i].captured.layer != name)) continue;
    if (sites_[i].role == role) return i;
    ++others;
  }
  Site site;
  site.captured.layer = others == 0 ? name : fmt::format("{}#{}", name, others + 1);
  site.captured.kind = kind;
  site.layer = layer;
  site.role = role;
  sites_.push_back(std::move(site));
  return sites_.size() - 1;
}

bool CallRecord::has_run(std::size_t layer) const {
  return std::any_of(sites_.begin(), sites_.end(), [&](const Site& site) { return site.layer == layer; });
}

CallId CallRecord::add(SiteId site, CapturedCall call, const at::Tensor& output) {
  const CallId id = calls_.size();
  calls_.push_back({site, std::move(call)});
  extend(id, output);
  return id;
}

void CallRecord::extend(CallId id, const at::Tensor& output) {
  CapturedAccess::set_output(calls_[id].captured, output.detach());
  outputs_[output.unsafeGetTensorImpl()] = id;
  keep_.push_back(output);
}

std::optional<CallId> CallRecord::that_gave(const at::Tensor& tensor) const {
  const auto known = outputs_.find(tensor.unsafeGetTensorImpl());
  return known == outputs_.end() ? std::nullopt : std::optional(known->second);
}

void CallRecord::forget_outputs() {
  outputs_.clear();
  keep_.clear();
}

std::vector<CapturedLayer> CallRecord::take(
    const std::function<void(CapturedLayer&, const std::vector<CallId>&)>& finish) {
  const bool backward = std::any_of(calls_.begin(), calls_.end(), [](const Call& c) { return reached(c.captured); });
  std::vector<std::vector<CallId>> left(sites_.size());
  for (CallId id = 0; id < calls_.size(); ++id) {
    Call& call = calls_[id];
    CapturedLayer& layer = sites_[call.site].captured;
    if (backward && call.captured.wants_gradient && !reached(call.captured)) {
      ++layer.dropped;
    } else {
      layer.calls.push_back(std::move(call.captured));
      left[call.site].push_back(id);
    }
  }
  for (SiteId site = 0; site < sites_.size(); ++site) finish(sites_[site].captured, left[site]);
  std::vector<CapturedLayer> layers;
  for (Site& site : sites_) {
    CapturedLayer& layer = layers.emplace_back(std::move(site.captured));
    if (!layer.calls.empty() || layer.dropped == 0) continue;
    layer.status |= Status::NoGradient;
    layer.detail = fmt::format("{} runs, none of which a backward pass came through", layer.dropped);
  }
  *this = {};
  return layers;
}

}  // namespace dds::hooks
