// The library on the strict device: the same numbers as on the CPU to the bit, no work out of order, and no wait on the
// training's streams that is not stated here.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <torch/torch.h>

#include <dds/dds.hpp>
#include <memory>
#include <optional>
#include <utility>

#include "tests/device/strict_device.hpp"
#include "tests/hooks/layer_kinds.hpp"
#include "tests/seed.hpp"
#include "tests/support.hpp"

namespace dds::test {
namespace {

namespace F = torch::nn::functional;
using testing::IsEmpty;

class OnTheDevice : public testing::Test {
 protected:
  void SetUp() override {
    torch::manual_seed(seed(2));
    strict::violations();
    strict::reset_counts();
  }
  void TearDown() override { EXPECT_THAT(strict::violations(), IsEmpty()); }
  at::Device device = strict::device();
};

void expect_same(const std::vector<Signature>& on_device, const std::vector<Signature>& on_cpu) {
  ASSERT_EQ(on_device.size(), on_cpu.size());
  ASSERT_FALSE(on_cpu.empty());
  for (std::size_t i = 0; i < on_cpu.size(); ++i) {
    const Signature &a = on_device[i], &b = on_cpu[i];
    const std::string where = to_string(series_of(b));
    EXPECT_EQ(to_string(series_of(a)), where);
    EXPECT_EQ(to_string(a.status), to_string(b.status)) << where;
    EXPECT_EQ(a.rank, b.rank) << where;
    EXPECT_EQ(a.structural_bound, b.structural_bound) << where;
    EXPECT_EQ(a.sigma_max, b.sigma_max) << where;
    EXPECT_EQ(a.sigma_min, b.sigma_min) << where;
    // The device scales every matrix, the CPU only where it must: the logarithms of the scales are rounded.
    ASSERT_EQ(a.logdet_plus.has_value(), b.logdet_plus.has_value()) << where;
    if (b.logdet_plus) {
      EXPECT_NEAR(*a.logdet_plus, *b.logdet_plus, 1e-12) << where;
    }
    EXPECT_EQ(a.floor, b.floor) << where;
    EXPECT_EQ(a.spectrum, b.spectrum) << where;
  }
}

// ---- the engine ----

TEST_F(OnTheDevice, FactorsAndSpectraAreThoseOfTheCpu) {
  const at::Tensor rows = torch::randn({9000, 12}, torch::kDouble);
  TriangularAccumulator here(12), there(12);
  for (const at::Tensor& part : rows.split(1700)) {
    here.update(part);
    there.update(part.to(device, /*non_blocking=*/true));
  }
  EXPECT_EQ(strict::counts().synchronisations, 0);
  const Spectrum expected = read_spectrum(here, true), found = read_spectrum(there, true);
  EXPECT_EQ(strict::counts().to_host, 2);  // the numbers of all, and the vectors
  ASSERT_EQ(found.sigma.size(), expected.sigma.size());
  for (std::size_t i = 0; i < found.sigma.size(); ++i) {
    EXPECT_EQ(std::ldexp(found.sigma[i], found.exponent), std::ldexp(expected.sigma[i], expected.exponent)) << i;
  }
  EXPECT_LT((found.right.abs() - expected.right.abs()).abs().max().item<double>(), 1e-12);
}

TEST_F(OnTheDevice, OneTransferBringsAllSpectra) {
  std::vector<TriangularAccumulator> accumulators;
  for (const std::int64_t width : {3, 5, 3, 8, 5}) {
    accumulators.emplace_back(width);
    accumulators.back().update(torch::randn({40, width}).to(device, /*non_blocking=*/true));
  }
  std::vector<const TriangularAccumulator*> pointers;
  for (const TriangularAccumulator& accumulator : accumulators) pointers.push_back(&accumulator);
  strict::reset_counts();
  read_spectra(pointers);
  EXPECT_EQ(strict::counts().synchronisations, 1);
  EXPECT_EQ(strict::counts().to_host, 1);
}

// ---- training ----

struct Trained {
  std::vector<Signature> signatures;
  at::Tensor weights;
};

torch::nn::Sequential network() {
  return torch::nn::Sequential(torch::nn::Conv2d(1, 4, 3), torch::nn::ReLU(), torch::nn::Flatten(),
                               torch::nn::Linear(144, 20), torch::nn::Tanh(), torch::nn::Linear(20, 5));
}

Trained train(at::Device where, std::optional<MonitorOptions> options) {
  torch::manual_seed(seed(3));
  auto net = network();
  const at::Tensor images = torch::randn({32, 1, 8, 8}), labels = torch::randint(0, 5, {32}, torch::kLong);
  net->to(where);
  torch::optim::Adam optimizer(net->parameters(), 1e-2);
  const auto sink = std::make_shared<log::Memory>();
  std::optional<Monitor> monitor;
  if (options) monitor.emplace(*net, *options, sink);
  const at::Tensor x = images.to(where), y = labels.to(where);
  strict::reset_counts();
  for (int i = 0; i < 5; ++i) {
    std::optional<Monitor::Step> step;
    if (monitor) step.emplace(monitor->step());
    optimizer.zero_grad();
    F::cross_entropy(net->forward(x), y).backward();
    optimizer.step();
  }
  monitor.reset();
  return {sink->signatures, torch::nn::utils::parameters_to_vector(net->parameters()).detach().cpu()};
}

MonitorOptions each_second_step() {
  return MonitorOptions().every(2).signatures(SignatureOptions().spectra(true).dead_axes(true));
}

class Workers : public OnTheDevice, public testing::WithParamInterface<Worker> {};

TEST_P(Workers, ReadAndTrainAsOnTheCpu) {
  const MonitorOptions options = each_second_step().worker(GetParam()).window(2);
  const Trained bare = train(device, std::nullopt), there = train(device, options), here = train(at::kCPU, options);
  EXPECT_TRUE(torch::equal(there.weights, bare.weights));
  EXPECT_TRUE(torch::equal(there.weights, here.weights));
  expect_same(there.signatures, here.signatures);
}

INSTANTIATE_TEST_SUITE_P(All, Workers, testing::Values(Worker::Off, Worker::Wait),
                         [](const auto& info) { return info.param == Worker::Off ? "Off" : "Wait"; });

// Three readings: one transfer each of the numbers, one of what causes are looked for in, and one wait for the side
// stream at the end.
TEST_F(OnTheDevice, AReadingIsOneTransferAndOneForCauses) {
  for (const bool causes : {false, true}) {
    train(device, MonitorOptions().every(2).worker(Worker::Wait).signatures(SignatureOptions().causes(causes)));
    const strict::Counts reading = strict::side_counts();
    EXPECT_EQ(reading.to_host, causes ? 6 : 3) << testing::PrintToString(reading.waits);
    EXPECT_EQ(reading.synchronisations, causes ? 9 : 6) << testing::PrintToString(reading.waits);
  }
}

// ---- every kind of layer ----

class EveryKindOnTheDevice : public OnTheDevice, public testing::WithParamInterface<LayerKind> {};

TEST_P(EveryKindOnTheDevice, HasTheRowsOfTheCpu) {
  for (const char* cell : {"LSTM", "GRU"}) {
    if (GetParam().name.find(cell) != std::string::npos) {
      GTEST_SKIP() << "LibTorch runs the cell of a device as one operator that the CPU does not have";
    }
  }
  const auto rows = [&](at::Device where) {
    torch::manual_seed(seed(4));
    const auto net = make_net(GetParam());
    const at::Tensor x = GetParam().input();
    net->to(where);
    Recorder recorder(*net);
    recorder.start();
    summed_loss(net->forward(x.to(where))).backward();
    return recorder.take();
  };
  const Captured here = rows(at::kCPU), there = rows(device);
  ASSERT_EQ(there.layers.size(), here.layers.size());
  EXPECT_THAT(there.errors, IsEmpty());
  bool looked = false;
  for (std::size_t i = 0; i < here.layers.size(); ++i) {
    ASSERT_EQ(there.layers[i].calls.size(), here.layers[i].calls.size()) << here.layers[i].layer;
    for (std::size_t j = 0; j < here.layers[i].calls.size(); ++j) {
      const CapturedCall &a = there.layers[i].calls[j], &b = here.layers[i].calls[j];
      EXPECT_EQ(a.output_features, b.output_features);
      EXPECT_TRUE(torch::allclose(a.output.cpu(), b.output, 1e-5, 1e-6));
      ASSERT_EQ(a.gradient().defined(), b.gradient().defined());
      if (b.gradient().defined()) {
        EXPECT_TRUE(torch::allclose(a.gradient().cpu(), b.gradient(), 1e-5, 1e-6));
      }
      looked = true;
    }
  }
  EXPECT_TRUE(looked);
}

INSTANTIATE_TEST_SUITE_P(Kinds, EveryKindOnTheDevice, testing::ValuesIn(layer_kinds()),
                         [](const auto& info) { return info.param.name; });

// ---- checkpoints, per-sample gradients, the LLC ----

TEST_F(OnTheDevice, ACheckpointReadIsThatOfTheCpu) {
  auto net = network();
  const at::Tensor images = torch::randn({20, 1, 8, 8}), labels = torch::randint(0, 5, {20}, torch::kLong);
  const ReadOptions options = ReadOptions().signatures(SignatureOptions().spectra(true)).batch_size(7);
  const auto here = read({*net, categorical(), Data(images, labels)}, options);
  net->to(device);
  const auto there = read({*net, categorical(), Data(images.to(device), labels.to(device))}, options);
  expect_same(there, here);
}

TEST_F(OnTheDevice, PerSampleGradientsAreThoseOfTheCpu) {
  auto net = network();
  const at::Tensor images = torch::randn({6, 1, 8, 8}), labels = torch::randint(0, 5, {6}, torch::kLong);
  const auto here = per_sample_gradients({*net, categorical(), Data(images, labels)});
  const at::Tensor norms = here.squared_norms();
  net->to(device);
  const auto there = per_sample_gradients({*net, categorical(), Data(images.to(device), labels.to(device))});
  EXPECT_LT(relative_difference(there.squared_norms().cpu(), norms), 1e-5);
  for (const std::string& name : here.parameters()) {
    EXPECT_LT(relative_difference(there.gradient(name).cpu(), here.gradient(name)), 1e-5) << name;
  }
}

// Of a linear model lambda is half the number of its weights.
TEST_F(OnTheDevice, TheLlcIsRight) {
  torch::nn::Linear net(torch::nn::LinearOptions(4, 1).bias(false));
  const at::Tensor x = torch::randn({200, 4}), y = net->forward(x).detach();
  net->to(device);
  for (const Sampler sampler : {Sampler::Mala, Sampler::AveragedNoise}) {
    const LlcEstimate estimate = estimate_llc(
        {*net, gaussian(1), Data(x.to(device), y.to(device))},
        LlcOptions().sampler(sampler).seed(seed(5)).gamma(1e-3).chains(2).burn_in(200).draws(500).halve_step(false));
    ASSERT_TRUE(estimate.lambda) << estimate.verdict();
    EXPECT_NEAR(*estimate.lambda, 2, 5 * *estimate.standard_error + 0.05) << estimate.verdict();
  }
}

}  // namespace
}  // namespace dds::test
