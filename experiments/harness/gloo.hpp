// Process groups of c10d over Gloo, on both ends of LibTorch: what experiments and tests of several processes train and
// read through. The library itself takes any group.
#pragma once

#include <torch/torch.h>

#include <chrono>
#include <dds/ranks.hpp>
#include <functional>
#include <string>

namespace dds::experiments {

struct Rendezvous {
  std::string store;    ///< "file:PATH" of a file that is not there yet, or "tcp:HOST:PORT", where rank 0 listens
  std::string address;  ///< of this rank, by which the others reach it
  int rank = 0;
  int size = 1;
  std::chrono::milliseconds timeout{30000};
};

struct Group {
  RanksPtr ranks;
  std::function<void(const torch::Tensor&)> all_reduce;  ///< in place: the sum over all ranks
};

/// Two groups of the same ranks, one for the training and one for the readings. Throws dds::InvalidArgument for a store
/// of another form, and what c10d throws.
struct Groups {
  Group training, readings;
};
Groups join(const Rendezvous& rendezvous);

}  // namespace dds::experiments
