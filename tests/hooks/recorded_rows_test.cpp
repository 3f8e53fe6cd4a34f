// Which rows of a recording belong to which sample: told by what its operators did, and refused where it is open.
#include <ATen/ops/sort_ops.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <torch/version.h>

#include <cmath>
#include <dds/per_sample.hpp>
#include <dds/recorder.hpp>
#include <random>
#include <string>

#include "tests/hooks/layer_kinds.hpp"
#include "tests/hooks/per_sample_reference.hpp"
#include "tests/seed.hpp"
#include "tests/support.hpp"

namespace dds {
namespace {

namespace nn = torch::nn;

at::Tensor attended(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v) {
#if TORCH_VERSION_MAJOR >= 2
  return at::scaled_dot_product_attention(q, k, v);
#else
  return q.matmul(k.transpose(-1, -2)).div(std::sqrt(static_cast<double>(q.size(-1)))).softmax(-1).matmul(v);
#endif
}
using test::losses_of;
using test::Net;
using test::one_by_one;
using testing::HasSubstr;

constexpr std::int64_t n = 4;  // as many samples as positions and features

/// A recorded step of losses (n), which are summed.
template <class Losses>
PerSampleGradients recorded(Net& net, const Losses& losses) {
  Recorder recorder(net, {.operators = true});
  recorder.start();
  const at::Tensor each = losses();
  each.sum().backward();
  return per_sample_gradients(net, recorder.take(), each.size(0));
}

/// Layers with status ok have the right gradients. Returns their number.
int expect_right(const PerSampleGradients& gradients, const std::map<std::string, at::Tensor>& reference,
                 const std::string& what) {
  int known = 0;
  for (const PerSampleLayer& layer : gradients.layers()) {
    if (!layer.status.empty()) continue;
    ++known;
    for (const std::string& name : layer.parameters) {
      const at::Tensor rows = gradients.gradient(name);
      const at::Tensor right = reference.contains(name) ? reference.at(name) : torch::zeros_like(rows);
      EXPECT_LE((rows - right).norm().item<double>(), 1e-9 * (1 + right.norm().item<double>())) << what << ": " << name;
    }
  }
  return known;
}

struct Case {
  std::string name;
  std::vector<std::int64_t> shape;  ///< of the input
  std::function<Net::Run(Net&)> build;
};
void PrintTo(const Case& step, std::ostream* os) { *os << step.name; }

/// One module that is run by `use`.
template <class Module, class Use>
std::function<Net::Run(Net&)> with(Module module, Use use) {
  return [module, use](Net& net) -> Net::Run {
    Module layer = net.register_module("layer", module);
    return [layer, use](Net&, const at::Tensor& x) mutable { return use(layer, x); };
  };
}

/// As many of everything as there are samples; the gradients are known all the same.
std::vector<Case> told() {
  const auto targets = [] { return torch::tensor({1, 0, 3, 2}); };
  return {
      {"PerceptronOfOneWidth",
       {n, n},
       [](Net& net) -> Net::Run {
         nn::Linear a = net.register_module("a", nn::Linear(n, n)), b = net.register_module("b", nn::Linear(n, n));
         nn::LayerNorm norm = net.register_module("norm", nn::LayerNorm(nn::LayerNormOptions({n})));
         return [=](Net&, const at::Tensor& x) mutable { return b(norm(a(x).tanh() + x)).softmax(1); };
       }},
      {"InitialStateOfZeros",
       {n, n, 3},
       [](Net& net) -> Net::Run {
         nn::Linear in = net.register_module("in", nn::Linear(3, 5)), on = net.register_module("on", nn::Linear(5, 5));
         return [=](Net&, const at::Tensor& x) mutable {
           at::Tensor h = torch::zeros({x.size(0), 5}, x.options());
           for (int t = 0; t < 3; ++t) h = (in(x.select(1, t)) + on(h)).tanh();
           return h;
         };
       }},
      {"LastStateOfASequence",
       {7, n, 3},
       [](Net& net) -> Net::Run {
         nn::LSTM lstm = net.register_module("lstm", nn::LSTM(3, n));
         nn::Linear head = net.register_module("head", nn::Linear(n, 2));
         return [=](Net&, const at::Tensor& x) mutable { return head(std::get<0>(lstm(x)).select(0, 6)); };
       }},
      {"ConvolutionAndPooling",
       {n, 2, 6},
       [](Net& net) -> Net::Run {
         nn::Conv1d conv = net.register_module("conv", nn::Conv1d(2, n, 3));
         nn::Linear head = net.register_module("head", nn::Linear(n, n));
         return [=](Net&, const at::Tensor& x) mutable { return head(conv(x).relu().mean(2)); };
       }},
      {"Flattened",
       {n, 2, 2},
       with(nn::Linear(n, 3), [](nn::Linear& l, const at::Tensor& x) { return l(x.flatten(1)); })},
      {"ClassesByGather",
       {n, 3},
       with(nn::Linear(3, n),
            [=](nn::Linear& l, const at::Tensor& x) {
              return l(x).log_softmax(1).gather(1, targets().unsqueeze(1)).squeeze(1).neg();
            })},
      {"ClassesByIndex",
       {n, 3},
       with(nn::Linear(3, n),
            [=](nn::Linear& l, const at::Tensor& x) {
              return l(x).log_softmax(1).index({torch::arange(n), targets()}).neg();
            })},
      {"CrossEntropy",
       {n, n},
       with(nn::Linear(n, n),
            [=](nn::Linear& l, const at::Tensor& x) {
              return torch::cross_entropy_loss(l(x), targets(), {}, at::Reduction::None);
            })},
      {"Noise",
       {n, 3},
       with(nn::Linear(3, 2),
            [](nn::Linear& l, const at::Tensor& x) {
              return l(torch::randn({x.size(0), 3}, x.options()));
            })},
      {"TwoTowers",
       {n, 2, n},
       [](Net& net) -> Net::Run {
         nn::Linear a = net.register_module("a", nn::Linear(n, n)), b = net.register_module("b", nn::Linear(n, n));
         return [=](Net&, const at::Tensor& x) mutable { return a(x.select(1, 0)) * b(x.select(1, 1)).sin(); };
       }},
      {"ByEinsum",
       {n, n},
       [](Net& net) -> Net::Run {
         net.register_parameter("w", torch::randn({n, 3}));
         return [](Net& net, const at::Tensor& x) {
           return torch::einsum("bi,io->bo", {x, net.named_parameters()["w"]});
         };
       }},
      {"BagsOfOneSizeEach",
       {n, 3},
       [](Net& net) -> Net::Run {
         nn::EmbeddingBag bag = net.register_module("bag", nn::EmbeddingBag(9, 3));
         nn::Linear head = net.register_module("head", nn::Linear(3, 2));
         return [=](Net&, const at::Tensor& x) mutable { return head(bag(x.mul(40).to(torch::kLong).remainder(9))); };
       }},
      {"FoldedBetween",
       {n, 3},
       [](Net& net) -> Net::Run {
         nn::Linear a = net.register_module("a", nn::Linear(3, 6)), b = net.register_module("b", nn::Linear(6, 2));
         return [=](Net&, const at::Tensor& x) mutable { return b(a(x).view({2 * n, 3}).softmax(1).view({n, 6})); };
       }},
      {"RowsOfABoundedNorm",
       {n, 3},
       [](Net& net) -> Net::Run {
         nn::Linear a = net.register_module("a", nn::Linear(3, 6)), b = net.register_module("b", nn::Linear(6, 2));
         return [=](Net&, const at::Tensor& x) mutable { return b(torch::renorm(a(x), 2, 0, 1.0)); };
       }},
      {"TokensInOneDimension",
       {n, 5},
       [](Net& net) -> Net::Run {
         nn::Linear a = net.register_module("a", nn::Linear(5, 18)), b = net.register_module("b", nn::Linear(6, 2));
         return [=](Net&, const at::Tensor& x) mutable {
           const at::Tensor tokens = a(x).view({3 * n, 6}).tanh();
           return b((tokens / tokens.norm(2, 1, true)).view({n, 3, 6}).mean(1));
         };
       }},
      {"HeadsOfAttention",
       {n, n},
       [](Net& net) -> Net::Run {
         nn::Linear q = net.register_module("q", nn::Linear(n, 3 * n)),
                    k = net.register_module("k", nn::Linear(n, 3 * n));
         nn::Linear head = net.register_module("head", nn::Linear(n, 2));
         return [=](Net&, const at::Tensor& x) mutable {
           const auto heads = [](const at::Tensor& t) {
             return t.view({n, 3, 2, n / 2}).transpose(1, 2).reshape({2 * n, 3, n / 2});
           };
           const at::Tensor read = heads(q(x)).bmm(heads(k(x)).transpose(1, 2)).softmax(2).bmm(heads(k(x).tanh()));
           return head(read.view({n, 2, 3, n / 2}).transpose(1, 2).reshape({n, 3, n}).select(1, 0));
         };
       }},
      {"SpectrumOfEachSample",
       {n, 6},
       [](Net& net) -> Net::Run {
         nn::Linear a = net.register_module("a", nn::Linear(6, n)), b = net.register_module("b", nn::Linear(3, 2));
         return [=](Net&, const at::Tensor& x) mutable { return b(torch::fft::rfft(a(x)).abs()); };
       }},
      {"EntriesThatAreMasked",
       {n, 5},
       [](Net& net) -> Net::Run {
         nn::Linear a = net.register_module("a", nn::Linear(5, 6)), b = net.register_module("b", nn::Linear(6, 2));
         return [=](Net&, const at::Tensor& x) mutable {
           return b(a(x).index_put({x.select(1, 0) > 0}, torch::zeros({6}, x.options())).tanh());
         };
       }},
      {"ABatchThatIsSelected",
       {9, 3},
       with(nn::Linear(3, 2),
            [](nn::Linear& l, const at::Tensor& x) {
              return l(x.index_select(0, torch::tensor({5, 2, 8, 0})));
            })},
      {"ReversedFeatures",
       {n, n},
       [](Net& net) -> Net::Run {
         nn::Linear a = net.register_module("a", nn::Linear(n, n)), b = net.register_module("b", nn::Linear(n, n));
         return [=](Net&, const at::Tensor& x) mutable { return b(a(x).flip(1).tanh()); };
       }},
      {"RowsFilledInOneByOne",
       {n, 3},
       with(nn::Linear(3, 2),
            [](nn::Linear& l, const at::Tensor& x) {
              const at::Tensor rows = torch::zeros({n, 3}, x.options());
              for (int i = 0; i < n; ++i) rows.select(0, i).copy_(x.select(0, i));
              return l(rows);
            })},
  };
}

class RecordedRowsTold : public testing::TestWithParam<Case> {};

TEST_P(RecordedRowsTold, ThoughSizesAgree) {
  torch::manual_seed(5);
  const auto net = std::make_shared<Net>(GetParam().build);
  net->to(torch::kDouble);
  const at::Tensor x = torch::randn(GetParam().shape, torch::kDouble);
  const auto losses = [&] {
    torch::manual_seed(6);
    const at::Tensor output = net->forward(x);
    return output.dim() == 1 ? output.sin() : losses_of(output);
  };
  const PerSampleGradients gradients = recorded(*net, losses);
  const auto reference = one_by_one(*net, losses());
  for (const PerSampleLayer& layer : gradients.layers()) EXPECT_EQ(to_string(layer.status), "ok") << layer.detail;
  EXPECT_GT(expect_right(gradients, reference, GetParam().name), 0);
}

INSTANTIATE_TEST_SUITE_P(Steps, RecordedRowsTold, testing::ValuesIn(told()),
                         [](const auto& info) { return info.param.name; });

// ---- what is not told ----

TEST(RecordedRows, OfConstantsAreRefusedInWords) {
  const auto net = std::make_shared<Net>([](Net& net) -> Net::Run {
    nn::Linear layer = net.register_module("layer", nn::Linear(1, 3));
    return [layer](Net&, const at::Tensor& x) mutable {
      return x.unsqueeze(1) + layer(torch::linspace(0, 1, n, x.options()).unsqueeze(1));
    };
  });
  net->to(torch::kDouble);
  const at::Tensor x = torch::randn({n, 3}, torch::kDouble);
  const auto gradients = recorded(*net, [&] { return losses_of(net->forward(x)); });
  EXPECT_EQ(to_string(gradients.layers()[0].status), "samples_unknown");
  EXPECT_THAT(gradients.layers()[0].detail,
              testing::AllOf(HasSubstr("made within the recording of constants, parameters or buffers"),
                             HasSubstr("PerSampleOptions::samples tells")));
}

/// (n, 3) -> (n, 3), in which samples meet.
std::vector<std::pair<std::string, std::function<at::Tensor(const at::Tensor&)>>> mixings() {
  return {
    {"mean", [](const at::Tensor& h) { return h - 0.1 * h.mean(0, true); }},
        {"softmax", [](const at::Tensor& h) { return h.softmax(0); }},
        {"index",
         [](const at::Tensor& h) {
           return h + 0.1 * h.index({torch::tensor({1, 0, 3, 2})});
         }},
        {"stableSort",
         [](const at::Tensor& h) { return h + std::get<0>(at::_ops::sort_stable::call(h, true, 0, false)); }},
        {"einsum",
         [](const at::Tensor& h) {
           return torch::einsum("ik,kj->ij", {torch::einsum("ij,kj->ik", {h, h}), h});
         }},
#if TORCH_VERSION_MAJOR >= 2
        {"attention", [](const at::Tensor& h) {
           const at::Tensor x = h.view({1, 1, n, 3});
           return at::scaled_dot_product_attention(x, x, x).view({n, 3});
         }},
#endif
  };
}

TEST(RecordedRows, ThatMixAreCoupled) {
  torch::manual_seed(test::seed(7));
  const at::Tensor x = torch::randn({n, 3}, torch::kDouble);
  for (const auto& [name, mix] : mixings()) {
    const auto net = std::make_shared<Net>([mix = mix](Net& net) -> Net::Run {
      nn::Linear a = net.register_module("a", nn::Linear(3, 3));
      nn::Linear b = net.register_module("b", nn::Linear(3, 2));
      return [=](Net&, const at::Tensor& x) mutable { return b(mix(a(x))); };
    });
    net->to(torch::kDouble);
    const auto losses = [&] { return losses_of(net->forward(x)); };
    const auto gradients = recorded(*net, losses);
    EXPECT_EQ(to_string(gradients.layers()[0].status), "coupled") << name << gradients.layers()[0].detail;
    EXPECT_EQ(to_string(gradients.layers()[1].status), "ok") << name << gradients.layers()[1].detail;
    EXPECT_EQ(expect_right(gradients, one_by_one(*net, losses()), name), 1) << name;
  }
}

// Half of the gradient of `shift` comes from an operator that is no run of a layer.
TEST(RecordedRows, OfAParameterWithOtherUsesAreRefused) {
  const at::Tensor x = torch::randn({n, 3}, torch::kDouble);
  const auto net = std::make_shared<Net>([](Net& net) -> Net::Run {
    nn::Linear a = net.register_module("a", nn::Linear(3, 2));
    net.register_parameter("shift", torch::randn({2}));
    return [=](Net& net, const at::Tensor& x) mutable {
      const at::Tensor shift = net.named_parameters()["shift"];
      return a(x) + shift + shift.expand({n, 2}).tanh();
    };
  });
  net->to(torch::kDouble);
  const auto losses = [&] { return losses_of(net->forward(x)); };
  const auto gradients = recorded(*net, losses);
  for (const PerSampleLayer& layer : gradients.layers()) {
    const bool other = layer.name == "shift";
    EXPECT_EQ(to_string(layer.status), other ? "not_observable" : "ok") << layer.name << ": " << layer.detail;
  }
  EXPECT_EQ(expect_right(gradients, one_by_one(*net, losses()), "other uses"), 1);
}

/// What brings rows of several samples together, or gives them another order.
std::vector<std::pair<std::string, std::function<at::Tensor(const at::Tensor&)>>> of_other_rows() {
  using T = const at::Tensor&;
  const at::Tensor order = torch::tensor({3, 0, 5, 1, 2, 4}),
                   matrix = torch::eye(6, torch::kDouble).index_select(0, order);
  const auto spread = [order](T h) { return order.unsqueeze(1).expand_as(h); };
  return {
      {"shifted",
       [](T h) {
         return h + 0.1 * torch::cat({h.slice(0, 1), h.slice(0, 0, 1)});
       }},
      {"shifted alone",
       [](T h) {
         return torch::cat({h.slice(0, 1), h.slice(0, 0, 1)});
       }},
      {"even before odd",
       [](T h) {
         return torch::cat({h.slice(0, 0, 6, 2), h.slice(0, 1, 6, 2)});
       }},
      {"transposed halves",
       [](T h) {
         return h.reshape({2, 3, -1}).transpose(0, 1).reshape({6, -1});
       }},
      {"swapped halves",
       [](T h) {
         return h + 0.1 * h.reshape({2, 3, -1}).flip(0).reshape({6, -1});
       }},
      {"mean of pairs",
       [](T h) {
         return (h.view({3, 2, -1}) - h.view({3, 2, -1}).mean(1, true)).view({6, -1});
       }},
      {"unbound",
       [](T h) {
         std::vector<at::Tensor> rows = h.unbind(0);
         std::reverse(rows.begin(), rows.end());
         return h + 0.1 * torch::stack(rows);
       }},
      {"by einsum",
       [=](T h) {
         return h + 0.1 * torch::einsum("ij,jk->ik", {matrix, h});
       }},
      {"gathered", [=](T h) { return h.gather(0, spread(h)); }},
      {"gathered beside", [=](T h) { return h + 0.1 * h.gather(0, spread(h)); }},
      {"put", [=](T h) { return torch::zeros_like(h).index_put({order}, h); }},
      {"put beside", [=](T h) { return h + 0.1 * torch::zeros_like(h).index_put({order}, h); }},
      {"added", [=](T h) { return h + 0.1 * torch::zeros_like(h).index_add(0, order, h); }},
      {"scattered", [=](T h) { return h + 0.1 * torch::zeros_like(h).scatter(0, spread(h), h); }},
      {"written in part",
       [](T h) {
         at::Tensor rows = torch::zeros_like(h);
         rows.slice(0, 1).copy_(h.slice(0, 0, 5));
         return h + 0.1 * rows;
       }},
      {"written one by one",
       [](T h) {
         at::Tensor rows = torch::zeros_like(h);
         for (int i = 0; i < 6; ++i) rows.select(0, i).copy_(h.select(0, 5 - i));
         return rows;
       }},
      {"padded",
       [](T h) {
         return h + 0.1 * at::constant_pad_nd(h, {0, 0, 1, 0}).slice(0, 0, 6);
       }},
      {"pooled", [](T h) { return h + torch::avg_pool1d(h.t().unsqueeze(0), 3, 1, 1).squeeze(0).t(); }},
      {"largest so far", [](T h) { return std::get<0>(h.cummax(0)); }},
      {"differences",
       [](T h) {
         return h + 0.1 * torch::cat({h.slice(0, 0, 1), h.diff(1, 0)});
       }},
      {"over their norm", [](T h) { return h / h.norm(2, 0, true); }},
      {"over their variance", [](T h) { return h / (1 + std::get<0>(torch::var_mean(h, 0, true, true))); }},
      {"second smallest", [](T h) { return h - 0.1 * std::get<0>(h.kthvalue(2, 0, true)); }},
      {"sorted", [](T h) { return std::get<0>(h.sort(0)); }},
      {"less the first", [](T h) { return h - 0.5 * h.select(0, 0); }},
      {"distances", [](T h) { return h + torch::cdist(h, h + 1).sum(1, true); }},
      {"attention",
       [](T h) {
         return h + attended(h[0].expand({1, 6, -1}) * 0 + h, h.unsqueeze(0), h.unsqueeze(0)).squeeze(0);
       }},
      {"batch norm", [](T h) { return torch::batch_norm(h, {}, {}, {}, {}, true, 0.1, 1e-5, false); }},
      {"norm of columns", [](T h) { return torch::layer_norm(h.t(), {6}).t(); }},
      {"norm of all", [](T h) { return torch::layer_norm(h, h.sizes()); }},
      {"norm of groups", [](T h) { return torch::group_norm(h.unsqueeze(0), 2).squeeze(0); }},
      {"spectrum", [](T h) { return h + 0.1 * torch::real(torch::fft::fft(h, c10::nullopt, 0)); }},
      {"repeated",
       [](T h) {
         return h + 0.1 * h.repeat({2, 1}).slice(0, 1, 7);
       }},
      {"repeated one by one", [](T h) { return h + 0.1 * h.repeat_interleave(2, 0).slice(0, 0, 6); }},
      {"windows",
       [](T h) {
         return torch::cat({h, h.slice(0, 0, 1)}).unfold(0, 2, 1).cumsum(2).select(2, 1);
       }},
      {"exponential", [](T h) { return torch::matrix_exp(0.01 * h.mm(h.t())).mm(h); }},
      {"bounded columns", [](T h) { return torch::renorm(h.t(), 2, 0, 0.1).t(); }},
      {"moved halves",
       [](T h) {
         return h + h.view({2, 3, -1}).movedim(0, 1).reshape({6, -1});
       }},
      {"rolled flat", [](T h) { return h + 0.1 * h.roll(4); }},
      {"padded and cut",
       [](T h) {
         return h + 0.1 * at::constant_pad_nd(h, {0, 0, 1, -1});
       }},
      {"repeated unevenly",
       [](T h) {
         return h + 0.1 * h.repeat_interleave(torch::tensor({2, 0, 1, 1, 1, 1}), 0);
       }},
      {"put into itself", [order](T h) { return h.clone().index_put_({order}, h, true); }},
      {"added to itself", [order](T h) { return h.clone().index_add_(0, order, h); }},
      {"scattered to itself", [spread](T h) { return h.clone().scatter_add_(0, spread(h), h); }},
      {"filled with itself", [](T h) { return h.masked_scatter(h > 0.1, h); }},
      {"moved over itself",
       [](T h) {
         at::Tensor rows = h.clone();
         rows.slice(0, 1).add_(h.slice(0, 0, 5));
         return rows;
       }},
      {"renormalised in place", [](T h) { return h.clone().t().renorm_(2, 0, 0.1).t(); }},
      {"ordered by the first", [](T h) { return h + 0.1 * h.index({h.select(1, 0).argsort()}); }},
  };
}

TEST(RecordedRows, ThatMeetRowsOfOtherSamplesAreNeverOk) {
  const at::Tensor x = torch::randn({6, 3}, torch::kDouble);
  for (const auto& [what, mixes] : of_other_rows()) {
    const auto net = std::make_shared<Net>([mixes = mixes](Net& net) -> Net::Run {
      nn::Linear a = net.register_module("a", nn::Linear(3, 4)), b = net.register_module("b", nn::Linear(4, 2));
      return [=](Net&, const at::Tensor& x) mutable { return b(mixes(a(x).tanh()).tanh()); };
    });
    net->to(torch::kDouble);
    const auto losses = [&] { return losses_of(net->forward(x)); };
    const auto gradients = recorded(*net, losses);
    EXPECT_NE(to_string(gradients.layers()[0].status), "ok") << what;
    expect_right(gradients, one_by_one(*net, losses()), what);
  }
}

/// What keeps to its row: a (6, 4) tensor of one.
std::vector<std::pair<std::string, std::function<at::Tensor(const at::Tensor&)>>> of_own_rows() {
  using T = const at::Tensor&;
  return {
      {"norm of features", [](T h) { return torch::layer_norm(h, {4}); }},
      {"norm of groups", [](T h) { return torch::group_norm(h, 2); }},
      {"halves",
       [](T h) {
         return torch::cat({h.slice(1, 2), h.slice(1, 0, 2)}, 1);
       }},
      {"over their norm", [](T h) { return h / h.norm(2, 1, true); }},
      {"second smallest", [](T h) { return h - std::get<0>(h.kthvalue(2, 1, true)); }},
      {"sorted", [](T h) { return h + std::get<0>(h.sort(1)); }},
      {"turned", [](T h) { return h + h.flip(1) + h.roll(1, 1); }},
      {"convolved",
       [](T h) {
         return h + torch::conv1d(h.unsqueeze(1), torch::ones({1, 1, 3}, h.options()), {}, 1, 1).squeeze(1);
       }},
      {"pooled", [](T h) { return h + torch::avg_pool1d(h.unsqueeze(1), 3, 1, 1).squeeze(1); }},
      {"distances to points",
       [](T h) {
         return torch::cdist(h, torch::ones({4, 4}, h.options()));
       }},
      {"written by columns",
       [](T h) {
         at::Tensor columns = torch::empty_like(h);
         for (int i = 0; i < 4; ++i) columns.select(1, i).copy_(h.select(1, 3 - i));
         return columns;
       }},
      {"written in part",
       [](T h) {
         at::Tensor columns = torch::zeros_like(h);
         columns.slice(1, 0, 2).copy_(h.slice(1, 2));
         return columns + h;
       }},
      {"tokens less their mean",
       [](T h) {
         return (h.view({6, 2, 2}) - h.view({6, 2, 2}).mean(1, true)).flatten(1);
       }},
      {"determinant",
       [](T h) {
         return h * torch::det(h.view({6, 2, 2})).unsqueeze(1);
       }},
      {"columns added",
       [](T h) {
         return h.index_add(1, torch::tensor({3, 2}), h.slice(1, 0, 2));
       }},
      {"attention of tokens",
       [](T h) {
         const at::Tensor tokens = h.view({6, 2, 2});
         return attended(tokens, tokens, tokens).reshape({6, 4});
       }},
      {"masked", [](T h) { return h.index_put({h > 0}, torch::zeros({}, h.options())); }},
      {"noise", [](T h) { return h * torch::ones_like(h).bernoulli_(0.5); }},
  };
}

TEST(RecordedRows, ThatKeepToThemselvesAreOk) {
  const at::Tensor x = torch::randn({6, 3}, torch::kDouble);
  for (const auto& [what, keeps] : of_own_rows()) {
    const auto net = std::make_shared<Net>([keeps = keeps](Net& net) -> Net::Run {
      nn::Linear a = net.register_module("a", nn::Linear(3, 4)), b = net.register_module("b", nn::Linear(4, 2));
      return [=](Net&, const at::Tensor& x) mutable {
        torch::manual_seed(1);
        return b(keeps(a(x).tanh()).tanh());
      };
    });
    net->to(torch::kDouble);
    const auto losses = [&] { return losses_of(net->forward(x)); };
    const auto gradients = recorded(*net, losses);
    EXPECT_EQ(to_string(gradients.layers()[0].status), "ok") << what << ": " << gradients.layers()[0].detail;
    expect_right(gradients, one_by_one(*net, losses()), what);
  }
}

// ---- networks drawn at random ----

/// Draws networks on (n, n) whose positions, features and samples are as many of each.
class RandomNets {
 public:
  explicit RandomNets(unsigned seed) : draw_(seed) {}

