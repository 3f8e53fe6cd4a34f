#include "src/ranks/exchange.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/resource.h>

#include <cstring>

#include "src/ranks/parcel.hpp"
#include "tests/ranks/thread_ranks.hpp"
#include "tests/support.hpp"

namespace dds {
namespace {

using test::on_ranks;
using testing::Each;
using testing::HasSubstr;
using testing::IsEmpty;

TEST(Exchange, WhatIsNoParcelIsRefused) {
  const auto thrown = on_ranks(2, [](const RanksPtr& ranks) {
    if (ranks->rank() == 1) return ranks->send(torch::zeros({16}, torch::kByte), 0);
    receive(*ranks, 1);
  });
  EXPECT_THAT(thrown[0], HasSubstr("rank 0 got something else than a reading from rank 1"));
}

TEST(Exchange, ALongParcelGoesInPieces) {
  const std::string text(std::size_t{150} << 20, 'x');
  Parcel parcel;
  parcel.put(text);
  parcel.put(7);
  int after = 0;
  bool same = false;
  const auto thrown = on_ranks(2, [&](const RanksPtr& ranks) {
    if (ranks->rank() == 1) return send(*ranks, parcel, 0);
    Parcel got = receive(*ranks, 1);
    same = got.take<std::string>() == text;
    got.take(after);
  });
  EXPECT_THAT(thrown, Each(IsEmpty()));
  EXPECT_TRUE(same);
  EXPECT_EQ(after, 7);
}

TEST(Exchange, WhatIsOnlyAnnouncedTakesNoMemory) {
  const auto peak = [] {
    rusage usage{};
    getrusage(RUSAGE_SELF, &usage);
    return usage.ru_maxrss;  // KiB
  };
  static constexpr std::int64_t kAnnounced = std::int64_t{2} << 30;
  const auto before = peak();
  const auto thrown = on_ranks(2, [](const RanksPtr& ranks) {
    if (ranks->rank() == 0) return void(receive(*ranks, 1));
    // The header of an honest parcel, with another size.
    class Forger final : public Ranks {
     public:
      explicit Forger(RanksPtr ranks) : ranks_(std::move(ranks)) {}
      int rank() const override { return ranks_->rank(); }
      int size() const override { return ranks_->size(); }
      void send(const at::Tensor& bytes, int to) override {
        const at::Tensor forged = bytes.clone();
        std::memcpy(forged.data_ptr<std::uint8_t>() + sizeof(std::uint64_t), &kAnnounced, sizeof kAnnounced);
        ranks_->send(forged, to);
      }
      void receive(const at::Tensor& bytes, int from) override { ranks_->receive(bytes, from); }

     private:
      RanksPtr ranks_;
    } forger(ranks);
    send(forger, Parcel(), 0);
  });
  EXPECT_THAT(thrown[0], HasSubstr("could not receive from rank 1: connection closed by peer"));
  EXPECT_LT(peak() - before, kAnnounced / 1024 / 2);
}

}  // namespace
}  // namespace dds
