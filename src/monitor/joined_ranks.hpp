// The ranks that a monitor reads with, until one of them is lost.
#pragma once

#include <atomic>
#include <cstdint>
#include <dds/ranks.hpp>
#include <dds/read.hpp>
#include <functional>
#include <string>
#include <utility>
#include <vector>

#include "src/ranks/tree.hpp"
#include "src/reading/read.hpp"
#include "src/rows/reading_rows.hpp"

namespace dds {

/// A loss ends the readings: `on_loss` gets a sentence for the log, once, and nothing is read any more. The ranks that
/// know of none go on to send, so each later reading passes the loss on in its place.
///
/// For one thread at a time, but for lost().
class JoinedRanks {
 public:
  JoinedRanks(RanksPtr ranks, std::function<void(const std::string&)> on_loss)
      : ranks_(std::move(ranks)), tree_(*ranks_), on_loss_(std::move(on_loss)) {}

  const RanksPtr& ranks() const { return ranks_; }
  bool lost() const { return lost_; }

  /// Joins the rows of a step, reduced, on rank 0, and returns true there. What went wrong on another rank, or a loss,
  /// is in ReadingRows::error.
  bool join(const SignatureOptions& options, ReadingRows& rows);
  /// In the place of a step's reading after a loss.
  void pass_on_loss();
  /// A checkpoint read over these ranks, at `step`. Throws what dds::read throws.
  std::vector<Signature> read(const Problem& problem, const ReadOptions& options, ReadContext context,
                              std::int64_t step);

 private:
  /// Returns what is to be told.
  std::string end_readings(std::int64_t step);

  RanksPtr ranks_;
  Tree tree_;
  std::function<void(const std::string&)> on_loss_;
  std::atomic<bool> lost_ = false;
};

}  // namespace dds
