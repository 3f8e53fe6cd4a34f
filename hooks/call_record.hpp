// The calls of a recording, by the site that they are runs of.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstddef>
#include <dds/recorder.hpp>
#include <functional>
#include <optional>
#include <string>
#include <unordered_map>
#include <vector>

namespace dds::hooks {

using SiteId = std::size_t;  ///< place of a site in the order of first runs
using CallId = std::size_t;  ///< place of a call among all calls of the recording

/// Not safe for several threads at once.
class CallRecord {
 public:
  /// The site of a layer's weight in one role, made if this is its first run. A tap has no layer. A further role of the
  /// same layer is named NAME#2.
  SiteId site(std::optional<std::size_t> layer, const std::string& name, const std::string& kind,
              const std::string& role);
  const std::string& name(SiteId site) const { return sites_[site].captured.layer; }
  std::optional<std::size_t> layer(SiteId site) const { return sites_[site].layer; }
  /// True if the layer has a site.
  bool has_run(std::size_t layer) const;

  /// Takes a call in, which gave `output`.
  CallId add(SiteId site, CapturedCall call, const at::Tensor& output);
  /// The call's output goes on to be `output`: its bias was added.
  void extend(CallId id, const at::Tensor& output);
  std::size_t size() const { return calls_.size(); }
  CapturedCall& operator[](CallId id) { return calls_[id].captured; }
  const CapturedCall& operator[](CallId id) const { return calls_[id].captured; }
  SiteId site_of(CallId id) const { return calls_[id].site; }

  /// The call that gave this very tensor.
  std::optional<CallId> that_gave(const at::Tensor& tensor) const;
  /// The tensor is overwritten and no call's output any more.
  void forget_output(const at::Tensor& tensor) { outputs_.erase(tensor.unsafeGetTensorImpl()); }
  /// No output is asked for any more. Those that are kept to be recognised keep whole graphs alive.
  void forget_outputs();

  /// Hands over the sites with their calls. Where a backward pass came through some calls, those that wanted a gradient
  /// and got none are dropped.
  /// `finish` is told of each site, with the calls that are left.
  std::vector<CapturedLayer> take(const std::function<void(CapturedLayer&, const std::vector<CallId>&)>& finish);

 private:
  struct Site {
    CapturedLayer captured;
    std::optional<std::size_t> layer;
    std::string role;
  };
  struct Call {
    SiteId site;
    CapturedCall captured;
  };

  std::vector<Site> sites_;
  std::vector<Call> calls_;
  std::unordered_map<const at::TensorImpl*, CallId> outputs_;  // by identity
  std::vector<at::Tensor> keep_;                               // keeps these identities valid
};

}  // namespace dds::hooks
