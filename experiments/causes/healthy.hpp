// Fresh networks as people write them, before any training, and what their architecture leaves out.
#pragma once

#include <torch/torch.h>

#include <cstdint>
#include <dds/dds.hpp>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

namespace dds::experiments {

struct Healthy {
  std::string name;
  std::shared_ptr<torch::nn::Module> model;
  Forward forward;
  at::Tensor probe;
  /// By hand: dimensions of `width` that the architecture leaves out, by layer and side.
  std::map<std::pair<std::string, Side>, std::int64_t> left_out;
};

/// Twelve of them. Draws from the default generator.
std::vector<Healthy> healthy_networks();

}  // namespace dds::experiments
