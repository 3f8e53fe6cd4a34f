// Whose memory a tensor is.
#include "hooks/parameter_index.hpp"

#include <ATen/ops/arange.h>
#include <ATen/ops/zeros.h>
#include <gtest/gtest.h>

namespace dds::hooks {
namespace {

TEST(ParameterIndex, TheOffsetDecidesAmongFlattenedParameters) {
  const at::Tensor flat = at::arange(10);
  ParameterIndex index;
  EXPECT_EQ(index.add(flat.narrow(0, 0, 4).view({2, 2})), 0u);
  EXPECT_EQ(index.add(flat.narrow(0, 4, 6).view({2, 3})), 1u);
  const auto place = index.find(flat.narrow(0, 7, 2));
  ASSERT_TRUE(place);
  EXPECT_EQ(place->number, 1u);
  EXPECT_EQ(place->offset, 3);
  EXPECT_EQ(place->numel, 6);
  EXPECT_EQ(index.find(flat)->number, 0u);  // begins where the first does
}

TEST(ParameterIndex, ViewsAreFoundAndCopiesAreNot) {
  const at::Tensor weight = at::zeros({3, 4});
  ParameterIndex index;
  index.add(weight);
  EXPECT_EQ(index.find(weight.t())->offset, 0);
  EXPECT_EQ(index.find(weight.select(0, 2).slice(0, 1))->offset, 9);
  EXPECT_FALSE(index.find(weight.clone()));
  EXPECT_FALSE(index.find(at::Tensor()));
}

TEST(ParameterIndex, TiedTensorsHaveOneNumber) {
  const at::Tensor weight = at::zeros({3, 4});
  ParameterIndex index;
  EXPECT_EQ(index.add(weight), 0u);
  EXPECT_EQ(index.add(weight.detach()), 0u);
  EXPECT_EQ(index.add(weight.narrow(0, 1, 2)), 1u);
}

TEST(ParameterIndex, WhatHasMovedIsNotFoundUntilItIsAddedAnew) {
  at::Tensor weight = at::zeros({3, 4});
  const at::Tensor before = weight.detach();
  ParameterIndex index;
  index.add(weight);
  EXPECT_FALSE(index.moved());
  weight.set_data(at::zeros({3, 4}));
  EXPECT_TRUE(index.moved());
  EXPECT_FALSE(index.find(weight));
  EXPECT_FALSE(index.find(before));
  index.clear();
  index.add(weight);
  EXPECT_FALSE(index.moved());
  EXPECT_TRUE(index.find(weight));
}

}  // namespace
}  // namespace dds::hooks
