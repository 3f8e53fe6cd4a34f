// The rank of the first reading of each series, over which the later readings' fixed-rank volumes are taken.
#pragma once

#include <cstdint>
#include <dds/signature.hpp>
#include <map>
#include <optional>
#include <utility>

namespace dds {

class FixedRanks {
 public:
  FixedRanks() = default;
  explicit FixedRanks(std::map<SeriesId, std::int64_t> ranks) : ranks_(std::move(ranks)) {}

  /// Empty before the first reading that had a rank.
  std::optional<std::int64_t> of(const SeriesId& series) const {
    const auto known = ranks_.find(series);
    return known == ranks_.end() ? std::nullopt : std::optional(known->second);
  }
  /// Keeps Signature::fixed_rank, unless the series has one.
  void add(const Signature& signature) {
    if (signature.fixed_rank) ranks_.try_emplace(series_of(signature), *signature.fixed_rank);
  }
  const std::map<SeriesId, std::int64_t>& all() const { return ranks_; }

 private:
  std::map<SeriesId, std::int64_t> ranks_;
};

}  // namespace dds
