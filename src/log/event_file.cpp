#include "src/log/event_file.hpp"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <bit>
#include <charconv>
#include <cmath>
#include <cstring>
#include <dds/error.hpp>
#include <functional>
#include <optional>

namespace dds::log {
namespace {

constexpr auto kCrcTable = [] {
  std::array<std::uint32_t, 256> table{};
  for (std::uint32_t i = 0; i < table.size(); ++i) {
    std::uint32_t crc = i;
    for (int bit = 0; bit < 8; ++bit) crc = (crc >> 1) ^ ((crc & 1) != 0 ? 0x82F63B78u : 0u);
    table[i] = crc;
  }
  return table;
}();

template <class Number>
std::string little_endian(Number number) {
  static_assert(std::endian::native == std::endian::little);
  return {reinterpret_cast<const char*>(&number), sizeof number};
}

/// TFRecord rotates its checksums, so that a record within a record has another one.
std::uint32_t masked(std::uint32_t crc) { return std::rotr(crc, 15) + 0xa282ead8u; }

std::string varint(std::uint64_t value) {
  std::string bytes;
  for (; value >= 0x80; value >>= 7) bytes += static_cast<char>(value | 0x80);
  return bytes + static_cast<char>(value);
}

/// How the fields of a message follow each other on the wire.
enum WireType { kVarint = 0, kFixed64 = 1, kBytes = 2, kFixed32 = 5 };

std::string key(int field, WireType type) { return varint(static_cast<std::uint64_t>(field) << 3 | type); }
std::string field_of(int field, std::int64_t value) {
  return key(field, kVarint) + varint(static_cast<std::uint64_t>(value));
}
std::string field_of(int field, double value) { return key(field, kFixed64) + little_endian(value); }
std::string field_of(int field, float value) { return key(field, kFixed32) + little_endian(value); }
std::string field_of(int field, std::string_view bytes) {
  return key(field, kBytes) + varint(bytes.size()) + std::string(bytes);
}
std::string field_of(int field, const std::vector<double>& packed) {
  std::string bytes;
  for (const double value : packed) bytes += little_endian(value);
  return field_of(field, bytes);
}

// The numbers of the fields, from tensorflow/core/util/event.proto and tensorflow/core/framework/summary.proto.
namespace event {
constexpr int kWallTime = 1, kStep = 2, kFileVersion = 3, kSummary = 5;
}
namespace summary {
constexpr int kValue = 1;
}
namespace value {
constexpr int kTag = 1, kSimpleValue = 2, kHistogram = 5, kTensor = 8, kMetadata = 9;
}
namespace histogram {
constexpr int kMin = 1, kMax = 2, kNum = 3, kSum = 4, kSumSquares = 5, kBucketLimit = 6, kBucket = 7;
}
namespace tensor {
constexpr int kDtype = 1, kShape = 2, kStrings = 8;
constexpr std::int64_t kString = 7;
}  // namespace tensor
namespace metadata {
constexpr int kPlugin = 1, kPluginName = 1;
}

constexpr std::string_view kName = "events.out.tfevents.";

/// The event files of a directory, each with the second in its name.
std::vector<std::pair<std::int64_t, std::filesystem::path>> event_files(const std::filesystem::path& directory) {
  std::vector<std::pair<std::int64_t, std::filesystem::path>> files;
  for (const std::filesystem::path& path : entries_of(directory)) {
    const std::string name = path.filename().string();
    if (!name.starts_with(kName) || is_left_over(path)) continue;
    std::int64_t second = 0;
    std::from_chars(name.data() + kName.size(), name.data() + name.size(), second);
    files.emplace_back(second, path);
  }
  return files;
}

/// The present second, or the first after those of the directory's files; of ten digits, whose order is that of names.
std::int64_t new_stamp(const std::filesystem::path& directory, double wall_time) {
  constexpr std::int64_t kLast = 9'999'999'999;
  std::int64_t stamp = wall_time > 0 ? static_cast<std::int64_t>(std::min(wall_time, static_cast<double>(kLast))) : 0;
  for (const auto& [second, path] : event_files(directory)) stamp = std::max(stamp, std::min(second, kLast - 1) + 1);
  return stamp;
}

/// A name in a directory that no other writer has: of a second, machine, process, and place in it.
std::filesystem::path new_path(const std::filesystem::path& directory, std::int64_t stamp) {
  std::array<char, 256> host{};
  if (gethostname(host.data(), host.size() - 1) != 0) host = {'h', 'o', 's', 't'};
  for (int number = 0;; ++number) {
    auto path = directory / fmt::format("{}{:010}.{}.{}.{}", kName, stamp, host.data(), ::getpid(), number);
    if (!is_there(path)) return path;
  }
}

/// A number that stands somewhere in little-endian bytes.
template <class Number>
Number number_at(std::string_view bytes, std::size_t place) {
  Number number;
  std::memcpy(&number, bytes.data() + place, sizeof number);
  return number;
}

/// An event of this writer's, whose first field is its time.
struct Event {
  double wall_time;
  std::string_view rest;
};
std::optional<Event> event_of(std::string_view payload) {
  const std::string first = key(event::kWallTime, kFixed64);
  if (!payload.starts_with(first) || payload.size() < first.size() + sizeof(double)) return std::nullopt;
  return Event{number_at<double>(payload, first.size()), payload.substr(first.size() + sizeof(double))};
}

}  // namespace

std::uint32_t crc32c(std::string_view bytes) {
  std::uint32_t crc = ~0u;
  for (const char byte : bytes) crc = (crc >> 8) ^ kCrcTable[(crc ^ static_cast<unsigned char>(byte)) & 0xFF];
  return ~crc;
}

std::string tf_record(std::string_view payload) {
  const std::string length = little_endian(static_cast<std::uint64_t>(payload.size()));
  std::string record = length + little_endian(masked(crc32c(length)));
  record += payload;
  return record + little_endian(masked(crc32c(payload)));
}

std::vector<std::string_view> tf_payloads(std::string_view records) {
  constexpr std::size_t kLength = 8, kCrc = 4;
  std::vector<std::string_view> payloads;
  while (records.size() >= kLength + 2 * kCrc) {
    const auto size = number_at<std::uint64_t>(records, 0);
    if (number_at<std::uint32_t>(records, kLength) != masked(crc32c(records.substr(0, kLength)))) break;
    if (size > records.size() - (kLength + 2 * kCrc)) break;
    const std::string_view payload = records.substr(kLength + kCrc, size);
    if (number_at<std::uint32_t>(records, kLength + kCrc + size) != masked(crc32c(payload))) break;
    payloads.push_back(payload);
    records.remove_prefix(kLength + 2 * kCrc + size);
  }
  return payloads;
}

std::string scalar_value(std::string_view tag, double value) {
  return field_of(value::kTag, tag) + field_of(value::kSimpleValue, static_cast<float>(value));
}

std::string histogram_value(std::string_view tag, std::span<const double> values) {
  constexpr std::size_t kBins = 30;
  const auto [min, max] = std::minmax_element(values.begin(), values.end());
  const double low = *min, high = *max, width = (high - low) / kBins;
  std::vector<double> limits, counts(kBins, 0);
  for (std::size_t i = 1; i < kBins; ++i) limits.push_back(low + static_cast<double>(i) * width);
  limits.push_back(high);
  double sum = 0, squares = 0;
  for (const double value : values) {
    const auto bin = std::lower_bound(limits.begin(), limits.end(), value) - limits.begin();
    counts[static_cast<std::size_t>(bin)] += 1;
    sum += value;
    squares += value * value;
  }
  return field_of(value::kTag, tag) +
         field_of(value::kHistogram, field_of(histogram::kMin, low) + field_of(histogram::kMax, high) +
                                         field_of(histogram::kNum, static_cast<double>(values.size())) +
                                         field_of(histogram::kSum, sum) + field_of(histogram::kSumSquares, squares) +
                                         field_of(histogram::kBucketLimit, limits) +
                                         field_of(histogram::kBucket, counts));
}

std::string text_value(std::string_view tag, std::string_view text) {
  return field_of(value::kTag, tag) +
         field_of(value::kMetadata,
                  field_of(metadata::kPlugin, field_of(metadata::kPluginName, std::string_view("text")))) +
         field_of(value::kTensor, field_of(tensor::kDtype, tensor::kString) +
                                      field_of(tensor::kShape, std::string_view()) + field_of(tensor::kStrings, text));
}

EventFile::EventFile(const std::filesystem::path& directory, double wall_time)
    : EventFile(directory, new_stamp(directory, wall_time), wall_time) {}

EventFile::EventFile(const std::filesystem::path& directory, std::int64_t stamp, double wall_time)
    : path_(new_path(directory, stamp)), file_(path_, 0), latest_(std::max(static_cast<double>(stamp), wall_time)) {
  file_.append(tf_record(field_of(event::kWallTime, latest_) +
                         field_of(event::kFileVersion, std::string_view("brain.Event:2"))));
}

void EventFile::pass_over_earlier() {
  for (const auto& [second, path] : event_files(path_.parent_path())) {
    if (path == path_) continue;
    const std::string content = read_file(path);
    for (const std::string_view payload : tf_payloads(content)) {
      const std::optional<Event> event = event_of(payload);
      if (!event) continue;
      earlier_.insert(std::hash<std::string_view>()(event->rest));
      if (std::isfinite(event->wall_time)) latest_ = std::max(latest_, event->wall_time);
    }
  }
}

void EventFile::append(double wall_time, std::int64_t step, std::span<const std::string> values) {
  std::string all;
  for (const std::string& value : values) all += field_of(summary::kValue, value);
  const std::string rest = field_of(event::kStep, step) + field_of(event::kSummary, all);
  if (const auto there = earlier_.find(std::hash<std::string_view>()(rest)); there != earlier_.end()) {
    earlier_.erase(there);
    return;
  }
  latest_ = std::max(latest_, wall_time);
  file_.append(tf_record(field_of(event::kWallTime, latest_) + rest));
}

}  // namespace dds::log
