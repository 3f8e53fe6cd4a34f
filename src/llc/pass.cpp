#include "src/llc/pass.hpp"

#include <ATen/TensorOperators.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/dot.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/where.h>
#include <ATen/ops/zeros.h>

#include <cmath>

#include "src/model/random.hpp"

namespace dds {
namespace {

bool is_fused(const at::Tensor& weights) {
  return weights.is_cpu() && (weights.scalar_type() == at::kFloat || weights.scalar_type() == at::kDouble);
}

template <class T>
kernels::Sums run_fused(const WeightPass& pass) {
  const auto read = [](const at::Tensor& tensor) { return tensor.defined() ? tensor.data_ptr<T>() : nullptr; };
  kernels::Pass<T> fused;
  fused.size = pass.weights.numel();
  std::vector<at::Tensor> contiguous;  // keeps what had to be copied
  for (const auto& part : pass.gradient) {
    if (part.gradient.defined()) contiguous.push_back(part.gradient.contiguous());
    fused.gradient.push_back({part.gradient.defined() ? contiguous.back().data_ptr<T>() : nullptr, part.size});
  }
  fused.weights = read(pass.weights);
  fused.start = read(pass.start);
  fused.slope = read(pass.slope);
  fused.scale = read(pass.scale);
  fused.n_beta = pass.n_beta;
  fused.gamma = pass.gamma;
  fused.drift = read(pass.drift);
  fused.moved = read(pass.moved);
  fused.eps = pass.eps;
  fused.box = pass.box;
  fused.noise = pass.noise;
  fused.carried = pass.carried.defined() ? pass.carried.data_ptr<float>() : nullptr;
  return kernels::run(fused);
}

at::Tensor normal_like(const at::Tensor& weights, const kernels::RandomKey& key) {
  if (weights.is_cpu()) {
    auto noise = at::empty(weights.sizes(), at::kFloat);
    kernels::normals(key, 0, noise.numel(), noise.data_ptr<float>());
    return noise.to(weights.scalar_type());
  }
  return at::empty_like(weights).normal_(0, 1, generator_for(weights.device(), key.key + key.purpose, key.step));
}

kernels::Sums run_by_operators(const WeightPass& pass) {
  std::vector<at::Tensor> parts;
  for (const auto& part : pass.gradient) {
    parts.push_back(part.gradient.defined() ? part.gradient.reshape({-1})
                                            : at::zeros({part.size}, pass.weights.options()));
  }
  auto force = at::cat(parts);
  if (pass.slope.defined()) force.sub_(pass.slope);
  force.mul_(pass.n_beta);
  const auto displacement = pass.weights - pass.start;
  const auto drift = force.add(displacement, pass.gamma);
  const auto led = pass.scale.defined() ? drift * pass.scale * pass.scale : drift;
  const auto inner = [](const at::Tensor& a, const at::Tensor& b) {
    return at::dot(a.to(at::kDouble), b.to(at::kDouble)).item<double>();
  };
  const kernels::Sums sums{inner(displacement, displacement), inner(force, displacement), inner(force, led),
                           inner(drift, led)};
  if (pass.drift.defined()) pass.drift.copy_(drift);
  if (!pass.moved.defined()) return sums;
  auto noise = normal_like(pass.weights, pass.noise);
  if (pass.carried.defined()) {
    const auto fresh = noise;
    noise = (fresh + pass.carried) * 0.5;
    pass.carried.copy_(fresh);
  }
  if (pass.scale.defined()) noise = noise * pass.scale;
  auto moved = pass.weights + led * (-pass.eps / 2) + noise * std::sqrt(pass.eps);
  if (pass.box > 0) {
    auto d = moved - pass.start;
    d = at::where(d > pass.box, 2 * pass.box - d, at::where(d < -pass.box, -2 * pass.box - d, d));
    moved = pass.start + d.clamp(-pass.box, pass.box);
  }
  pass.moved.copy_(moved);
  return sums;
}

}  // namespace

kernels::Sums run(const WeightPass& pass) {
  if (!is_fused(pass.weights)) return run_by_operators(pass);
  return pass.weights.scalar_type() == at::kFloat ? run_fused<float>(pass) : run_fused<double>(pass);
}

at::Tensor carried_noise_like(const at::Tensor& weights, const kernels::RandomKey& key) {
  auto noise = normal_like(weights, key);
  return is_fused(weights) ? noise.to(at::kFloat) : noise;
}

double inner_product(const at::Tensor& a, const at::Tensor& b) { return at::dot(a, b).item<double>(); }
double length_of(const at::Tensor& v) { return v.norm().item<double>(); }

}  // namespace dds
