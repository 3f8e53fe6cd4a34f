#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <dds/error.hpp>
#include <dds/per_sample.hpp>
#include <dds/recorder.hpp>
#include <map>

#include "tests/hooks/layer_kinds.hpp"
#include "tests/support.hpp"

namespace dds {
namespace {

using test::LayerKind;
using test::message_of;
using test::Net;
using test::relative_difference;
using testing::ElementsAre;
using testing::HasSubstr;

constexpr double kTolerance = 1e-10;  // relative, fp64

// ---- references ----

/// l_i in which every entry of the output has a gradient of its own.
at::Tensor losses_of(const at::Tensor& output) {
  const at::Tensor flat = output.flatten(1);
  const at::Tensor weights = torch::arange(1, flat.size(1) + 1, flat.options()) / 3;
  return (weights * flat.sin() + flat.square()).sum(1);
}

LikelihoodPtr some_likelihood() {
  return likelihood("sines", [](const at::Tensor& output, const at::Tensor&) { return losses_of(output); });
}

Data data_of(const at::Tensor& x) { return {x, torch::zeros({x.size(0)})}; }

/// Rows g_i of every parameter by one backward pass for each sample. A parameter that has no part in it is left out.
std::map<std::string, at::Tensor> one_by_one(const torch::nn::Module& model, const at::Tensor& losses) {
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
void expect_agrees(const PerSampleGradients& gradients, const std::map<std::string, at::Tensor>& reference) {
  const std::int64_t n = gradients.samples();
  for (const std::string& name : gradients.parameters()) {
    ASSERT_TRUE(reference.contains(name)) << name;
    const at::Tensor& rows = reference.at(name);
    EXPECT_EQ(gradients.gradient(name).sizes(), rows.sizes());
    EXPECT_LE(relative_difference(gradients.gradient(name), rows), kTolerance) << name;
    EXPECT_LE(relative_difference(gradients.sum(name), rows.sum(0)), kTolerance) << name;
  }
  at::Tensor norms = torch::zeros({n}, torch::kDouble);
  for (const auto& [name, rows] : reference) norms += rows.flatten(1).square().sum(1);
  EXPECT_LE(relative_difference(gradients.squared_norms(), norms), kTolerance);
  for (const PerSampleLayer& layer : gradients.layers()) {
    std::vector<at::Tensor> parts;
    for (const std::string& name : layer.parameters) parts.push_back(reference.at(name).flatten(1));
    const at::Tensor rows = torch::cat(parts, 1);
    const at::Tensor gram = rows.mm(rows.t()) / n;
    EXPECT_LE(relative_difference(gradients.gram(layer.name), gram), kTolerance) << layer.name;
    EXPECT_LE(relative_difference(gradients.squared_norms(layer.name), n * gram.diagonal()), kTolerance) << layer.name;

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

// ---- every layer kind ----

/// The dimension that counts the samples, of what the layer takes and of what it gives; -1: it takes one at a time.
struct Samples {
  std::int64_t input = 0, output = 0;
};

Samples samples_of(const std::string& kind) {
  static const std::map<std::string, Samples> others{
      {"LinearOfOneSample", {-1, -1}},
      {"Conv2dWithoutBatch", {-1, -1}},
      {"RawMv", {-1, -1}},
      {"RawMatmulLeft", {1, 1}},
      {"RawBmmByExpert", {1, 1}},
      {"RawBaddbmm", {1, 1}},
      {"RawEinsumImplicit", {0, 1}},
      {"LSTM", {1, 1}},
      {"RNN", {1, 1}},
      {"LSTMTwoLayers", {1, 1}},
  };
  const auto known = others.find(kind);
  return known == others.end() ? Samples{} : known->second;
}

/// Runs a kind's network on data whose first dimension counts samples.
Forward forward_of(const LayerKind& kind) {
  const Samples samples = samples_of(kind.name);
  return [samples](torch::nn::Module& model, const std::vector<at::Tensor>& x) {
    auto& net = dynamic_cast<Net&>(model);
    if (samples.input < 0) return net.forward(x[0].squeeze(0)).unsqueeze(0);
    return net.forward(x[0].movedim(0, samples.input)).movedim(samples.output, 0);
  };
}

at::Tensor input_of(const LayerKind& kind) {
  const at::Tensor x = kind.input();
  const std::int64_t dim = samples_of(kind.name).input;
  const at::Tensor rows = dim < 0 ? x.unsqueeze(0) : x.movedim(dim, 0);
  return rows.is_floating_point() ? rows.to(torch::kDouble) : rows;
}

class PerSample : public testing::TestWithParam<LayerKind> {
 protected:
  void SetUp() override {
    torch::manual_seed(1);
    net = test::make_net(GetParam());
    net->to(torch::kDouble);
    x = input_of(GetParam());
    forward = forward_of(GetParam());
  }

  std::shared_ptr<Net> net;
  at::Tensor x;
  Forward forward;
};

TEST_P(PerSample, GradientsAreThoseOfOneByOneBackward) {
  const auto gradients = per_sample_gradients(*net, some_likelihood(), data_of(x), forward);
  for (const PerSampleLayer& layer : gradients.layers()) {
    ASSERT_EQ(to_string(layer.status), "ok") << layer.name << ": " << layer.detail;
  }
  net->eval();
  expect_agrees(gradients, one_by_one(*net, losses_of(forward(*net, {x}))));
}

// In small blocks, every contraction takes several.
TEST_P(PerSample, BlocksDoNotMatter) {
  const auto gradients =
      per_sample_gradients(*net, some_likelihood(), data_of(x), forward, PerSampleOptions().max_bytes(1));
  net->eval();
  expect_agrees(gradients, one_by_one(*net, losses_of(forward(*net, {x}))));
}

// A step of the user's own, with a loss that averages, where the user says which dimension counts the samples.
TEST_P(PerSample, GradientsOfARecordedStepAreThoseToo) {
  net->eval();
  const std::int64_t n = x.size(0);
  Recorder recorder(*net, {.operators = true});
  recorder.start();
  losses_of(forward(*net, {x})).mean().backward();
  const Captured captured = recorder.take();
  auto options = PerSampleOptions().scale(static_cast<double>(n));
  if (const std::int64_t dim = samples_of(GetParam().name).output; dim >= 0) options.samples({{"*", {dim}}});
  const auto gradients = per_sample_gradients(*net, captured, n, options);
  if (const std::string name = GetParam().name; name == "Masked" || name == "LowRank" || name == "Normalised") {
    EXPECT_EQ(to_string(gradients.layers().at(0).status), "not_replayable");
    EXPECT_THAT(message_of([&] { gradients.gram("p"); }), HasSubstr("computed from parameters"));
    return;
  }
  for (const PerSampleLayer& layer : gradients.layers()) {
    ASSERT_EQ(to_string(layer.status), "ok") << layer.name << ": " << layer.detail;
  }
  expect_agrees(gradients, one_by_one(*net, losses_of(forward(*net, {x}))));
  for (const auto& parameter : net->named_parameters()) {
    EXPECT_LE(relative_difference(gradients.sum(parameter.key()), n * parameter.value().grad()), kTolerance);
  }
}

INSTANTIATE_TEST_SUITE_P(Kinds, PerSample, testing::ValuesIn(test::layer_kinds()),
                         [](const auto& info) { return info.param.name; });

}  // namespace
}  // namespace dds
