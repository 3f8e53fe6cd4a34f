#include "src/rows/signature_options.hpp"

#include <algorithm>

#include "src/base/check.hpp"

namespace dds {

void check(const SignatureOptions& options, const char* function) {
  check_at_least<std::int64_t>(function, "max_rows", options.max_rows(), 1);
  check_at_least<std::int64_t>(function, "max_width", options.max_width(), 1);
  check_not_empty(function, "sides", options.sides(), "at least one Side");
}

bool wants(const SignatureOptions& options, Side side) {
  return std::find(options.sides().begin(), options.sides().end(), side) != options.sides().end();
}

std::int64_t own_max_rows(const SignatureOptions& options, std::int64_t width) {
  const std::int64_t rows =
      width > options.max_width() ? std::min(options.max_rows(), options.max_width()) : options.max_rows();
  return options.ranks() ? std::max<std::int64_t>(1, rows / options.ranks()->size()) : rows;
}

std::uint64_t stream_of(const SignatureOptions& options) {
  return options.ranks() ? static_cast<std::uint64_t>(options.ranks()->rank()) : 0;
}

}  // namespace dds
