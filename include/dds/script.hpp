// A model from a TorchScript archive, which torch.jit.save in Python or torch::jit::Module::save in C++ wrote.
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
/// Names are those of the archive. The classes Linear, Conv, Embedding, the norms, the recurrences, Bilinear and PReLU
/// of torch.nn are layers of that kind. Parameters of other classes are raw parameters, under their full names.
struct ScriptModel {
  std::shared_ptr<torch::nn::Module> module;
  /// Takes as many inputs as the archive's forward. It is interpreted operator by operator: the optimisations of the
  /// JIT would hide operators from the recorder, and their results from autograd. Throws c10::Error for what goes wrong
  /// in it, InvalidArgument for a result that is not one tensor.
  Forward forward;
};

/// Reads an archive onto the CPU. An archive is a program, and LibTorch runs parts of it while it loads: take none from
/// strangers (src/docs/untrusted_files.md).
/// Throws IoError if there is no such file, or if it is no TorchScript archive.
ScriptModel load_script(const std::filesystem::path& archive);

/// The same of an archive that was loaded already.
/// Throws InvalidArgument if it has no parameters, as after torch.jit.freeze, which makes constants of them. Layers are
/// recognised by their parameters.
ScriptModel script_model(const torch::jit::Module& script);

}  // namespace dds
