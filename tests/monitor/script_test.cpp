// TorchScript archives are read as the modules that they were made of.
#include <gtest/gtest.h>
#include <torch/script.h>
#include <torch/torch.h>

#include <cstdio>
#include <dds/error.hpp>
#include <dds/llc.hpp>
#include <dds/read.hpp>
#include <dds/script.hpp>
#include <filesystem>

#include "tests/support.hpp"

namespace dds {
namespace {

using test::message_of;

/// One layer as C++ has it, the class that Python's torch.jit.script leaves in an archive, and what its forward is.
struct LayerKind {
  const char* name;
  torch::nn::AnyModule (*make)();
  const char* python_class;
  const char* code;
  at::Tensor (*input)();
};

const std::vector<LayerKind>& layer_kinds() {
  static const std::vector<LayerKind> kinds = {
      {"Linear", [] { return torch::nn::AnyModule(torch::nn::Linear(4, 3)); }, "linear.Linear",
       "return torch.linear(x, self.weight, self.bias)",
       [] {
         return torch::randn({12, 4});
       }},
      {"OutProjection", [] { return torch::nn::AnyModule(torch::nn::Linear(4, 3)); },
       "linear.NonDynamicallyQuantizableLinear", "return torch.linear(x, self.weight, self.bias)",
       [] {
         return torch::randn({12, 4});
       }},
      {"Conv2d", [] { return torch::nn::AnyModule(torch::nn::Conv2d(2, 3, 3)); }, "conv.Conv2d",
       "return torch.conv2d(x, self.weight, self.bias)",
       [] {
         return torch::randn({6, 2, 5, 5});
       }},
      // as a model that was traced has it
      {"TracedConv2d", [] { return torch::nn::AnyModule(torch::nn::Conv2d(2, 3, 3)); }, "conv.___torch_mangle_0.Conv2d",
       "return torch._convolution(x, self.weight, self.bias, [1, 1], [0, 0], [1, 1], False, [0, 0], 1, False, False, "
       "True, "
       "True)",
       [] {
         return torch::randn({6, 2, 5, 5});
       }},
      {"LayerNorm", [] { return torch::nn::AnyModule(torch::nn::LayerNorm(std::vector<std::int64_t>{4})); },
       "normalization.LayerNorm", "return torch.layer_norm(x, [4], self.weight, self.bias)",
       [] {
         return torch::randn({12, 4});
       }},
      {"BatchNorm1d", [] { return torch::nn::AnyModule(torch::nn::BatchNorm1d(4)); }, "batchnorm.BatchNorm1d",
       "return torch.batch_norm(x, self.weight, self.bias, self.running_mean, self.running_var, self.training, 0.1, "
       "1e-5, "
       "False)",
       [] {
         return torch::randn({12, 4});
       }},
      {"Embedding", [] { return torch::nn::AnyModule(torch::nn::Embedding(7, 3)); }, "sparse.Embedding",
       "return torch.embedding(self.weight, x)",
       [] {
         return torch::randint(0, 7, {12, 2}, torch::kLong);
       }},
  };
  return kinds;
}

/// A module of the archive with the tensors of `module` themselves.
torch::jit::Module scripted(const torch::nn::Module& module, const std::string& python_class, const std::string& code) {
  torch::jit::Module script("__torch__.torch.nn.modules." + python_class,
                            std::make_shared<torch::jit::CompilationUnit>());
  for (const auto& parameter : module.named_parameters(false))
    script.register_parameter(parameter.key(), parameter.value(), false);
  for (const auto& buffer : module.named_buffers(false)) script.register_buffer(buffer.key(), buffer.value());
  script.register_attribute("training", torch::jit::BoolType::get(), module.is_training());
  script.define("def forward(self, x):\n    " + code + "\n");
  return script;
}

class ScriptTest : public testing::TestWithParam<LayerKind> {};

TEST_P(ScriptTest, SignaturesAreThoseOfTheModule) {
  torch::manual_seed(1);
  torch::nn::AnyModule layer = GetParam().make();
  const at::Tensor x = GetParam().input();
  const Forward forward = [&](torch::nn::Module&, const std::vector<at::Tensor>& inputs) {
    return layer.forward(inputs[0]);
  };
  const ScriptModel model = script_model(scripted(*layer.ptr(), GetParam().python_class, GetParam().code));
  const auto expected =
      read({*layer.ptr(), gaussian(), Data(x), forward}, ReadOptions().signatures(SignatureOptions().spectra(true)));
  const auto found = read({*model.module, gaussian(), Data(x), model.forward},
                          ReadOptions().signatures(SignatureOptions().spectra(true)));
  ASSERT_EQ(found.size(), expected.size());
  for (std::size_t i = 0; i < expected.size(); ++i) {
    EXPECT_EQ(found[i].layer, expected[i].layer);
    EXPECT_EQ(found[i].kind, expected[i].kind);
    EXPECT_EQ(found[i].status, expected[i].status) << to_string(found[i].status);
    EXPECT_EQ(found[i].dtype, expected[i].dtype);
    EXPECT_EQ(found[i].spectrum, expected[i].spectrum);
    EXPECT_EQ(found[i].structural_bound, expected[i].structural_bound);
    EXPECT_EQ(found[i].floor, expected[i].floor);
  }
}

INSTANTIATE_TEST_SUITE_P(Kinds, ScriptTest, testing::ValuesIn(layer_kinds()),
                         [](const auto& info) { return std::string(info.param.name); });

/// Two raw weights whose products are added: while the second runs, the first's result waits on the interpreter's
/// stack.
torch::jit::Module sum_of_products(const std::string& result = "torch.matmul(x, self.a) + torch.matmul(x, self.b)") {
  torch::manual_seed(2);
  torch::jit::Module script("Sum");
  script.register_parameter("a", torch::randn({4, 3}, torch::requires_grad()), false);
  script.register_parameter("b", torch::randn({4, 3}, torch::requires_grad()), false);
  script.register_attribute("training", torch::jit::BoolType::get(), true);
  script.define("def forward(self, x):\n    return " + result + "\n");
  return script;
}

TEST(Script, OperandsThatWaitOnTheInterpretersStackAreNotTakenForArguments) {
  const torch::jit::Module script = sum_of_products();
  const ScriptModel model = script_model(script);
  const at::Tensor x = torch::randn({10, 4});
  const auto found = read({*model.module, gaussian(), Data(x), model.forward},
                          ReadOptions().signatures(SignatureOptions().spectra(true).sides({Side::Activation})));
  ASSERT_EQ(found.size(), 2u);
  for (const Signature& s : found) {
    const at::Tensor rows = torch::matmul(x.to(torch::kDouble), script.attr(s.layer).toTensor().to(torch::kDouble));
    const at::Tensor sigma = std::get<1>(torch::linalg_svd(rows, false));
    for (std::int64_t i = 0; i < 3; ++i)
      EXPECT_NEAR(s.spectrum[static_cast<std::size_t>(i)], sigma[i].item<double>(), 1e-12) << s.layer;
  }
}

TEST(Script, AClassOfTheUsersOwnWithASingleWeightIsALayer) {
  torch::manual_seed(2);
  torch::jit::Module own("__torch__.own.Conv1D");
  own.register_parameter("weight", torch::randn({4, 3}, torch::requires_grad()), false);
  own.register_parameter("bias", torch::randn({3}, torch::requires_grad()), false);
  own.register_attribute("training", torch::jit::BoolType::get(), true);
  own.define("def forward(self, x):\n    return torch.addmm(self.bias, x, self.weight)\n");
  torch::jit::Module net("__torch__.own.Net");
  net.register_module("c_fc", own);
  net.register_attribute("training", torch::jit::BoolType::get(), true);
  net.define("def forward(self, x):\n    return self.c_fc.forward(x)\n");
  const ScriptModel model = script_model(net);
  const at::Tensor x = torch::randn({10, 4});
  const auto found = read({*model.module, gaussian(), Data(x), model.forward},
                          ReadOptions().signatures(SignatureOptions().sides({Side::Activation})));
  ASSERT_EQ(found.size(), 1u);
  EXPECT_EQ(found[0].layer, "c_fc");
  EXPECT_EQ(found[0].kind, "Conv1D");
  const at::Tensor rows = model.forward(*model.module, {x}).to(torch::kDouble);
  EXPECT_NEAR(*found[0].sigma_max, torch::linalg_svdvals(rows)[0].item<double>(), 1e-5);
}

TEST(Script, ALeftModelIsAsItWas) {
  const torch::jit::Module script = sum_of_products();
  const ScriptModel model = script_model(script);
  const at::Tensor before = script.attr("a").toTensor().clone();
  EXPECT_TRUE(model.module->is_training());
  read({*model.module, gaussian(), Data(torch::randn({10, 4})), model.forward});
  EXPECT_TRUE(script.attr("training").toBool());
  EXPECT_TRUE(torch::equal(script.attr("a").toTensor(), before));
  model.module->eval();
  EXPECT_FALSE(script.attr("training").toBool());
}

TEST(Script, AnLlcIsThatOfTheWeights) {
  const ScriptModel model = script_model(sum_of_products());
  const auto options = LlcOptions().gamma(1).draws(40).chains(2).seed(4);
  const auto found = estimate_llc(
      {*model.module, gaussian(), Data(torch::randn({30, 4}), torch::randn({30, 3})), model.forward}, options);
  EXPECT_TRUE(found.lambda.has_value());
  EXPECT_EQ(found.settings.parameters, 24);
}

TEST(Script, SaysWhatIsWrong) {
  const at::Tensor x = torch::randn({10, 4});
  const ScriptModel pair = script_model(sum_of_products("(torch.matmul(x, self.a), torch.matmul(x, self.b))"));
  EXPECT_NE(message_of([&] {
              read({*pair.module, gaussian(), Data(x), pair.forward});
            }).find("Tuple, expected one tensor"),
            std::string::npos);
  const ScriptModel model = script_model(sum_of_products());
  EXPECT_THROW(model.forward(*model.module, {torch::randn({10, 5})}), c10::Error);
  EXPECT_THROW(model.forward(*model.module, {x, x}), c10::Error);
  torch::jit::Module empty("Empty");
  empty.define("def forward(self, x):\n    return x\n");
  EXPECT_NE(message_of([&] { script_model(empty); }).find("the number of parameters is 0"), std::string::npos);
  EXPECT_NE(message_of([] { load_script("no/such/archive.pt"); }).find("no/such/archive.pt: there is no such file"),
            std::string::npos);
}

TEST(Script, AnArchiveOnDiskIsReadBack) {
  const auto path = std::filesystem::temp_directory_path() / ("dds-script-" + std::to_string(::getpid()) + ".pt");
  const torch::jit::Module script = sum_of_products();
  script.save(path.string());
  const ScriptModel model = load_script(path);
  std::filesystem::remove(path);
  const at::Tensor x = torch::randn({10, 4});
  EXPECT_TRUE(torch::equal(model.forward(*model.module, {x}), script_model(script).forward(*model.module, {x})));
}

}  // namespace
}  // namespace dds
