// Per-sample gradients held to one-by-one backward in fp64: what the tests of layer kinds and of LibTorch's modules
// share.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <dds/per_sample.hpp>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "tests/hooks/layer_kinds.hpp"
#include "tests/support.hpp"

namespace dds::test {

inline constexpr double kPerSampleTolerance = 1e-10;  // relative, fp64

/// l_i in which every entry of the output has a gradient of its own.
inline at::Tensor losses_of(const at::Tensor& output) {
  const at::Tensor flat = output.flatten(1);
  const at::Tensor weights = torch::arange(1, flat.size(1) + 1, flat.options()) / 3;
  return (weights * flat.sin() + flat.square()).sum(1);
}

inline LikelihoodPtr some_likelihood() {
  return likelihood("sines", [](const at::Tensor& output, const at::Tensor&) { return losses_of(output); });
}

inline Data data_of(const at::Tensor& x) { return {x, torch::zeros({x.size(0)})}; }

/// Rows g_i of every parameter by one backward pass for each sample. A parameter that has no part in it is left out.
inline std::map<std::string, at::Tensor> one_by_one(const torch::nn::Module& model, const at::Tensor& losses) {
  std::vector<std::string> names;
  std::vector<at::Tensor> parameters;
  for (const auto& parameter : model.named_parameters()) {
    names.push_back(parameter.key());
    parameters.push_back(parameter.value());
  }
  std::map<std::string, std::vector<at::Tensor>> rows;
  for (std::int64_t i = 0; i < losses.size(0); ++i) {
    const auto gradients = torch::autograd::grad({losses[i]}, parameters, {}, true, false, true);
    for (std::size_t p = 0; p < names.size(); ++p) {
      if (gradients[p].defined()) rows[names[p]].push_back(gradients[p]);
    }
  }
  std::map<std::string, at::Tensor> result;
  for (const auto& [name, gradients] : rows) result[name] = torch::stack(gradients);
  return result;
}

/// All that is computed from the factors against the rows written out by one-by-one backward.
inline void expect_agrees(const PerSampleGradients& gradients, const std::map<std::string, at::Tensor>& reference) {
  const std::int64_t n = gradients.samples();
  ASSERT_FALSE(gradients.parameters().empty());
  for (const std::string& name : gradients.parameters()) {
    ASSERT_TRUE(reference.contains(name)) << name;
    const at::Tensor& rows = reference.at(name);
    EXPECT_EQ(gradients.gradient(name).sizes(), rows.sizes());
    EXPECT_LE(relative_difference(gradients.gradient(name), rows), kPerSampleTolerance) << name;
    EXPECT_LE(relative_difference(gradients.sum(name), rows.sum(0)), kPerSampleTolerance) << name;
  }
  at::Tensor norms = torch::zeros({n}, torch::kDouble);
  for (const auto& [name, rows] : reference) norms += rows.flatten(1).square().sum(1);
  EXPECT_LE(relative_difference(gradients.squared_norms(), norms), kPerSampleTolerance);
  for (const PerSampleLayer& layer : gradients.layers()) {
    std::vector<at::Tensor> parts;
    for (const std::string& name : layer.parameters) parts.push_back(reference.at(name).flatten(1));
    const at::Tensor rows = torch::cat(parts, 1);
    const at::Tensor gram = rows.mm(rows.t()) / n;
    EXPECT_LE(relative_difference(gradients.gram(layer.name), gram), kPerSampleTolerance) << layer.name;
    EXPECT_LE(relative_difference(gradients.squared_norms(layer.name), n * gram.diagonal()), kPerSampleTolerance)
        << layer.name;

    const at::Tensor expected = torch::linalg_svdvals(rows).square() / n;
    for (const GramRange range : {GramRange::Gram, GramRange::Rows}) {
      const GramSpectrum spectrum = gradients.spectra({layer.name}, range).at(0);
      EXPECT_EQ(spectrum.parameters, rows.size(1));
      const at::Tensor values = torch::tensor(spectrum.eigenvalues, torch::kDouble);
      ASSERT_EQ(values.size(0), std::min(n, rows.size(1)));
      EXPECT_LE(relative_difference(values, expected), 1e-12) << layer.name;
    }
  }
}

/// A network that its parameter builds, in fp64, and five sequences of six rows for it.
template <class Case>
class OnSequences : public testing::TestWithParam<Case> {
 protected:
  OnSequences() {
    torch::manual_seed(2);
    net = std::make_shared<Net>(this->GetParam().build);
    net->to(torch::kDouble);
    x = torch::randn({5, 6, 3}, torch::kDouble);
  }
  std::shared_ptr<Net> net;
  at::Tensor x;
};

}  // namespace dds::test
