// K given as a function of one vector of weights.
#include <ATen/ops/log_softmax.h>
#include <ATen/ops/zeros_like.h>
#include <c10/core/GradMode.h>
#include <torch/csrc/autograd/autograd.h>

#include <dds/order.hpp>
#include <utility>

#include "src/base/check.hpp"
#include "src/model/divergence.hpp"
#include "src/theory/landscape.hpp"

namespace dds {
namespace {

constexpr const char* kFunction = "a function of the weights";

class ExcessLandscape final : public Landscape {
 public:
  explicit ExcessLandscape(const Excess& excess) : excess_(excess) {}

  double value(const at::Tensor& weights) override { return checked(weights).item<double>(); }

  at::Tensor gradient(const at::Tensor& weights) override {
    const at::AutoGradMode grad(true);
    weights_ = weights.detach().clone().requires_grad_();
    const at::Tensor k = checked(weights_);
    if (!k.requires_grad()) throw_invalid("direction_order", "K", "constant to autograd", "a function of the weights");
    gradient_ = torch::autograd::grad({k}, {weights_}, {}, /*retain_graph=*/true, /*create_graph=*/true,
                                      /*allow_unused=*/true)[0];
    if (!gradient_.defined()) gradient_ = at::zeros_like(weights_);
    return gradient_.detach();
  }

  at::Tensor curvature(const at::Tensor& v) override {
    if (!gradient_.requires_grad()) return at::zeros_like(v);
    const at::Tensor product = torch::autograd::grad({gradient_}, {weights_}, {v}, /*retain_graph=*/true,
                                                     /*create_graph=*/false, /*allow_unused=*/true)[0];
    return product.defined() ? product.detach() : at::zeros_like(v);
  }

 private:
  at::Tensor checked(const at::Tensor& weights) const {
    at::Tensor k = excess_(weights);
    check(k.defined() && k.dim() == 0 && k.scalar_type() == at::kDouble, "direction_order", "K", k, "Double []");
    return k;
  }

  const Excess& excess_;
  at::Tensor weights_, gradient_;
};

}  // namespace

Excess gaussian_excess(std::function<at::Tensor(const at::Tensor&)> output, const at::Tensor& point, double sigma) {
  check_given("gaussian_excess", "output", output, kFunction);
  check_positive("gaussian_excess", "sigma", sigma);
  const at::NoGradGuard no_grad;
  const at::Tensor frozen = output(point).detach().clone();
  return [output = std::move(output), frozen, sigma](const at::Tensor& weights) {
    const at::Tensor difference = output(weights).sub(frozen);
    return difference.mul(difference).sum().mul(1 / (2 * sigma * sigma * static_cast<double>(frozen.size(0))));
  };
}

Excess categorical_excess(std::function<at::Tensor(const at::Tensor&)> output, const at::Tensor& point) {
  check_given("categorical_excess", "output", output, kFunction);
  const at::NoGradGuard no_grad;
  const at::Tensor frozen = at::log_softmax(output(point), -1).detach().clone();
  return [output = std::move(output), frozen](const at::Tensor& weights) {
    const at::Tensor terms = divergence_terms(frozen, at::log_softmax(output(weights), -1));
    return terms.sum().div(static_cast<double>(frozen.size(0)));
  };
}

DirectionOrder direction_order(const Excess& excess, const at::Tensor& point, const at::Tensor& direction,
                               const OrderOptions& options) {
  check_given("direction_order", "K", excess, kFunction);
  ExcessLandscape landscape(excess);
  return direction_order(landscape, point, direction, options);
}

}  // namespace dds
