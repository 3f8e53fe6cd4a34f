// The binomial tree of the ranks, in which they join what they have and hear what came of it.
#pragma once

#include <dds/ranks.hpp>
#include <exception>
#include <functional>
#include <set>
#include <string>

#include "src/ranks/parcel.hpp"

namespace dds {

/// Round k = 0, 1, ... of the way up: those whose number is 2^k modulo 2^(k+1) send what they have to the rank 2^k
/// below, and are done. So every rank but the first sends once, and none receives more than log2(size) parcels.
///
/// A rank that cannot be reached is lost for good, and with it what the tree is for. Those that notice tell those with
/// whom they speak next, up and down, so that of a group nobody waits twice for the same rank: after a loss `gather`
/// and `spread` serve for that alone, and have to be called as before.
class Tree {
 public:
  explicit Tree(Ranks& ranks) : ranks_(ranks) {}

  /// Up to rank 0, where it is true: that rank then has everything. `join(parcel)` takes another rank's into one's own;
  /// `pack()` is asked for once, when all is joined that will be. What is joined is the same in the same order at every
  /// run. Throws RankError once, for the first loss, when it is passed on, and what `join` or `pack` throws as one;
  /// from then on false.
  bool gather(const std::function<Parcel()>& pack, const std::function<void(Parcel)>& join);

  /// Down again: every rank gets the parcel of rank 0. Throws RankError after a loss, when it is passed on.
  Parcel spread(Parcel parcel);

  /// What the first loss was; empty: none.
  const std::string& loss() const { return loss_; }

 private:
  /// Sends to another rank or receives from it, unless that is lost, as it is after an error.
  void with(int other, const std::function<void()>& work);
  /// This rank's own work, whose error is a loss after which everybody can still be reached.
  void attempt(const std::function<void()>& work);
  void set_loss(std::string what);

  Ranks& ranks_;
  std::set<int> lost_;  ///< of those next to this rank
  std::string loss_;
};

}  // namespace dds
