// A checkpoint read within a run.
#pragma once

#include <dds/problem.hpp>
#include <dds/read.hpp>
#include <exception>
#include <vector>

#include "src/ranks/tree.hpp"
#include "src/series/fixed_ranks.hpp"

namespace dds {

/// What a Monitor brings to a checkpoint read.
struct ReadContext {
  /// Of SignatureOptions::ranks, which have spoken before; null: the read has one of its own. After a loss nothing is
  /// computed: the loss is passed on, and thrown as the RankError that it was.
  Tree* tree = nullptr;
  /// Of the run's series, which are followed; null: they are not.
  const FixedRanks* fixed_ranks = nullptr;
  /// Keeps this rank from reading: thrown here, and told to the other ranks.
  std::exception_ptr error = nullptr;
};

/// As dds::read.
std::vector<Signature> read(const Problem& problem, const ReadOptions& options, const ReadContext& context);

}  // namespace dds
