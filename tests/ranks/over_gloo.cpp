// c10d's own transport, with ranks that are threads. What dies here is a group, not a process: the experiment
// `distributed` kills and stops processes.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <chrono>
#include <cstdio>
#include <dds/error.hpp>
#include <functional>
#include <thread>

#include "experiments/harness/gloo.hpp"
#include "src/ranks/exchange.hpp"
#include "src/ranks/tree.hpp"
#include "tests/support.hpp"

namespace dds {
namespace {

using namespace std::chrono_literals;
using testing::Each;
using testing::HasSubstr;
using testing::IsEmpty;

/// Runs `work` on `size` ranks that meet in a file, and returns what each of them threw.
std::vector<std::string> over_gloo(int size, std::chrono::milliseconds timeout,
                                   const std::function<void(Ranks&)>& work) {
  const auto* const test = testing::UnitTest::GetInstance()->current_test_info();
  const std::string file = testing::TempDir() + "dds-" + test->name() + std::to_string(getpid());
  std::vector<std::string> thrown(static_cast<std::size_t>(size));
  {
    std::vector<std::jthread> threads;
    for (int rank = 0; rank < size; ++rank) {
      threads.emplace_back([&, rank] {
        try {
          work(*experiments::join({"file:" + file, "127.0.0.1", rank, size, timeout}).readings.ranks);
        } catch (const std::exception& error) {
          thrown[static_cast<std::size_t>(rank)] = error.what();
        }
      });
    }
  }
  std::remove(file.c_str());
  return thrown;
}

Parcel numbered(int number) {
  Parcel parcel;
  parcel.put(number);
  parcel.put(torch::full({300, 300}, number, torch::kDouble));
  return parcel;
}

TEST(OverGloo, ParcelsOfAnySizeArriveInOrder) {
  const auto thrown = over_gloo(3, 20s, [](Ranks& ranks) {
    int sum = ranks.rank();
    Tree tree(ranks);
    const bool first = tree.reduce([&] { return numbered(sum); },
                                   [&](Parcel parcel) {
                                     const int number = parcel.take<int>();
                                     sum += number;
                                     if (!parcel.take<at::Tensor>().eq(number).all().item<bool>())
                                       throw std::logic_error("other numbers came");
                                   });
    if (first && sum != 3) throw std::logic_error("the sum of the ranks is " + std::to_string(sum));
    Parcel empty;
    if (!tree.broadcast(ranks.rank() == 0 ? empty : numbered(7)).bytes().empty()) {
      throw std::logic_error("something came of nothing");
    }
  });
  EXPECT_THAT(thrown, Each(IsEmpty()));
}

TEST(OverGloo, ARankThatIsGoneIsAnError) {
  const auto thrown = over_gloo(2, 20s, [](Ranks& ranks) {
    if (ranks.rank() == 0) receive(ranks, 1);
  });
  EXPECT_THAT(thrown[0], HasSubstr("rank 0 of 2 could not receive from rank 1: "));
}

TEST(OverGloo, ARankThatHangsIsAnErrorAfterTheGroupsTime) {
  const auto thrown = over_gloo(2, 300ms, [](Ranks& ranks) {
    if (ranks.rank() == 1) return std::this_thread::sleep_for(2s);
    const auto start = std::chrono::steady_clock::now();
    EXPECT_THROW(receive(ranks, 1), RankError);
    EXPECT_GE(std::chrono::steady_clock::now() - start, 290ms);
    receive(ranks, 1);
  });
  EXPECT_THAT(thrown[0], HasSubstr("rank 0 of 2 could not receive from rank 1: "));
}

TEST(OverGloo, AStoreOfAnotherFormIsRefused) {
  EXPECT_THAT(test::message_of([] {
                experiments::join({"etcd", "127.0.0.1", 0, 1, 1s});
              }),
              HasSubstr("the store is 'etcd', expected file:PATH or tcp:HOST:PORT"));
}

}  // namespace
}  // namespace dds
