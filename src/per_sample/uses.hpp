// What runs of operators contribute, and to which parameters.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <dds/signature.hpp>
#include <optional>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "hooks/parameter_index.hpp"
#include "src/per_sample/placing.hpp"

namespace dds::hooks {

/// Collects the terms of one run.
class Uses {
 public:
  /// `parameters`: those that terms are collected for.
  explicit Uses(const ParameterIndex& parameters) : parameters_(parameters) {}

  struct Placed {
    std::size_t parameter;  ///< its number in the index
    Term term;
  };
  /// A weight that was computed from parameters, with the gradient of each sample with respect to it, (n, its shape).
  struct Derived {
    at::Tensor weight;
    at::Tensor gradients;
  };
  const std::vector<Placed>& placed() const { return placed_; }
  const std::vector<Derived>& derived() const { return derived_; }
  StatusSet status() const { return status_; }
  const std::string& detail() const { return detail_; }

  /// A product whose entries are those of `operand` in the order of its dimensions `groups`, `rows`, `columns`. Along
  /// all others the operand repeats.
  void add_product(const at::Tensor& operand, Product product, const std::vector<std::int64_t>& groups,
                   const std::vector<std::int64_t>& rows, const std::vector<std::int64_t>& columns);
  /// A product whose entries are those of `operand` in order, the first dimension split into groups and rows.
  void add_product(const at::Tensor& operand, Product product);
  /// Any form whose entries are those of `operand` in order. Does nothing if the operand is undefined.
  void add(const at::Tensor& operand, std::variant<Product, Lookup, Sum, Dense> form);
  /// True if a tensor is a parameter, or part of one.
  bool knows(const at::Tensor& tensor) const { return place_of(tensor).has_value(); }
  /// Adds a status, and its reason if there was none before.
  void mark(StatusSet status, std::string detail);

 private:
  /// Where an operand's entries lie in a parameter. Empty for one that reads a parameter as other numbers: its complex
  /// conjugate, its real and imaginary parts.
  std::optional<ParameterIndex::Place> place_of(const at::Tensor& operand) const;

  const ParameterIndex& parameters_;
  std::vector<Placed> placed_;
  std::vector<Derived> derived_;
  StatusSet status_;
  std::string detail_;
};

}  // namespace dds::hooks
