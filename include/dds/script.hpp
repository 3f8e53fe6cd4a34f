// A model that comes as a TorchScript archive: what torch.jit.save in Python or torch::jit::Module::save in C++ wrote.
#pragma once

#include <dds/export.hpp>
#include <dds/problem.hpp>
#include <filesystem>
#include <memory>

namespace torch::jit {
struct Module;
}

namespace DDS_EXPORT dds {

/// An archive as `read`, `estimate_llc` and a Monitor take a model: `module` has its parameters, buffers and training
/// flags, and shares them with it; `forward` runs its code.
///
///   auto model = dds::load_script("model.pt");
///   auto signatures = dds::read({*model.module, dds::categorical(), probe, model.forward});
///
/// Names are those of the archive. What was a Linear, a convolution, an Embedding, a norm, a recurrence, a Bilinear or
/// a PReLU of torch.nn is a layer of that kind; parameters of any other class are raw, under their full names.
struct ScriptModel {
  std::shared_ptr<torch::nn::Module> module;
  /// Takes as many inputs as the archive's forward. It is interpreted operator by operator, without the optimisations
  /// of the JIT, which would hide operators from the recorder and their results from autograd. What goes wrong in it is
  /// thrown as c10::Error; InvalidArgument: the result is not one tensor.
  Forward forward;
};

/// Reads an archive onto the CPU. An archive is a program, of which LibTorch runs parts while it loads: take none from
/// strangers (src/docs/untrusted_files.md). Throws IoError if there is no such file or it is no TorchScript archive.
ScriptModel load_script(const std::filesystem::path& archive);

/// The same of an archive that was loaded already. Throws InvalidArgument if it has no parameters, as after
/// torch.jit.freeze, which makes constants of them: nothing tells a layer then.
ScriptModel script_model(const torch::jit::Module& script);

}  // namespace dds
