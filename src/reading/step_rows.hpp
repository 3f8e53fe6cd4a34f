// The rows of a training step: from what the recorder captured, with the gradients put back to those of the samples'
// own losses.
#pragma once

#include <dds/recorder.hpp>
#include <dds/reduction.hpp>
#include <dds/signature_options.hpp>
#include <set>
#include <string>
#include <utility>

#include "src/rows/reading_rows.hpp"

namespace dds {

class StepRows {
 public:
  StepRows(SignatureOptions options, Reduction reduction) : options_(std::move(options)), reduction_(reduction) {}

  /// The rows of one step. An error in one layer leaves the others to be read; it is in ReadingRows::error, as are the
  /// recorder's own. A layer that does not run, or cannot be observed, is among the rows once.
  ReadingRows rows_of(const Captured& captured, std::int64_t step);

 private:
  bool first_time(const CapturedLayer& layer) { return reported_.insert({layer.layer, layer.detail}).second; }

  SignatureOptions options_;
  Reduction reduction_;
  std::set<std::pair<std::string, std::string>> reported_;  ///< layers that did not run, and why
};

}  // namespace dds
