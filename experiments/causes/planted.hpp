// Perceptrons with causes planted in them, and what their readings should name.
#pragma once

#include <torch/torch.h>

#include <cstdint>
#include <dds/dds.hpp>
#include <string>
#include <vector>

namespace dds::experiments {

/// What came of one planted network.
struct Verdict {
  std::string plants;  ///< for the table: "relu_off fc0[1,3] + duplicate fc1[2,7]"
  std::int64_t planted = 0, named = 0;
  std::int64_t wrong = 0;  ///< causes that are named and were not planted, nor follow from what was
  std::string causes;      ///< of all readings, as they were named
};

/// Plants `kinds` causes, of one to four units each, at places that `generator` draws, and reads the network.
Verdict plant_and_read(std::int64_t kinds, std::int64_t number, at::Generator generator);

}  // namespace dds::experiments
