#include "src/ranks/exchange.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <bit>
#include <limits>
#include <numeric>

#include "src/ranks/parcel.hpp"
#include "tests/ranks/thread_ranks.hpp"
#include "tests/support.hpp"

namespace dds {
namespace {

using test::on_ranks;
using testing::Each;
using testing::HasSubstr;
using testing::IsEmpty;

TEST(Parcel, GivesBackWhatWasPut) {
  const std::vector<at::Tensor> tensors{
      torch::randn({3, 4}, torch::kDouble).t(), torch::arange(5), torch::zeros({0, 7}), {}, torch::tensor(2.5f),
      torch::ones({2}).to(torch::kBFloat16)};
  Parcel parcel;
  parcel.put(std::int64_t{-3});
  parcel.put(std::string("a\0b", 3));
  parcel.put(std::vector<double>{1e-300, -0.0, std::numeric_limits<double>::infinity()});
  parcel.put(tensors);
  parcel.put(std::vector<double>{});
  parcel.put(true);
  Parcel copy(parcel.bytes());
  EXPECT_EQ(copy.take<std::int64_t>(), -3);
  EXPECT_EQ(copy.take<std::string>(), std::string("a\0b", 3));
  const auto numbers = copy.take<std::vector<double>>();
  EXPECT_EQ(numbers, (std::vector<double>{1e-300, -0.0, std::numeric_limits<double>::infinity()}));
  EXPECT_TRUE(std::signbit(numbers[1]));
  const auto back = copy.take<std::vector<at::Tensor>>();
  ASSERT_EQ(back.size(), tensors.size());
  for (std::size_t i = 0; i < tensors.size(); ++i) {
    ASSERT_EQ(back[i].defined(), tensors[i].defined());
    if (!tensors[i].defined()) continue;
    EXPECT_EQ(back[i].scalar_type(), tensors[i].scalar_type());
    EXPECT_TRUE(torch::equal(back[i], tensors[i]));
  }
  EXPECT_TRUE(copy.take<std::vector<double>>().empty());
  EXPECT_TRUE(copy.take<bool>());
  EXPECT_TRUE(copy.at_end());
}

TEST(Parcel, CutAnywhereItSaysSo) {
  Parcel parcel;
  parcel.put(std::string("layer"));
  parcel.put(std::vector<double>{1, 2, 3});
  parcel.put(torch::ones({2, 2}));
  parcel.put(7);
  const auto take_all = [](Parcel cut) {
    cut.take<std::string>();
    cut.take<std::vector<double>>();
    cut.take<at::Tensor>();
    cut.take<int>();
  };
  take_all(Parcel(parcel.bytes()));
  for (std::size_t size = 0; size < parcel.bytes().size(); ++size) {
    Parcel cut(
        std::vector<std::byte>(parcel.bytes().begin(), parcel.bytes().begin() + static_cast<std::ptrdiff_t>(size)));
    EXPECT_THROW(take_all(cut), RankError) << size;
  }
}

class Trees : public testing::TestWithParam<int> {};

TEST_P(Trees, GatherEveryRankOnceInLogarithmicallyManyRounds) {
  const int size = GetParam();
  std::vector<int> gathered;
  std::vector<int> received(static_cast<std::size_t>(size)), firsts(static_cast<std::size_t>(size));
  const auto thrown = on_ranks(size, [&](const RanksPtr& ranks) {
    const auto self = static_cast<std::size_t>(ranks->rank());
    std::vector<int> members{ranks->rank()};
    const bool first = gather_to_first(
        *ranks,
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

TEST_P(Trees, SpreadTheFirstRanksParcelToAll) {
  const int size = GetParam();
  std::vector<int> got(static_cast<std::size_t>(size), -1);
  const auto thrown = on_ranks(size, [&](const RanksPtr& ranks) {
    Parcel parcel;
    parcel.put(100 + ranks->rank());
    got[static_cast<std::size_t>(ranks->rank())] = spread_from_first(*ranks, parcel).take<int>();
  });
  EXPECT_THAT(thrown, Each(IsEmpty()));
  EXPECT_THAT(got, Each(100));
}

INSTANTIATE_TEST_SUITE_P(Sizes, Trees, testing::Values(1, 2, 3, 4, 5, 7, 8, 13, 16));

TEST(Exchange, ALostRankIsNamed) {
  const auto thrown = on_ranks(3, [](const RanksPtr& ranks) {
    if (ranks->rank() == 2) return;
    gather_to_first(
        *ranks, [] { return Parcel(); }, [](Parcel) {});
  });
  EXPECT_THAT(thrown[0], HasSubstr("rank 0 of 3 could not receive from rank 2: connection closed by peer"));
  EXPECT_EQ(thrown[1], "");
}

TEST(Exchange, WhatIsNoParcelIsRefused) {
  const auto thrown = on_ranks(2, [](const RanksPtr& ranks) {
    if (ranks->rank() == 1) return ranks->send(torch::zeros({16}, torch::kByte), 0);
    receive(*ranks, 1);
  });
  EXPECT_THAT(thrown[0], HasSubstr("rank 0 got something else than a reading from rank 1"));
}

}  // namespace
}  // namespace dds
