// Where the entries of a term lie in a parameter's memory.
#pragma once

#include <cstdint>
#include <variant>
#include <vector>

#include "src/per_sample/terms.hpp"

namespace dds::hooks {

/// One dimension of an operand, and the step that it makes in the parameter's memory.
struct Axis {
  std::int64_t size, stride;
};

/// A product as a term of a parameter with `numel` entries, its own lying at offset + the strides of `groups`, `rows`
/// and `columns`, in this order.
Term place_product(Product product, std::vector<Axis> groups, std::vector<Axis> rows, std::vector<Axis> columns,
                   std::int64_t offset, std::int64_t numel);

/// Any other form, its entries in the order of `axes`.
Term place(std::variant<Product, Lookup, Sum, Dense> form, const std::vector<Axis>& axes, std::int64_t offset,
           std::int64_t numel);

}  // namespace dds::hooks
