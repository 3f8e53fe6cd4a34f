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

/// One step at a time: copies are taken before its first operator changes a buffer and its update a parameter.
class Snapshots {
 public:
  /// Copies what `leaves` have by now and that has not been copied in this step; and the networks of those of `used`
  /// that they do not have yet, or may have as they were before (`anew`): the first operator of a network may be the
  /// one that changes a buffer.
  void take(const Leaves& leaves, const std::vector<at::Tensor>& used, bool anew);
  /// True if one of these is another than when it was copied.
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
