// Losses given as a function of one vector of weights, for tests of estimate_llc.
#pragma once

#include <torch/torch.h>

#include <algorithm>
#include <cmath>
#include <dds/llc.hpp>
#include <functional>
#include <memory>
#include <string>

namespace dds::test {

/// A model whose loss is a function K of its weights. Its Problem has two samples, both with the loss K.
class Energy {
 public:
  using Function = std::function<at::Tensor(const at::Tensor&)>;

  Energy(at::Tensor start, Function k) : module_(std::make_shared<torch::nn::Module>()), k_(std::move(k)) {
    weights_ = module_->register_parameter("w", std::move(start));
  }

  Problem problem() const {
    const auto forward = [k = k_, w = weights_](torch::nn::Module&, const std::vector<at::Tensor>& inputs) {
      return k(w).expand({inputs[0].size(0)});
    };
    const auto options = weights_.options().requires_grad(false);
    return {*module_, likelihood("k", [](const at::Tensor& output, const at::Tensor&) { return output; }),
            Data(torch::zeros({2, 1}, options), torch::zeros({2}, options)), forward};
  }

 private:
  std::shared_ptr<torch::nn::Module> module_;
  at::Tensor weights_;
  Function k_;
};

/// One of the failures has this in its text.
inline bool fails_by(const LlcEstimate& estimate, const std::string& part) {
  return std::any_of(estimate.failures.begin(), estimate.failures.end(),
                     [&](const std::string& failure) { return failure.find(part) != std::string::npos; });
}

/// E[f(x)] over the density exp(-u(x)) on [low, high], by the trapezoid rule.
template <class F, class U>
double mean_by_quadrature(const F& f, const U& u, double low, double high, int points = 20000) {
  double mass = 0, sum = 0;
  for (int i = 0; i <= points; ++i) {
    const double x = low + (high - low) * i / points, weight = std::exp(-u(x));
    mass += weight;
    sum += weight * f(x);
  }
  return sum / mass;
}

}  // namespace dds::test
