#include "experiments/fashion_mnist/data.hpp"

#include <fmt/format.h>
#include <fmt/ranges.h>
#include <zlib.h>

#include <cstdint>
#include <dds/error.hpp>
#include <memory>
#include <string>
#include <vector>

namespace fashion_mnist {
namespace {

using dds::IoError;

constexpr std::int64_t kMostEntries = std::int64_t{1} << 26;

/// A gzip-compressed IDX file of bytes, whole: a magic number that tells the dimensions, their sizes, the entries.
torch::Tensor read_idx(const std::filesystem::path& path, std::size_t dimensions) {
  const auto close = [](gzFile_s* file) { gzclose(file); };
  const std::unique_ptr<gzFile_s, decltype(close)> file(gzopen(path.c_str(), "rb"), close);
  if (!file) {
    throw IoError(
        fmt::format("{}: cannot be opened; expected a file of the Debian package dataset-fashion-mnist "
                    "(--data DIR names another folder)",
                    path.string()));
  }
  const auto read = [&](void* into, std::size_t bytes) {
    const int got = gzread(file.get(), into, static_cast<unsigned>(bytes));
    if (got < 0 || static_cast<std::size_t>(got) != bytes) {
      throw IoError(fmt::format("{}: truncated or damaged: {} bytes were expected where {} came", path.string(), bytes,
                                std::max(got, 0)));
    }
  };
  const auto read_number = [&] {
    unsigned char bytes[4];
    read(bytes, 4);
    return std::int64_t{bytes[0]} << 24 | std::int64_t{bytes[1]} << 16 | std::int64_t{bytes[2]} << 8 |
           std::int64_t{bytes[3]};
  };
  const std::int64_t magic = read_number(), expected = 0x0800 + static_cast<std::int64_t>(dimensions);
  if (magic != expected) {
    throw IoError(fmt::format("{}: the magic number is {:#x}, expected {:#x} (IDX, bytes, {} dimensions)",
                              path.string(), magic, expected, dimensions));
  }
  std::vector<std::int64_t> sizes;
  std::int64_t entries = 1;
  for (std::size_t i = 0; i < dimensions; ++i) {
    sizes.push_back(read_number());
    entries *= sizes.back();
    // Before anything is allocated: a header is soon written.
    if (sizes.back() <= 0 || entries > kMostEntries) {
      throw IoError(fmt::format("{}: the sizes {} are out of range", path.string(), sizes));
    }
  }
  torch::Tensor tensor = torch::empty(sizes, torch::kUInt8);
  read(tensor.data_ptr<std::uint8_t>(), static_cast<std::size_t>(entries));
  return tensor;
}

constexpr double kMean = 0.2860, kDeviation = 0.3530;  // of the training images, as fractions of 255

}  // namespace

Split load(const std::filesystem::path& folder, const std::string& name) {
  Split split;
  const torch::Tensor images = read_idx(folder / (name + "-images-idx3-ubyte.gz"), 3);
  split.labels = read_idx(folder / (name + "-labels-idx1-ubyte.gz"), 1).to(torch::kLong);
  if (images.size(0) != split.labels.size(0)) {
    throw IoError(
        fmt::format("{}: {} has {} images and {} labels", folder.string(), name, images.size(0), split.labels.size(0)));
  }
  split.images = images.unsqueeze(1).to(torch::kFloat).div_(255).sub_(kMean).div_(kDeviation);
  return split;
}

}  // namespace fashion_mnist
