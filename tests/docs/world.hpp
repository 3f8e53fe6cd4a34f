// What the snippets of the pages see.
#pragma once

#include <torch/torch.h>

#include <dds/dds.hpp>
#include <iostream>
#include <string>
#include <vector>

namespace snippets {

struct NetImpl : torch::nn::Module {
  torch::Tensor forward(const torch::Tensor& x) { return fc2->forward(torch::tanh(fc1->forward(x))); }
  torch::nn::Linear fc1 = register_module("fc1", torch::nn::Linear(3, 2));
  torch::nn::Linear fc2 = register_module("fc2", torch::nn::Linear(2, 2));
};
TORCH_MODULE(Net);

struct World {
  Net model;
  torch::optim::SGD optimizer{model->parameters(), 0.1};
  std::vector<torch::data::Example<>> batches;
  std::vector<torch::data::Example<>>* loader = &batches;
  dds::Data probe{torch::randn({64, 3}), torch::randint(0, 2, {64}, torch::kLong)};
  dds::Monitor monitor{*model, dds::MonitorOptions(), std::make_shared<dds::log::Memory>()};
};

struct Snippet {
  std::string place;  ///< "README.md:22"
  void (*run)(World& world);
};

const std::vector<Snippet>& all();

}  // namespace snippets

// Gives the members of `world` their names.
#define DDS_WORLD(world) [[maybe_unused]] auto& [model, optimizer, batches, loader, probe, monitor] = world;