  std::shared_ptr<Net> next(int pieces) {
    text_.clear();
    return std::make_shared<Net>([&](Net& net) -> Net::Run {
      std::vector<std::function<at::Tensor(const at::Tensor&)>> run;
      for (int i = 0; i < pieces; ++i) run.push_back(piece(net, std::to_string(i)));
      return [run](Net&, const at::Tensor& x) {
        at::Tensor h = x;
        for (const auto& each : run) h = each(h);
        return h;
      };
    });
  }
  const std::string& text() const { return text_; }

 private:
  using Piece = std::function<at::Tensor(const at::Tensor&)>;

  unsigned below(unsigned count) { return draw_() % count; }

  /// (n, n) that all samples share.
  Piece table(Net& net, const std::string& name) {
    const at::Tensor outside = torch::randn({n, n}, torch::kDouble);
    switch (below(6)) {
      case 0:
        return [](const at::Tensor& x) { return torch::eye(n, x.options()) * 2; };
      case 1:
        return [](const at::Tensor& x) { return torch::linspace(0, 3, n * n, x.options()).view({n, n}).sin(); };
      case 2:
        return [](const at::Tensor& x) {
          return torch::arange(n, x.options()).unsqueeze(1).mul(0.7).add(torch::arange(n, x.options())).cos();
        };
      case 3:
        net.register_buffer("table" + name, outside);
        return [outside](const at::Tensor&) { return outside.tanh(); };
      case 4:
        net.register_parameter("table" + name, outside);
        return [&net, name](const at::Tensor&) { return net.named_parameters()["table" + name]; };
      default:
        return [outside](const at::Tensor&) { return outside; };
    }
  }

