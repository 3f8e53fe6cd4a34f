// Which rows of a layer belong to which sample. This is told or measured, and never guessed.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <iterator>
#include <optional>
#include <string>
#include <vector>

namespace dds::hooks {

/// How the samples lie in one dimension of a tensor. An entry along this dimension is a row. There are n samples.
struct SampleRows {
  enum class Order {
    Whole,          ///< the whole tensor belongs to sample owner[0]
    SampleMajor,    ///< k rows a sample: entry i k + j is row j of sample i
    PositionMajor,  ///< k rows a sample: entry j n + i is row j of sample i
    Scattered,      ///< entry r belongs to sample owner[r]; samples may have different numbers of rows
  };
  Order order = Order::SampleMajor;
  std::int64_t samples = 0;
  std::int64_t dim = 0;  ///< of the layer's output
  at::Tensor owner;      ///< Scattered and Whole: the sample of each entry, int64
};

/// `tensor` with the samples in front: (n, k, the other dimensions in their order). The samples lie in its dimension
/// `dim` as `rows` says, k rows each at most. A sample with fewer rows has zeros for the rest.
at::Tensor by_sample(const at::Tensor& tensor, std::int64_t dim, const SampleRows& rows);

/// `tensor` as (n, 1, p, f). `features` are the dimensions that make up f, in this order. All others make up the
/// positions p of a sample.
at::Tensor rows_of(const at::Tensor& tensor, const SampleRows& rows, const std::vector<std::int64_t>& features);

/// The sample of each of `count` entries, int64.
at::Tensor owners(const SampleRows& rows, std::int64_t count, const at::TensorOptions& options);

/// Weights of the samples' losses that tell the samples apart. Each pass over the graph has its own. All are powers of
/// two, so that a row of sample i alone comes out as w_i times what it was, without rounding.
class TellingWeights {
 public:
  /// `narrow`: of few powers, for fp16.
  TellingWeights(std::int64_t samples, bool narrow);

  std::int64_t samples() const { return std::ssize(codes_); }
  std::int64_t passes() const { return passes_; }
  /// Of one pass: n.
  at::Tensor weights(std::int64_t pass, const at::TensorOptions& options) const;
  /// The smallest and the largest exponent of a weight.
  std::int64_t lowest() const { return -base_ / 2; }
  std::int64_t highest() const { return base_ / 2 - 1; }
  /// 2^-exponent, without rounding.
  at::Tensor inverse(const at::Tensor& exponent, const at::TensorOptions& options) const;
  /// By the code that follow() makes of the exponents of all passes: the sample, or -1.
  at::Tensor samples_by_code(const at::TensorOptions& options) const;
  at::Tensor follow(const at::Tensor& code, const at::Tensor& exponent) const {
    return code.mul(base_).add(exponent.sub(lowest()));
  }

 private:
  std::int64_t digit(std::int64_t code, std::int64_t pass) const;

  std::int64_t base_, passes_;
  std::vector<std::int64_t> codes_;  ///< by sample: distinct, in an order without structure
};

/// Measures how the samples lie in the output of a call, from gradients there: of sum_i l_i, and of sum_i w_i l_i in
/// every pass. Each row is decided by itself, so that the gradient of a sample counts however small it is.
class SampleMeasurement {
 public:
  /// `gradient`: of sum_i l_i. `dims`: those that may count samples.
  SampleMeasurement(at::Tensor gradient, std::vector<std::int64_t> dims);

  /// Takes the gradient of the next pass in. Synchronises with the device.
  void add(const at::Tensor& weighted, const TellingWeights& weights);

  /// After all passes. Empty if along no dimension each row is of one sample, or if this cannot be told from rounding.
  std::optional<SampleRows> rows(const TellingWeights& weights) const;

 private:
  /// What is known of the rows along one dimension; of all as one row if there is no such dimension.
  struct Along {
    std::int64_t dim;
    at::Tensor code;    ///< of each row, by TellingWeights::follow
    bool exact = true;  ///< each row is a weight times what it was, to the last bit
    double apart = 0;   ///< the largest difference from that, as a share of the row's largest entry
  };
  at::Tensor as_rows(const at::Tensor& tensor, const Along& along) const;
  std::optional<SampleRows> rows(const Along& along, const TellingWeights& weights) const;

  at::Tensor gradient_;
  std::vector<Along> along_;
};

}  // namespace dds::hooks
