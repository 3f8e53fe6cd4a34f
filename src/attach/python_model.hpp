// The networks of a program in Python, to be run again: what goes into their forward passes, and themselves as
// TorchScript.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <string>
#include <vector>

namespace dds::attach {

/// The networks are those that PythonModules has found. Every function does nothing, and gives nothing, where there is
/// no interpreter (any more).
class PythonModel {
 public:
  /// From now on until stop() notes forward passes in grad mode on this thread, the first few: of every network, and of
  /// modules in it that have all of its parameters, since a training may call one of those instead. Forgets what was
  /// noted before.
  static void watch();
  static void stop();
  static bool there();

  /// A tensor that a forward pass gave out, by itself or within tuples and dictionaries.
  struct Output {
    std::int64_t call = 0, place = 0;
    at::Tensor tensor;
  };
  /// Of all passes noted so far: those of a module come before those of modules in it.
  static std::vector<Output> outputs();

  /// Takes the pass that gave out `output` for the probe: its input tensors, at most `rows` of
  /// their samples, on the CPU. Those whose first dimension is not the output's go into the model as constants.
  /// `classes_second`: the output has its classes in dimension 1, and shall have them in the last. Empty: see error().
  static std::vector<at::Tensor> choose(const Output& output, std::int64_t rows, bool classes_second);

  /// The chosen network as the bytes of a TorchScript archive: torch.jit.trace of a copy on the CPU in eval mode, over
  /// the chosen inputs. Its forward is run on the copy, with the states of all generators put back afterwards. Empty
  /// where tracing fails, or would give another function: see error(). To be asked once.
  static std::string trace();

  /// Why the last of these gave nothing, in words.
  static std::string error();
};

}  // namespace dds::attach
