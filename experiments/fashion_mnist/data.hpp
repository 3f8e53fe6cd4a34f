// Fashion-MNIST as Debian's dataset-fashion-mnist ships it: gzip-compressed IDX files.
#pragma once

#include <torch/torch.h>

#include <filesystem>

namespace fashion_mnist {

struct Split {
  torch::Tensor images;  ///< n x 1 x 28 x 28, fp32, zero mean and unit variance over the training set
  torch::Tensor labels;  ///< n, int64, 0 to 9
};

/// Reads "train" or "t10k". Throws dds::IoError for a file that is missing, truncated or something else, with its path
/// and what was expected.
Split load(const std::filesystem::path& folder, const std::string& name);

}  // namespace fashion_mnist
