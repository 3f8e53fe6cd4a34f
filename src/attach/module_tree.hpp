// Full names of parameters, from the modules that the program has.
#pragma once

#include <ATen/core/Tensor.h>

#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "hooks/layers.hpp"

namespace dds::attach {

/// A module that is nobody's child, with all below it.
struct Network {
  std::string language;  ///< that it is written in
  std::string type;      ///< its class: "Net"
  std::vector<hooks::FoundParameter> parameters;
  std::vector<std::pair<std::string, at::Tensor>> buffers;  ///< by their full names
};

/// Where a program keeps its modules.
class ModuleTree {
 public:
  virtual ~ModuleTree() = default;
  /// False if network_of() would find nothing, as far as that can be told at once. `again`: it has found nothing
  /// before.
  virtual bool may_have(const at::Tensor& leaf, bool again) = 0;
  /// The network that `leaf` is a parameter of.
  virtual std::optional<Network> network_of(const at::Tensor& leaf) = 0;
};

/// The modules of torch::nn that were made in this process.
class CppModules : public ModuleTree {
 public:
  CppModules();
  ~CppModules() override;
  /// A module was made at this address, or got a parameter.
  void add(const void* module);
  /// The program asks the module at this address for what it has: it is alive, and may be a network.
  void meet(const void* module);
  bool may_have(const at::Tensor& leaf, bool again) override;
  std::optional<Network> network_of(const at::Tensor& leaf) override;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

/// The modules of torch.nn in the interpreter that runs in this process, if there is one.
class PythonModules : public ModuleTree {
 public:
  bool may_have(const at::Tensor& leaf, bool again) override;
  std::optional<Network> network_of(const at::Tensor& leaf) override;
};

}  // namespace dds::attach
