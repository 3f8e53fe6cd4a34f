#include "src/ranks/parcel.hpp"

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <torch/torch.h>

#include <cmath>
#include <functional>
#include <limits>

#include "tests/support.hpp"

namespace dds {
namespace {

using test::message_of;
using testing::HasSubstr;

constexpr std::int64_t kMost = std::numeric_limits<std::int64_t>::max();

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

// ---- bytes that no rank of this version puts ----

/// A tensor as it would be told of, without its entries.
Parcel tensor_of(int type, const std::vector<std::int64_t>& sizes, std::size_t entries = 0) {
  Parcel parcel;
  parcel.put(true);
  parcel.put(static_cast<std::int8_t>(type));
  parcel.put(std::uint64_t{sizes.size()});
  for (const std::int64_t size : sizes) parcel.put(size);
  for (std::size_t i = 0; i < entries; ++i) parcel.put(1.0);
  return parcel;
}

TEST(Parcel, ABoolIsNoughtOrOne) {
  for (int byte = 0; byte < 256; ++byte) {
    Parcel parcel;
    parcel.put(static_cast<std::uint8_t>(byte));
    if (byte < 2) {
      EXPECT_EQ(parcel.take<bool>(), byte == 1);
    } else {
      EXPECT_THAT(message_of([&] { parcel.take<bool>(); }),
                  HasSubstr("a message has " + std::to_string(byte) + " where 0 to 1 was expected"));
    }
  }
}

TEST(Parcel, AnEnumeratorIsOneOfThem) {
  enum class Colour : std::int16_t { Red, Green, Blue };
  for (const int value : {-32768, -1, 0, 1, 2, 3, 32767}) {
    Parcel parcel;
    parcel.put(static_cast<std::int16_t>(value));
    if (value >= 0 && value <= 2) {
      EXPECT_EQ(parcel.take_up_to(Colour::Blue), static_cast<Colour>(value));
    } else {
      EXPECT_THROW(parcel.take_up_to(Colour::Blue), RankError) << value;
    }
  }
}

TEST(Parcel, TalliesOfAllRanksCanBeSummed) {
  for (const std::int64_t value : {std::int64_t{-1}, (std::int64_t{1} << 48) + 1, kMost}) {
    Parcel parcel;
    parcel.put(value);
    EXPECT_THROW(parcel.take_tally(), RankError) << value;
  }
  Parcel parcel;
  parcel.put(std::int64_t{1} << 48);
  EXPECT_EQ(parcel.take_tally(), std::int64_t{1} << 48);
}

TEST(Parcel, OfMoreThanItHoldsNothingIsMade) {
  for (const std::uint64_t count : {std::uint64_t{3}, std::uint64_t{1} << 40, ~std::uint64_t{0}}) {
    const std::function<void(Parcel)> takers[] = {[](Parcel parcel) { parcel.take<std::string>(); },
                                                  [](Parcel parcel) { parcel.take<std::vector<double>>(); },
                                                  [](Parcel parcel) { parcel.take<std::vector<at::Tensor>>(); }};
    Parcel parcel;
    parcel.put(count);
    parcel.put(std::int16_t{0});  // two bytes of three
    for (const auto& take : takers) {
      EXPECT_THAT(message_of([&] { take(parcel); }), HasSubstr(fmt::format("tells of {} things", count)));
    }
  }
}

TEST(Parcel, TensorsOfEveryTypeThereIsOrIsNot) {
  for (int type = -128; type < 128; ++type) {
    Parcel parcel = tensor_of(type, {2}, 8);
    try {
      const auto tensor = parcel.take<at::Tensor>();
      EXPECT_EQ(static_cast<int>(tensor.scalar_type()), type);
      EXPECT_EQ(tensor.numel(), 2);
    } catch (const RankError&) {
      EXPECT_NE(type, static_cast<int>(at::kDouble));
    }
  }
}

TEST(Parcel, TensorsOfSizesThatCannotBe) {
  constexpr int kDouble = static_cast<int>(at::kDouble);
  for (const std::vector<std::int64_t>& sizes :
       std::vector<std::vector<std::int64_t>>{{-1},
                                              {4},
                                              {2, 2},
                                              {-1, -3},
                                              {kMost},
                                              {kMost, kMost},
                                              {std::int64_t{1} << 32, std::int64_t{1} << 32},
                                              {0, -1},
                                              {0, kMost},
                                              {kMost / 2, 0, 9}}) {
    EXPECT_THAT(message_of([&] { tensor_of(kDouble, sizes, 3).take<at::Tensor>(); }), HasSubstr("tells of a tensor"))
        << torch::tensor(sizes);
  }
  EXPECT_EQ(tensor_of(kDouble, {3}, 3).take<at::Tensor>().sum().item<double>(), 3);
  EXPECT_EQ(tensor_of(kDouble, {0, 1 << 20, 1 << 20}).take<at::Tensor>().numel(), 0);
  Parcel dimensions;
  dimensions.put(true);
  dimensions.put(at::kDouble);
  dimensions.put(std::uint64_t{1} << 60);
  EXPECT_THROW(dimensions.take<at::Tensor>(), RankError);
}

}  // namespace
}  // namespace dds
