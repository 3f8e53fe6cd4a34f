// The IDX files of Fashion-MNIST: what is in them, and files that are none.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>

#include "experiments/fashion_mnist/data.hpp"
#include "tests/support.hpp"

namespace fashion_mnist {
namespace {

using dds::test::message_of;
using testing::HasSubstr;

class Images : public testing::Test {
 protected:
  Images() {
    folder_ = testing::TempDir() + "dds_images_" + std::to_string(getpid());
    std::filesystem::create_directories(folder_);
  }
  ~Images() override { std::filesystem::remove_all(folder_); }

  /// A header of bytes in so many dimensions, with whatever stands behind it. zlib reads plain files too.
  static std::string idx(const std::vector<std::uint32_t>& sizes, const std::string& entries) {
    std::string file{0, 0, 8, static_cast<char>(sizes.size())};
    for (const std::uint32_t size : sizes) {
      for (const int shift : {24, 16, 8, 0}) file += static_cast<char>(size >> shift);
    }
    return file + entries;
  }
  void put(const std::string& images, const std::string& labels) const {
    std::ofstream(folder_ / "t10k-images-idx3-ubyte.gz", std::ios::binary) << images;
    std::ofstream(folder_ / "t10k-labels-idx1-ubyte.gz", std::ios::binary) << labels;
  }
  std::string refusal() const {
    return message_of([&] { load(folder_, "t10k"); });
  }

  std::filesystem::path folder_;
};

TEST_F(Images, AreScaledByTheMomentsOfTheTrainingSet) {
  put(idx({2, 1, 2}, std::string{0, 51, 102, '\xff'}), idx({2}, std::string{3, 9}));
  const Split split = load(folder_, "t10k");
  const at::Tensor grey = torch::tensor({0.0, 0.2, 0.4, 1.0}).view({2, 1, 1, 2});
  EXPECT_TRUE(torch::allclose(split.images, (grey - 0.2860) / 0.3530, 0, 1e-6));
  EXPECT_TRUE(torch::equal(split.labels, torch::tensor({3, 9}, torch::kLong)));
}

TEST_F(Images, OfSizesBeyondReasonAreRefusedForThemAndNotForWhatIsMissing) {
  const std::vector<std::vector<std::uint32_t>> beyond{{16384, 256, 256},                     // 1 GiB
                                                       {(1u << 26) + 1, 1, 1},                // one more than may be
                                                       {0xffffffff, 1, 1},                    // negative as an int
                                                       {0xffffffff, 0xffffffff, 0xffffffff},  // a product beyond int64
                                                       {1u << 31, 1u << 31, 4},               // a product of 2^64
                                                       {1, 0, 1}};
  for (const auto& sizes : beyond) {
    put(idx(sizes, "few"), idx({1}, "x"));
    EXPECT_THAT(refusal(), HasSubstr("are out of range")) << testing::PrintToString(sizes);
  }
  put(idx({1, 1, 3}, "few"), idx({1u << 30}, "x"));
  EXPECT_THAT(refusal(), HasSubstr("are out of range"));
  put(idx({1u << 10, 1u << 8, 1u << 8}, "few"), idx({1u << 10}, "x"));
  EXPECT_THAT(refusal(), HasSubstr("67108864 bytes were expected where 3 came"));
}

TEST_F(Images, OfAnotherFormOrNumberAreRefused) {
  put(idx({1, 3}, "few"), idx({1}, "x"));
  EXPECT_THAT(refusal(), HasSubstr("the magic number is 0x802, expected 0x803"));
  put(idx({1, 1, 3}, "few"), idx({2}, "xy"));
  EXPECT_THAT(refusal(), HasSubstr("1 images and 2 labels"));
  put("", "");
  EXPECT_THAT(refusal(), HasSubstr("4 bytes were expected where 0 came"));
  std::filesystem::remove_all(folder_);
  EXPECT_THAT(refusal(), HasSubstr("cannot be opened"));
}

}  // namespace
}  // namespace fashion_mnist
