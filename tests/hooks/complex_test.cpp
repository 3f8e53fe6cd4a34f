// Complex parameters: per-sample gradients are what LibTorch's .grad is, sample by sample.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <dds/per_sample.hpp>
#include <dds/read.hpp>
#include <dds/recorder.hpp>
#include <string>

#include "tests/hooks/layer_kinds.hpp"
#include "tests/hooks/per_sample_reference.hpp"
#include "tests/support.hpp"

namespace dds {
namespace {

namespace nn = torch::nn;
using test::Net;
using test::one_by_one;
using test::relative_difference;

at::Tensor complex_losses(const at::Tensor& output) {
  return test::losses_of(output.is_complex() ? torch::view_as_real(output.resolve_conj()) : output);
}

LikelihoodPtr of_complex() {
  return likelihood("complex", [](const at::Tensor& output, const at::Tensor&) { return complex_losses(output); });
}

at::Tensor as_real(const at::Tensor& rows) {
  return (rows.is_complex() ? torch::view_as_real(rows.resolve_conj()) : rows).flatten(1);
}

void expect_complex_agrees(const PerSampleGradients& gradients, const std::map<std::string, at::Tensor>& reference) {
  const std::int64_t n = gradients.samples();
  ASSERT_EQ(gradients.parameters().size(), reference.size()) << gradients.layers().at(0).detail;
  for (const auto& [name, rows] : reference) {
    EXPECT_LE(relative_difference(gradients.gradient(name), rows), test::kPerSampleTolerance) << name;
    EXPECT_LE(relative_difference(gradients.sum(name), rows.sum(0)), test::kPerSampleTolerance) << name;
  }
  for (const PerSampleLayer& layer : gradients.layers()) {
    std::vector<at::Tensor> parts;
    for (const std::string& name : layer.parameters) parts.push_back(as_real(reference.at(name)));
    const at::Tensor rows = torch::cat(parts, 1), gram = rows.mm(rows.t()) / n;
    EXPECT_EQ(gradients.gram(layer.name).scalar_type(), torch::kDouble);
    EXPECT_LE(relative_difference(gradients.gram(layer.name), gram), test::kPerSampleTolerance);
    EXPECT_LE(relative_difference(gradients.squared_norms(layer.name), n * gram.diagonal()), test::kPerSampleTolerance);
    const at::Tensor expected = torch::linalg_svdvals(rows).square() / n;
    for (const GramRange range : {GramRange::Gram, GramRange::Rows}) {
      const GramSpectrum spectrum = gradients.spectra({layer.name}, range).at(0);
      EXPECT_EQ(spectrum.parameters, rows.size(1));
      ASSERT_EQ(std::ssize(spectrum.eigenvalues), std::min(n, rows.size(1)));
      EXPECT_LE(relative_difference(torch::tensor(spectrum.eigenvalues, torch::kDouble), expected), 1e-12);
    }
  }
}

struct ComplexUse {
  std::string name;
  std::function<Net::Run(Net&)> build;  ///< (n, 6) -> (n, ...)
  bool recorded = true;                 ///< false: the weight is computed from the parameter
};
void PrintTo(const ComplexUse& use, std::ostream* os) { *os << use.name; }

std::vector<ComplexUse> uses() {
  using T = const at::Tensor&;
  const auto with = [](std::vector<std::int64_t> shape, auto use,
                       at::ScalarType type = torch::kComplexDouble) -> std::function<Net::Run(Net&)> {
    return [=](Net& net) -> Net::Run {
      net.register_parameter("p", torch::randn(shape, type));
      return [use](Net& net, const at::Tensor& x) {
        return use(net.named_parameters()["p"], torch::complex(x, x.cos() - x));
      };
    };
  };
  return {
      {"Product", with({6, 3}, [](T p, T z) { return z.mm(p); })},
      {"RealPart", with({6, 3}, [](T p, T z) { return torch::real(z.mm(p)) + 1; })},
      {"ConjugateInput", with({6, 3}, [](T p, T z) { return z.conj().mm(p); })},
      {"ProductWithBias", with({7, 3}, [](T p, T z) { return torch::addmm(p[6], z, p.narrow(0, 0, 6)); })},
      {"Positions", with({3, 4},
                         [](T p, T z) {
                           return z.view({-1, 2, 3}).matmul(p);
                         })},
      {"Spectral", with({2, 4, 2},
                        [](T p, T z) {
                          const at::Tensor modes = torch::fft_rfft(torch::real(z).view({-1, 2, 3}));
                          return torch::fft_irfft(torch::einsum("bix,iox->box", {modes, p}), 3);
                        })},
      {"ThreeOperands", with({2, 4, 3},
                             [](T p, T z) {
                               return torch::einsum("bi,bj,ijo->bo", {z.narrow(1, 0, 2), z.narrow(1, 2, 4), p});
                             })},
      {"ConjugateWeight", with({6, 3}, [](T p, T z) { return z.mm(p.conj()); }), false},
      {"Adjoint", with({3, 6}, [](T p, T z) { return z.mm(p.conj().t()); }), false},
      {"RealParameter",
       with(
           {6, 3, 2}, [](T p, T z) { return z.mm(torch::view_as_complex(p)); }, torch::kDouble),
       false},
      {"PartsAlone",
       with({6, 3},
            [](T p, T z) {
              const at::Tensor x = torch::real(z);
              return x.mm(torch::view_as_real(p).select(2, 0)) + x.cos().mm(torch::view_as_real(p).select(2, 1));
            }),
       false},
      {"Linear",
       [](Net& net) -> Net::Run {
         nn::Linear layer = net.register_module("layer", nn::Linear(6, 3));
         layer->weight.set_data(torch::randn({3, 6}, torch::kComplexDouble));
         layer->bias.set_data(torch::randn({3}, torch::kComplexDouble));
         return [layer](Net&, const at::Tensor& x) mutable { return layer(torch::complex(x, x.sin())); };
       }},
  };
}

class ComplexParameters : public testing::TestWithParam<ComplexUse> {
 protected:
  ComplexParameters() {
    torch::manual_seed(5);
    net = std::make_shared<Net>(GetParam().build);
    x = torch::randn({5, 6}, torch::kDouble);
  }
  std::shared_ptr<Net> net;
  at::Tensor x;
};

TEST_P(ComplexParameters, HaveTheGradientsThatLibTorchGives) {
  const Problem problem{*net, of_complex(), test::data_of(x)};
  const auto reference = one_by_one(*net, complex_losses(net->forward(x)));
  for (const std::int64_t max_bytes : {std::int64_t{1} << 20, std::int64_t{1}}) {
    expect_complex_agrees(per_sample_gradients(problem, PerSampleOptions().max_bytes(max_bytes)), reference);
  }
}

TEST_P(ComplexParameters, InARecordingAreRightOrRefused) {
  Recorder recorder(*net, {.operators = true});
  recorder.start();
  complex_losses(net->forward(x)).sum().backward();
  const auto gradients = per_sample_gradients(*net, recorder.take(), 5, PerSampleOptions().samples({{"*", {0}}}));
  if (GetParam().recorded) {
    expect_complex_agrees(gradients, one_by_one(*net, complex_losses(net->forward(x))));
  } else {
    EXPECT_EQ(to_string(gradients.layers().at(0).status), "not_replayable");
  }
}

INSTANTIATE_TEST_SUITE_P(Uses, ComplexParameters, testing::ValuesIn(uses()),
                         [](const auto& info) { return info.param.name; });

TEST(ComplexNumbers, AMissingUseIsNoticed) {
  torch::manual_seed(0);
  const auto net = std::make_shared<Net>([](Net& net) -> Net::Run {
    net.register_parameter("p", torch::randn({3, 2}, torch::kComplexFloat));
    return [](Net& net, const at::Tensor& x) {
      const at::Tensor p = net.named_parameters()["p"], z = torch::complex(x, x.sin());
      return z.mm(p) + (z.unsqueeze(2) * p).sum({1, 2}).unsqueeze(1);
    };
  });
  const Problem problem{*net, of_complex(), test::data_of(torch::randn({4, 3}))};
  EXPECT_EQ(to_string(per_sample_gradients(problem).layers()[0].status), "not_observable");
}

// The rows of a signature are real. Complex ones have no numbers, and those of the layers beside do.
TEST(ComplexNumbers, HaveNoSignature) {
  torch::manual_seed(0);
  struct Spectral : nn::Module {
    at::Tensor p = register_parameter("p", torch::randn({4, 4}, torch::kComplexFloat));
    nn::Linear head{register_module("head", nn::Linear(4, 3))};
    at::Tensor forward(const at::Tensor& x) { return head(torch::real(torch::complex(x, x.sin()).mm(p))); }
  } net;
  const at::Tensor before = net.p.detach().clone();
  const auto signatures = read({net, categorical(), Data(torch::randn({20, 4}))});
  ASSERT_EQ(signatures.size(), 4u);
  for (const Signature& s : signatures) {
    EXPECT_EQ(s.status.no_numbers(), s.layer == "p") << s.layer << ' ' << to_string(s.status);
    EXPECT_EQ(s.status.has(Status::NotObservable), s.layer == "p") << to_string(s.side) << ' ' << to_string(s.status);
    EXPECT_FALSE(s.status.has(Status::Fp64Unavailable)) << s.layer;
  }
  EXPECT_EQ(net.p.scalar_type(), torch::kComplexFloat);
  EXPECT_TRUE(torch::equal(net.p, before));
}

}  // namespace
}  // namespace dds
