// Orders of directions of complex weights, against K by hand.
#include <gtest/gtest.h>
#include <torch/torch.h>

#include <dds/error.hpp>
#include <dds/weight_direction.hpp>

namespace dds {
namespace {

/// out = Re(w^2 x) + b, around w = 0.
struct Square : torch::nn::Module {
  Square() {
    b = register_parameter("b", torch::zeros({1}));
    w = register_parameter("w", torch::complex(torch::zeros({1}), torch::zeros({1})));
  }
  at::Tensor b, w;
};

DirectionOrder order_of(const WeightDirection& direction) {
  Square model;
  const auto x = torch::tensor({{1.}, {-1.}, {2.}, {-2.}});
  const Forward forward = [](torch::nn::Module& module, const std::vector<at::Tensor>& inputs) {
    auto& m = dynamic_cast<Square&>(module);
    return torch::real(m.w * m.w) * inputs[0] + m.b;
  };
  return direction_order({model, gaussian(), Data(x), forward}, direction);
}

at::Tensor complex_of(double real, double imaginary) {
  return torch::complex(torch::tensor({real}), torch::tensor({imaginary}));
}

TEST(ComplexDirection, HasTheOrderOfItsRealAndImaginaryParts) {
  // K = E[x^2] (a^2 - c^2)^2 / 2 with w = a + c i: of fourth order along a and along c.
  for (const auto& direction : {complex_of(1, 0), complex_of(0, 1)}) {
    const auto order = order_of({{"w", direction}});
    ASSERT_TRUE(order.order) << order.reason;
    EXPECT_NEAR(*order.order, 2, 0.01);
  }
  // Along a = c it is zero.
  EXPECT_EQ(order_of({{"w", complex_of(1, 1)}}).kind, DirectionKind::Gauge);
  EXPECT_EQ(order_of({{"b", torch::ones({1})}}).kind, DirectionKind::Regular);
}

TEST(ComplexDirection, AComplexTensorForARealWeightIsRefused) {
  EXPECT_THROW(order_of({{"b", complex_of(1, 0)}}), InvalidArgument);
}

}  // namespace
}  // namespace dds
