// Whether a module that is known by its address is still there.
#pragma once

#include <torch/nn/module.h>

#include <memory>

namespace dds::hooks {

/// Tells of a module that a shared_ptr held at first. Of any other nobody can tell.
class ModuleLife {
 public:
  explicit ModuleLife(torch::nn::Module& module) : owner_(module.weak_from_this()), owned_(!owner_.expired()) {}

  /// True if the module is known to be destroyed.
  bool over() const { return owned_ && owner_.expired(); }

 private:
  std::weak_ptr<torch::nn::Module> owner_;
  bool owned_;
};

}  // namespace dds::hooks