  Piece piece(Net& net, const std::string& name) {
    const unsigned kind = below(26);
    text_ += std::to_string(kind) + " ";
    nn::Linear l = net.register_module("l" + name, nn::Linear(n, n));
    const Piece t = table(net, name);
    switch (kind) {
      case 0:
        return [=](const at::Tensor& h) mutable { return h * l(t(h)).t(); };
      case 1:
        return [=](const at::Tensor& h) mutable { return h.mm(l(t(h))); };
      case 2:
        return [=](const at::Tensor& h) mutable { return h + l(t(h)); };
      case 3:
        return [=](const at::Tensor& h) mutable { return (h.unsqueeze(2) + l(t(h)).unsqueeze(0)).tanh().sum(1); };
      case 4:
        return [=](const at::Tensor& h) mutable { return l(h.t()).t().tanh(); };
      case 5:
        return [=](const at::Tensor& h) mutable { return l(h.flip(0)).flip(0); };
      case 6:
        return [=](const at::Tensor& h) mutable {
          return l(h.index_select(0, torch::tensor({2, 0, 3, 1}))).index_select(0, torch::tensor({1, 3, 0, 2}));
        };
      case 7: {
        nn::Conv1d conv = net.register_module("conv" + name, nn::Conv1d(nn::Conv1dOptions(n, n, 3).padding(1)));
        return [=](const at::Tensor& h) mutable { return conv(h.unsqueeze(2)).squeeze(2) + l(h); };
      }
      case 8: {
        nn::Embedding table = net.register_module("ids" + name, nn::Embedding(2 * n, n));
        return [=](const at::Tensor& h) mutable {
          return l(h) * table(torch::arange(n).mul(2).remainder(5)).sum(1).unsqueeze(0);
        };
      }
      case 9: {
        nn::GRU gru = net.register_module("gru" + name, nn::GRU(nn::GRUOptions(1, n).batch_first(true)));
        return [=](const at::Tensor& h) mutable { return std::get<0>(gru(h.unsqueeze(2))).select(1, n - 1) + l(h); };
      }
      case 10: {
        nn::EmbeddingBag bag = net.register_module("bag" + name, nn::EmbeddingBag(2 * n, n));
        return [=](const at::Tensor& h) mutable {
          return l(h) + bag(h.detach().abs().mul(10).to(torch::kLong).remainder(2 * n));
        };
      }
      case 11: {
        nn::LayerNorm norm = net.register_module("norm" + name, nn::LayerNorm(nn::LayerNormOptions({n})));
        return [=](const at::Tensor& h) mutable { return norm(l(h)).tanh() + h; };
      }
      case 12:
        return [=](const at::Tensor& h) mutable { return h - l(h).mean(0); };
      case 13:
        return [=](const at::Tensor& h) mutable { return l(h).softmax(0); };
      case 14:
        return [=](const at::Tensor& h) mutable { return l(std::get<0>(h.sort(0))).tanh() + h; };
      case 15: {
        const at::Tensor neighbours = torch::rand({n, n}, torch::kDouble);
        return [=](const at::Tensor& h) mutable { return neighbours.mm(l(h)).tanh(); };
      }
      case 16:
        return [=](const at::Tensor& h) mutable { return l(h).mm(h.t()).softmax(1).mm(h); };
      case 17:
        return [=](const at::Tensor& h) mutable { return torch::stack({l(h), h}, 1).tanh().sum(1); };
      case 18:
        return [=](const at::Tensor& h) mutable { return torch::cat({l(h), h.tanh()}, 0).narrow(0, 2, n); };
      case 19:
        return [=](const at::Tensor& h) mutable { return l(h.reshape({-1}).view({n, n}).t().contiguous()).t(); };
      case 20:
        return [=](const at::Tensor& h) mutable { return l(h.cumsum(0)) + h; };
      case 21:
        return [=](const at::Tensor& h) mutable { return torch::einsum("ij,kj->ki", {l(h), t(h)}).tanh(); };
      case 22:
      case 23: {
        nn::GRU gru = net.register_module("gru" + name, nn::GRU(1, n));
        const bool forgotten = kind == 23;  // that a sequence comes first
        return [=](const at::Tensor& h) mutable {
          return std::get<0>(gru((forgotten ? h : h.t()).unsqueeze(2))).select(0, n - 1) + l(h);
        };
      }
      default:
        return [=](const at::Tensor& h) mutable { return l(h).tanh(); };
    }
  }

  std::mt19937 draw_;
  std::string text_;
};

TEST(RecordedRows, OfRandomNetworksAreRightOrRefused) {
  RandomNets nets(static_cast<unsigned>(test::seed(11)));
  torch::manual_seed(test::seed(11));
  int known = 0, layers = 0;
  for (int i = 0; i < 150; ++i) {
    const auto net = nets.next(1 + i % 4);
    net->to(torch::kDouble);
    const at::Tensor x = torch::randn({n, n}, torch::kDouble);
    const auto losses = [&] { return losses_of(net->forward(x)); };
    const auto gradients = recorded(*net, losses);
    const auto reference = one_by_one(*net, losses());
    known += expect_right(gradients, reference, "pieces " + nets.text());
    layers += static_cast<int>(gradients.layers().size());
  }
  EXPECT_GT(8 * known, layers) << "a refusal is always right, and helps nobody";
}

}  // namespace
}  // namespace dds
