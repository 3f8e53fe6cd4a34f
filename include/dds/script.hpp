// A model from a TorchScript archive, as written by torch.jit.save in Python or torch::jit::Module::save in C++.
#pragma once

#include <dds/export.hpp>
#include <dds/problem.hpp>
#include <filesystem>
#include <memory>

namespace torch::jit {
struct Module;
}

namespace DDS_EXPORT dds {

/// A TorchScript model in the form that `read`, `estimate_llc` and a Monitor take. `module` shares the archive's
/// parameters, buffers and training flags. `forward` runs the archive's code.
///
///   auto model = dds::load_script("model.pt");
///   auto signatures = dds::read({*model.module, dds::categorical(), probe, model.forward});
///
/// Names are those of the archive. Classes of torch.nn are layers of their kind: Linear, Conv, Embedding, norms,
/// recurrent layers, Bilinear and PReLU. A class of the user's own with a single weight is a layer too, under its path,
/// as `dds attach` has it. Parameters of other classes are raw parameters, under their full names.
struct ScriptModel {
  std::shared_ptr<torch::nn::Module> module;
  /// Takes as many inputs as the archive's forward. The code is interpreted operator by operator: optimisations of the
  /// JIT would hide operators from the recorder, and their results from autograd.
  /// Throws c10::Error for an error in the archive's code, and InvalidArgument if the result is not one tensor.
  Forward forward;
};

/// Loads an archive onto the CPU. An archive is a program, and LibTorch runs parts of it while it loads: do not load
/// one from a source you do not trust (src/docs/untrusted_files.md). Throws IoError if there is no such file, or if it
/// is no TorchScript archive; and InvalidArgument as script_model.
ScriptModel load_script(const std::filesystem::path& archive);

/// The same for a module that is already loaded.
/// Throws InvalidArgument if it has no parameters, by which layers are recognised. torch.jit.freeze turns parameters
/// into constants.
ScriptModel script_model(const torch::jit::Module& script);

}  // namespace dds
