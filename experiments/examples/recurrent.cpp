// A recurrent language model, trained by truncated backpropagation through time, with a monitor on it:
//   recurrent WEIGHTS LOG [EVERY]
// The log goes into the folder LOG; every third step is read, or each whose number is a multiple of EVERY (0: none).
#include <torch/torch.h>

#include <cmath>
#include <cstdint>
#include <dds/dds.hpp>
#include <iostream>
#include <optional>
#include <string>
#include <tuple>

namespace nn = torch::nn;
using torch::Tensor;
using torch::indexing::Slice;

class RNNLMImpl : public nn::Module {
 public:
  RNNLMImpl(int64_t vocab_size, int64_t embed_size, int64_t hidden_size, int64_t num_layers)
      : embed(vocab_size, embed_size),
        lstm(nn::LSTMOptions(embed_size, hidden_size).num_layers(num_layers).batch_first(true)),
        linear(hidden_size, vocab_size) {
    register_module("embed", embed);
    register_module("lstm", lstm);
    register_module("linear", linear);
  }

  std::tuple<Tensor, std::tuple<Tensor, Tensor>> forward(Tensor x, std::tuple<Tensor, Tensor> hx) {
    x = embed->forward(x);
    Tensor output;
    std::tie(output, hx) = lstm->forward(x, hx);
    output = output.reshape({-1, output.size(2)});
    return std::make_tuple(linear->forward(output), hx);
  }

 private:
  nn::Embedding embed;
  nn::LSTM lstm;
  nn::Linear linear;
};
TORCH_MODULE(RNNLM);

int main(int argc, char** argv) {
  if (argc < 3) {
    std::cerr << "Usage: recurrent WEIGHTS LOG [EVERY]\n";
    return 2;
  }
  const int64_t embed_size = 6, hidden_size = 10, num_layers = 2, batch_size = 4, sequence_length = 5, vocab = 13;
  torch::manual_seed(3);
  const Tensor ids = torch::randint(0, vocab, {batch_size, 31}, torch::kLong);

  RNNLM model(vocab, embed_size, hidden_size, num_layers);
  torch::optim::Adam optimizer(model->parameters(), torch::optim::AdamOptions(2e-3));
  const std::int64_t every = argc > 3 ? std::stoll(argv[3]) : 3;
  dds::Monitor monitor(*model, dds::MonitorOptions().every(every > 0 ? std::optional(every) : std::nullopt),
                       dds::log::directory(argv[2]));

  for (int epoch = 0; epoch != 2; ++epoch) {
    Tensor h = torch::zeros({num_layers, batch_size, hidden_size});
    Tensor c = torch::zeros({num_layers, batch_size, hidden_size});
    double total = 0;
    for (int64_t i = 0; i + sequence_length < ids.size(1); i += sequence_length) {
      auto step = monitor.step();
      const Tensor inputs = ids.index({Slice(), Slice(i, i + sequence_length)});
      const Tensor targets = ids.index({Slice(), Slice(i + 1, i + 1 + sequence_length)}).reshape(-1);
      Tensor output;
      std::tuple<Tensor, Tensor> hidden;
      std::tie(output, hidden) = model->forward(inputs, std::make_tuple(h.detach(), c.detach()));
      std::tie(h, c) = hidden;
      Tensor loss = nn::functional::cross_entropy(output, targets);
      model->zero_grad();
      loss.backward();
      nn::utils::clip_grad_norm_(model->parameters(), 0.5);
      optimizer.step();
      total += loss.item<double>();
    }
    std::cout << "Epoch " << epoch << " perplexity " << std::exp(total / 6) << '\n';
  }
  torch::save(model, argv[1]);
  return 0;
}
