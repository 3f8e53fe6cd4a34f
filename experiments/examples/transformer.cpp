// A transformer on the characters of a real text, in torch::nn's own layers, with a monitor on its blocks:
//   transformer [TEXT] [STEPS]
// TEXT is by default a licence that every Debian has. Ends with a line in the model's own words, such as they are.
#include <torch/torch.h>

#include <cstdlib>
#include <dds/dds.hpp>
#include <fstream>
#include <iostream>
#include <iterator>
#include <set>
#include <string>

namespace nn = torch::nn;

constexpr std::int64_t kContext = 32, kWidth = 32, kHeads = 4, kBatch = 16;

struct LanguageModel : nn::Module {
  explicit LanguageModel(std::int64_t characters)
      : embedding(register_module("embedding", nn::Embedding(characters, kWidth))),
        blocks(register_module(
            "blocks", nn::TransformerEncoder(nn::TransformerEncoderOptions(
                          nn::TransformerEncoderLayerOptions(kWidth, kHeads).dim_feedforward(2 * kWidth).dropout(0),
                          /*num_layers=*/2)))),
        head(register_module("head", nn::Linear(kWidth, characters))),
        positions(register_parameter("positions", 0.1 * torch::randn({kContext, 1, kWidth}))) {}

  /// Ids (batch x time) to logits (batch x time x characters).
  torch::Tensor forward(const torch::Tensor& ids) {
    const std::int64_t time = ids.size(1);
    const torch::Tensor future = torch::full({time, time}, -1e9).triu(1);
    const torch::Tensor x = embedding(ids.t()) + positions.narrow(0, 0, time);
    return head(blocks->forward(x, future)).transpose(0, 1);
  }

  nn::Embedding embedding;
  nn::TransformerEncoder blocks;
  nn::Linear head;
  torch::Tensor positions;
};

int main(int argc, char** argv) {
  const std::string path = argc > 1 ? argv[1] : "/usr/share/common-licenses/GPL-3";
  const int steps = argc > 2 ? std::atoi(argv[2]) : 120;
  std::ifstream file(path);
  const std::string text((std::istreambuf_iterator<char>(file)), {});
  if (text.size() <= kContext) {
    std::cerr << path << ": expected a text of more than " << kContext << " characters\n";
    return 1;
  }
  const std::set<char> set(text.begin(), text.end());
  const std::string alphabet(set.begin(), set.end());
  std::vector<std::int64_t> codes;
  for (const char c : text) codes.push_back(static_cast<std::int64_t>(alphabet.find(c)));
  const torch::Tensor ids = torch::tensor(codes);

  torch::manual_seed(0);
  auto model = std::make_shared<LanguageModel>(static_cast<std::int64_t>(alphabet.size()));
  torch::optim::AdamW optimizer(model->parameters(), torch::optim::AdamWOptions(3e-3));
  const auto print = dds::log::callback([](const dds::Signature& s) {
    std::cout << "  " << s.layer << ' ' << to_string(s.side);
    if (s.has_numbers()) {
      std::cout << "  rank " << *s.rank << " of " << *s.width << "  effective rank " << s.effective_rank.value_or(0);
    }
    std::cout << "  " << to_string(s.status) << '\n';
  });
  dds::Monitor monitor(
      *model,
      dds::MonitorOptions().every(60).signatures(dds::SignatureOptions().layers({"embedding", "blocks.*", "head"})),
      print);

  for (int i = 0; i < steps; ++i) {
    const torch::Tensor starts =
        torch::randint(static_cast<std::int64_t>(text.size()) - kContext, {kBatch, 1}, torch::kLong);
    const torch::Tensor batch = ids.index({starts + torch::arange(kContext + 1).unsqueeze(0)});
    auto step = monitor.step();
    optimizer.zero_grad();
    const torch::Tensor logits = model->forward(batch.narrow(1, 0, kContext));
    const torch::Tensor loss =
        nn::functional::cross_entropy(logits.flatten(0, 1), batch.narrow(1, 1, kContext).flatten());
    loss.backward();
    optimizer.step();
    if (i % 60 == 0) std::cout << "step " << i << ", loss " << loss.item<double>() << '\n';
  }

  const torch::NoGradGuard no_grad;
  model->eval();
  torch::Tensor line = ids.narrow(0, 0, 1).unsqueeze(0);
  while (line.size(1) < 2 * kContext) {
    const torch::Tensor seen = line.narrow(1, std::max<std::int64_t>(0, line.size(1) - kContext),
                                           std::min<std::int64_t>(kContext, line.size(1)));
    line = torch::cat({line, torch::multinomial(model->forward(seen)[0][-1].softmax(0), 1).unsqueeze(0)}, 1);
  }
  for (std::int64_t i = 0; i < line.size(1); ++i) std::cout << alphabet[line[0][i].item<std::int64_t>()];
  std::cout << '\n';
  return std::cout.flush() ? 0 : 1;  // a full disk
}
