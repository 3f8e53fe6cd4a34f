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
#include <unordered_set>
#include <vector>

#include "src/log/file.hpp"

namespace dds::log {

/// CRC-32C (Castagnoli) of the bytes.
std::uint32_t crc32c(std::string_view bytes);

/// One record: length, masked checksum of it, payload, masked checksum of that.
std::string tf_record(std::string_view payload);

/// The payloads of the records, up to the first that is torn or damaged.
std::vector<std::string_view> tf_payloads(std::string_view records);

/// The value of one tag, as a Summary::Value message.
std::string scalar_value(std::string_view tag, double value);
/// A histogram of equal bins between the least and the largest of `values`, which are finite and at least one.
std::string histogram_value(std::string_view tag, std::span<const double> values);
/// Markdown.
std::string text_value(std::string_view tag, std::string_view text);

/// A file of its own, made new in a directory: TensorBoard reads all of a directory's as one run, so that a run that is
/// resumed, or a record that a crash tore, needs no repair. It reads them in the order of their names, which begin with
/// a time: the new one comes last, and times never go back, whatever the clock does.
class EventFile {
 public:
  /// Throws IoError if it cannot be made.
  EventFile(const std::filesystem::path& directory, double wall_time);
  /// From now on passes over, once each, the events that earlier files of the directory hold. Throws IoError if one
  /// cannot be read.
  void pass_over_earlier();
  /// One event with the values, in one write.
  void append(double wall_time, std::int64_t step, std::span<const std::string> values);

 private:
  EventFile(const std::filesystem::path& directory, std::int64_t stamp, double wall_time);

  std::filesystem::path path_;
  AppendFile file_;
  double latest_;                                 ///< wall time
  std::unordered_multiset<std::size_t> earlier_;  ///< hashes of events, without their times
};

}  // namespace dds::log
