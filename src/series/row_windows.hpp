// The rows of the last readings of each layer and side, joined.
#pragma once

#include <cstdint>
#include <dds/window.hpp>
#include <deque>
#include <map>
#include <optional>
#include <string>
#include <utility>

#include "src/rows/reading_rows.hpp"

namespace dds {

class RowWindows {
 public:
  /// Joins the last `capacity` readings; at least 1, which leaves every reading as it is.
  explicit RowWindows(std::int64_t capacity) : capacity_(capacity) {}

  /// Puts the rows of the last readings, these included, in the place of the layer's own, and what cancelled in their
  /// losses too. A side without numbers is left out. A window begins anew where the width, the device or the dtype of
  /// the rows changes.
  void join(ReadingRows::Layer& layer, const SignatureOptions& options);

 private:
  struct Window {
    TriangularWindow rows;
    std::optional<c10::ScalarType> dtype;
    std::deque<SideRows> readings;  ///< without factors, unless rows are centred
    std::deque<Cancellation> cancellations;
  };

  void join(ReadingRows::Layer& layer, Side side);

  std::int64_t capacity_;
  std::map<std::pair<std::string, Side>, Window> windows_;
};

}  // namespace dds
