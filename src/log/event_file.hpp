// Event files of TensorBoard: records of TFRecord, each an `Event` message of Protocol Buffers.
//
// Written by hand, since what does it is heavy and in the way. The four kinds of message need varints, doubles, floats
// and nested bytes, forty lines of the wire format, which is frozen; libprotobuf is a megabyte, and a second copy of it
// in one process with LibTorch, which carries a private one of another version, ends in its own registry's fatal
// errors. The checksum is CRC-32C, which zlib does not have.
#pragma once

#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <string_view>

#include "src/log/file.hpp"

namespace dds::log {

/// CRC-32C (Castagnoli) of the bytes.
std::uint32_t crc32c(std::string_view bytes);

/// One record: length, masked checksum of it, payload, masked checksum of that.
std::string tf_record(std::string_view payload);

/// The value of one tag, as a Summary::Value message.
std::string scalar_value(std::string_view tag, double value);
/// A histogram of equal bins between the least and the largest of `values`, which are finite and at least one.
std::string histogram_value(std::string_view tag, std::span<const double> values);
/// Markdown.
std::string text_value(std::string_view tag, std::string_view text);

/// A file of its own, made new in a directory: TensorBoard reads all of a directory's as one run, so that a run that is
/// resumed, or a record that a crash tore, needs no repair.
class EventFile {
 public:
  /// Throws IoError if it cannot be made.
  EventFile(const std::filesystem::path& directory, double wall_time);
  /// One event with the values, in one write.
  void append(double wall_time, std::int64_t step, std::span<const std::string> values);

 private:
  AppendFile file_;
};

}  // namespace dds::log
