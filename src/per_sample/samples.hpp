// Which rows of a layer belong to which sample: known, or measured, and never guessed.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace dds::hooks {

/// How the samples lie in one dimension of a tensor. A dimension of n * k entries holds k rows of each of n samples.
struct SampleRows {
  enum class Order {
    Whole,          ///< everything belongs to sample owner[0]
    SampleMajor,    ///< entry i k + j is row j of sample i; k = 1: one row a sample
    PositionMajor,  ///< entry j n + i is row j of sample i
    Scattered,      ///< entry r belongs to sample owner[r]
  };
  Order order = Order::SampleMajor;
  std::int64_t samples = 0;
  std::int64_t dim = 0;  ///< of the layer's output
  at::Tensor owner;      ///< Scattered and Whole: the sample of each entry, int64
};

/// `tensor` with the samples in front: (n, k, the other dimensions in their order), where dimension `dim` of it holds
/// the samples as `rows` says. A sample with fewer scattered rows than another has zeros for the rest.
at::Tensor by_sample(const at::Tensor& tensor, std::int64_t dim, const SampleRows& rows);

/// `tensor` with the rows of the layer as (n, 1, p, f): `features` are the dimensions of f, in this order.
at::Tensor rows_of(const at::Tensor& tensor, const SampleRows& rows, const std::vector<std::int64_t>& features);

/// The sample of each of `count` entries, int64.
at::Tensor owners(const SampleRows& rows, std::int64_t count, const at::TensorOptions& options);

/// Weights that tell samples apart: n distinct numbers from 1 to 2, in an order without structure.
at::Tensor telling_weights(std::int64_t samples, const at::TensorOptions& options);

/// Measures how the samples lie in a layer's output from two gradients there: of sum_i l_i and of sum_i w_i l_i. A row
/// of sample i has w_i times the gradient in the second, whatever the layer and its neighbours do. `dims`: those that
/// may count samples. All in one type of at least fp32, whose rounding has to be small against 1 / n. Empty if no one
/// dimension counts samples: rows that belong to several, or a ratio that is none of the weights. Synchronises with the
/// device.
std::optional<SampleRows> measure_samples(const at::Tensor& gradient, const at::Tensor& weighted,
                                          const at::Tensor& weights, const std::vector<std::int64_t>& dims);

}  // namespace dds::hooks
