// The binomial tree of the ranks, in which they join what they have and hear what came of it.
#pragma once

#include <dds/ranks.hpp>
#include <exception>
#include <functional>
#include <set>
#include <string>

#include "src/ranks/parcel.hpp"

namespace dds {

/// Round k = 0, 1, ... of the way up: a rank whose number is 2^k modulo 2^(k+1) sends what it has to the rank whose
/// number is 2^k less, and is done. So every rank but the first sends once, and none receives more than log2(size)
/// parcels.
///
/// A rank that cannot be reached is lost for good, and with it what the tree is for. Who notices tells those with whom
/// it speaks next, up and down, so that nobody waits twice for the same rank. After a loss `reduce` and `broadcast`
/// serve for that alone, and have to be called as before.
class Tree {
 public:
  explicit Tree(Ranks& ranks) : ranks_(ranks) {}

  /// A reduction to rank 0. `join(parcel)` takes what another rank has into one's own. `pack()` is asked for once, when
  /// all is joined that will be. The order of joining is the same at every run.
  /// Returns true on rank 0, which then has everything; after a loss false.
  /// Throws RankError once, for the first loss, after it was passed on. What `join` or `pack` throws is such a loss.
  bool reduce(const std::function<Parcel()>& pack, const std::function<void(Parcel)>& join);

  /// Gives the parcel of rank 0 to every rank.
  /// Throws RankError after a loss, each time, after it was passed on.
  Parcel broadcast(Parcel parcel);

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
