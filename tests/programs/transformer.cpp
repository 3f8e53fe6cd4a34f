// A small GPT.
#include <torch/torch.h>

#include <cmath>
#include <iostream>
#include <limits>
#include <string>

#ifdef DDS_ATTACHED
#include <dds/dds.hpp>
#endif

struct Config {
  int64_t vocab = 11, block = 8, layers = 2, heads = 2, dim = 8;
};

struct CausalSelfAttention : torch::nn::Module {
  int64_t heads;
  torch::nn::Linear c_attn{nullptr}, c_proj{nullptr};
  torch::Tensor bias;

  explicit CausalSelfAttention(const Config& c) : heads(c.heads) {
    c_attn = register_module("c_attn", torch::nn::Linear(c.dim, 3 * c.dim));
    c_proj = register_module("c_proj", torch::nn::Linear(c.dim, c.dim));
    bias = register_buffer("bias", torch::tril(torch::ones({1, 1, c.block, c.block})));
  }

  torch::Tensor forward(torch::Tensor x) {
    const auto B = x.size(0), T = x.size(1), C = x.size(2);
    auto qkv = c_attn(x).split(C, 2);
    auto view = [&](torch::Tensor t) { return t.view({B, T, heads, C / heads}).transpose(1, 2); };
    auto q = view(qkv[0]), k = view(qkv[1]), v = view(qkv[2]);
    auto att = q.matmul(k.transpose(-2, -1)) * (1.0 / std::sqrt(k.size(-1)));
    att = att.masked_fill(bias.narrow(2, 0, T).narrow(3, 0, T) == 0, -std::numeric_limits<float>::infinity());
    auto y = torch::softmax(att, -1).matmul(v).transpose(1, 2).contiguous().view({B, T, C});
    return c_proj(y);
  }
};

struct Block : torch::nn::Module {
  torch::nn::LayerNorm ln_1{nullptr}, ln_2{nullptr};
  std::shared_ptr<CausalSelfAttention> attn;
  torch::nn::Sequential mlp{nullptr};

  explicit Block(const Config& c) {
    ln_1 = register_module("ln_1", torch::nn::LayerNorm(torch::nn::LayerNormOptions({c.dim})));
    attn = register_module("attn", std::make_shared<CausalSelfAttention>(c));
    ln_2 = register_module("ln_2", torch::nn::LayerNorm(torch::nn::LayerNormOptions({c.dim})));
    mlp = register_module("mlp", torch::nn::Sequential(torch::nn::Linear(c.dim, 4 * c.dim), torch::nn::GELU(),
                                                       torch::nn::Linear(4 * c.dim, c.dim), torch::nn::Dropout(0.1)));
  }

  torch::Tensor forward(torch::Tensor x) {
    x = x + attn->forward(ln_1(x));
    return x + mlp->forward(ln_2(x));
  }
};

struct GPT : torch::nn::Module {
  Config config;
  torch::nn::Embedding wte{nullptr};
  torch::Tensor wpe;
  torch::nn::ModuleList h;
  torch::nn::LayerNorm ln_f{nullptr};
  torch::nn::Linear lm_head{nullptr};

  explicit GPT(const Config& c) : config(c) {
    wte = register_module("wte", torch::nn::Embedding(c.vocab, c.dim));
    wpe = register_parameter("wpe", torch::randn({1, c.block, c.dim}) * 0.02);
    h = register_module("h", torch::nn::ModuleList());
    for (int64_t i = 0; i < c.layers; ++i) h->push_back(std::make_shared<Block>(c));
    ln_f = register_module("ln_f", torch::nn::LayerNorm(torch::nn::LayerNormOptions({c.dim})));
    lm_head = register_module("lm_head", torch::nn::Linear(torch::nn::LinearOptions(c.dim, c.vocab).bias(false)));
    lm_head->weight = wte->weight;  // weight tying
  }

  torch::Tensor forward(torch::Tensor idx) {
    auto x = wte(idx) + wpe.narrow(1, 0, idx.size(1));
    for (const auto& block : *h) x = block->as<Block>()->forward(x);
    return lm_head(ln_f(x));
  }
};

int main(int, char** argv) {
  torch::manual_seed(4);
  auto model = std::make_shared<GPT>(Config());
  torch::optim::AdamW optimizer(model->parameters(), torch::optim::AdamWOptions(3e-3).weight_decay(0.1));
#ifdef DDS_ATTACHED
  dds::Monitor monitor(*model, dds::MonitorOptions().every(3), dds::log::directory(argv[2]));
#endif
  const auto text = torch::randint(0, model->config.vocab, {200}, torch::kLong);
  for (int iter = 0; iter < 6; iter++) {
    const auto at = torch::randint(0, 200 - model->config.block - 1, {5}, torch::kLong);
    std::vector<torch::Tensor> xs, ys;
    for (int64_t i = 0; i < 5; i++) {
      const auto start = at[i].item<int64_t>();
      xs.push_back(text.narrow(0, start, model->config.block));
      ys.push_back(text.narrow(0, start + 1, model->config.block));
    }
#ifdef DDS_ATTACHED
    auto step = monitor.step();
#endif
    auto logits = model->forward(torch::stack(xs));
    auto loss = torch::nn::functional::cross_entropy(logits.view({-1, logits.size(-1)}), torch::stack(ys).view(-1));
    optimizer.zero_grad();
    loss.backward();
    torch::nn::utils::clip_grad_norm_(model->parameters(), 1.0);
    optimizer.step();
    std::cout << "iter " << iter << " loss " << loss.item<float>() << std::endl;
  }
  torch::save(model->parameters(), argv[1]);
  return 0;
}
