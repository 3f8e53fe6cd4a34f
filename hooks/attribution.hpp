// What became of every operator that took a parameter.
#pragma once

#include <compare>
#include <cstddef>
#include <cstdint>
#include <dds/recorder.hpp>
#include <limits>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "hooks/layer_index.hpp"

namespace dds::hooks {

/// Counts uses. Not safe for several threads at once.
class UseCounts {
 public:
  /// An operator took something of a layer; `site`: as Attribution::site.
  void count(std::size_t layer, std::string_view op, Attribution::Outcome outcome, const std::string& site = "");
  /// An operator took a leaf that is no layer's, called `leaf`.
  void count_leaf(const std::string& leaf, std::string_view op);

  std::vector<Attribution> table(const std::vector<Layer>& layers) const;
  /// A layer that has no calls, with what was seen of it instead.
  CapturedLayer without_calls(std::size_t layer, const Layer& of) const;
  void clear() { counts_.clear(); }

 private:
  static constexpr std::size_t kNobody = std::numeric_limits<std::size_t>::max();
  struct Use {
    std::size_t layer;
    std::string leaf, op;
    Attribution::Outcome outcome;
    std::string site;
    auto operator<=>(const Use&) const = default;
  };
  std::map<Use, std::int64_t> counts_;
};

}  // namespace dds::hooks
