#include "experiments/harness/gloo.hpp"

// The wheels export Gloo's symbols, and leave out the headers that this one includes: Debian's libgloo-dev has them.
// Nothing in here depends on how Gloo's own classes are laid out.
#include <fmt/format.h>

#include <dds/error.hpp>
#include <torch/csrc/distributed/c10d/FileStore.hpp>
#include <torch/csrc/distributed/c10d/PrefixStore.hpp>
#include <torch/csrc/distributed/c10d/ProcessGroupGloo.hpp>
#include <torch/csrc/distributed/c10d/TCPStore.hpp>
#include <vector>

namespace dds::experiments {
namespace {

c10::intrusive_ptr<c10d::Store> store_of(const Rendezvous& rendezvous) {
  const std::string& name = rendezvous.store;
  if (name.starts_with("file:")) return c10::make_intrusive<c10d::FileStore>(name.substr(5), rendezvous.size);
  const std::size_t colon = name.rfind(':');
  if (!name.starts_with("tcp:") || colon < 5) {
    throw InvalidArgument(fmt::format("join: the store is '{}', expected file:PATH or tcp:HOST:PORT", name));
  }
  c10d::TCPStoreOptions options;
  options.port = static_cast<std::uint16_t>(std::stoi(name.substr(colon + 1)));
  options.isServer = rendezvous.rank == 0;
  options.timeout = rendezvous.timeout;
  return c10::make_intrusive<c10d::TCPStore>(name.substr(4, colon - 4), options);
}

Group group_over(const c10::intrusive_ptr<c10d::Store>& store, const std::string& prefix,
                 const Rendezvous& rendezvous) {
  const auto options = c10d::ProcessGroupGloo::Options::create(rendezvous.timeout);
  options->devices.push_back(c10d::ProcessGroupGloo::createDeviceForHostname(rendezvous.address));
  const auto gloo = c10::make_intrusive<c10d::ProcessGroupGloo>(c10::make_intrusive<c10d::PrefixStore>(prefix, store),
                                                                rendezvous.rank, rendezvous.size, options);
  return {ranks_of(gloo), [gloo](const torch::Tensor& tensor) {
            std::vector<at::Tensor> tensors{tensor};
            gloo->allreduce(tensors)->wait();
          }};
}

}  // namespace

Groups join(const Rendezvous& rendezvous) {
  const auto store = store_of(rendezvous);
  return {group_over(store, "training", rendezvous), group_over(store, "readings", rendezvous)};
}

}  // namespace dds::experiments
