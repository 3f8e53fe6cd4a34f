#include "src/ranks/tree.hpp"

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <bit>
#include <dds/error.hpp>
#include <numeric>

#include "tests/ranks/thread_ranks.hpp"

namespace dds {
namespace {

using test::on_ranks;
using testing::AnyOf;
using testing::Each;
using testing::HasSubstr;
using testing::IsEmpty;

class Trees : public testing::TestWithParam<int> {};

TEST_P(Trees, ReduceEveryRankOnceInLogarithmicallyManyRounds) {
  const int size = GetParam();
  std::vector<int> gathered;
  std::vector<int> received(static_cast<std::size_t>(size)), firsts(static_cast<std::size_t>(size));
  const auto thrown = on_ranks(size, [&](const RanksPtr& ranks) {
    const auto self = static_cast<std::size_t>(ranks->rank());
    std::vector<int> members{ranks->rank()};
    const bool first = Tree(*ranks).reduce(
        [&] {
          Parcel parcel;
          parcel.put(members.size());
          for (const int member : members) parcel.put(member);
          return parcel;
        },
        [&](Parcel parcel) {
          ++received[self];
          for (auto left = parcel.take<std::size_t>(); left > 0; --left) members.push_back(parcel.take<int>());
        });
    firsts[self] = first;
    if (first) gathered = members;
  });
  EXPECT_THAT(thrown, Each(IsEmpty()));
  std::vector<int> all(static_cast<std::size_t>(size));
  std::iota(all.begin(), all.end(), 0);
  EXPECT_EQ(gathered, all) << "once each, and in the order of the ranks";
  const int rounds = std::bit_width(static_cast<unsigned>(size - 1));
  for (int rank = 0; rank < size; ++rank) {
    EXPECT_EQ(firsts[static_cast<std::size_t>(rank)], rank == 0);
    EXPECT_LE(received[static_cast<std::size_t>(rank)], rounds);
  }
}

TEST_P(Trees, BroadcastTheFirstRanksParcelToAll) {
  const int size = GetParam();
  std::vector<int> got(static_cast<std::size_t>(size), -1);
  const auto thrown = on_ranks(size, [&](const RanksPtr& ranks) {
    Parcel parcel;
    parcel.put(100 + ranks->rank());
    got[static_cast<std::size_t>(ranks->rank())] = Tree(*ranks).broadcast(parcel).take<int>();
  });
  EXPECT_THAT(thrown, Each(IsEmpty()));
  EXPECT_THAT(got, Each(100));
}

INSTANTIATE_TEST_SUITE_P(Sizes, Trees, testing::Values(1, 2, 3, 4, 5, 7, 8, 13, 16));

Parcel nothing() { return {}; }
void ignored(Parcel) {}

TEST(Tree, ARankThatCannotPackTellsTheRankAbove) {
  const auto thrown = on_ranks(4, [](const RanksPtr& ranks) {
    const auto pack = [&]() -> Parcel { return ranks->rank() == 3 ? throw std::runtime_error("no memory") : Parcel(); };
    Tree(*ranks).reduce(pack, ignored);
  });
  EXPECT_EQ(thrown, (std::vector<std::string>{"no memory", "", "no memory", "no memory"}));
}

TEST(Tree, ARankWhoseParcelIsRefusedCanStillBeReached) {
  int told = 0;
  const auto thrown = on_ranks(2, [&](const RanksPtr& ranks) {
    Tree tree(*ranks);
    const auto join = [](Parcel) { throw 42; };  // not even an std::exception
    for (int round = 0; round < 3; ++round) {
      try {
        tree.reduce(nothing, join);
      } catch (const RankError& error) {
        EXPECT_STREQ(error.what(), "an exception of a type of its own");
        ++told;
      }
    }
  });
  EXPECT_THAT(thrown, Each(IsEmpty())) << "sends that nobody took";
  EXPECT_EQ(told, 1);
}

/// Which of eight ranks is lost.
class TreeLoss : public testing::TestWithParam<int> {
 protected:
  static constexpr int kRanks = 8;
  static int above(int rank) { return rank & (rank - 1); }
  /// Whether `rank` speaks on its way up with the lost one, or with one that heard of it.
  static bool notices(int rank) {
    if (rank != 0 && above(rank) == GetParam()) return true;
    for (int of = GetParam(); of != 0; of = above(of)) {
      if (above(of) == rank) return true;
    }
    return false;
  }
};

TEST_P(TreeLoss, IsToldOnceToThoseAboveAndNobodyWaitsAgain) {
  std::vector<std::vector<std::string>> told(kRanks);
  std::vector<int> whole(kRanks);
  const auto thrown = on_ranks(kRanks, [&](const RanksPtr& ranks) {
    Tree tree(*ranks);
    const auto self = static_cast<std::size_t>(ranks->rank());
    for (int round = 0; round < 5; ++round) {
      if (round == 2 && ranks->rank() == GetParam()) return;
      try {
        whole[self] += tree.reduce(nothing, ignored) ? 1 : 0;
      } catch (const RankError& error) {
        told[self].push_back(fmt::format("{}: {}", round, error.what()));
      }
    }
    tree.broadcast({});  // everybody hears of it now
  });
  EXPECT_EQ(whole[0], 2);
  for (int rank = 0; rank < kRanks; ++rank) {
    if (rank == GetParam()) continue;
    SCOPED_TRACE(rank);
    const auto self = static_cast<std::size_t>(rank);
    const auto names_it = AnyOf(HasSubstr(fmt::format("from rank {}: connection closed by peer", GetParam())),
                                HasSubstr(fmt::format("to rank {}: connection closed by peer", GetParam())));
    EXPECT_EQ(told[self].size(), notices(rank) ? 1u : 0u);
    EXPECT_THAT(told[self], Each(names_it));
    EXPECT_THAT(told[self], Each(testing::StartsWith("2: ")));
    EXPECT_THAT(thrown[self], names_it);
  }
}

INSTANTIATE_TEST_SUITE_P(Ranks, TreeLoss, testing::Range(1, 8));

}  // namespace
}  // namespace dds
