// The parameters and buffers of the steps that are read, as files: OUT/snapshots/STEP.pt.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <filesystem>
#include <string>
#include <unordered_map>
#include <unordered_set>
#include <vector>

#include "src/attach/leaves.hpp"

namespace dds::attach {

/// One step at a time. Copies are taken before the step's first operator, which may change a buffer, and before its
/// update, which changes parameters.
class Snapshots {
 public:
  /// Copies what `leaves` have and what has not been copied in this step. Copies the networks of those of `used` that
  /// `leaves` do not have yet, too, since the first operator of a network may change a buffer. `anew`: also of those
  /// that they have, which may be as they were before.
  void take(const Leaves& leaves, const std::vector<at::Tensor>& used, bool anew);
  /// True if one of these has changed since it was copied.
  bool outdated(const std::vector<at::Tensor>& used) const;
  /// Forgets the step.
  void drop();
  /// Writes what was taken of those that are still among `leaves`, under the names that they have now, and forgets the
  /// step. Throws IoError; `folder` is made where it is missing, but not the one that it lies in.
  void write(const std::filesystem::path& folder, std::int64_t step, const Leaves& leaves);

  std::int64_t written() const { return written_; }

 private:
  void take(const at::Tensor& tensor);

  struct Copy {
    at::Tensor original;  ///< kept: where the step ends with the process, the interpreter has let go of buffers
    at::Tensor tensor;    ///< on the CPU
    const void* storage = nullptr;
    std::uint32_t version = 0;
  };
  std::unordered_map<const at::TensorImpl*, Copy> copies_;
  std::unordered_set<const at::TensorImpl*> asked_;  ///< whose network was looked up
  std::size_t known_ = 0;                            ///< Leaves::size() when they were taken
  std::int64_t written_ = 0;
};

}  // namespace dds::attach
