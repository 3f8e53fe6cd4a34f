#include "src/ranks/exchange.hpp"

#include <ATen/ops/from_blob.h>
#include <fmt/format.h>

#include <algorithm>
#include <cstdint>
#include <dds/error.hpp>
#include <exception>
#include <string>
#include <utility>
#include <vector>

#include "src/base/message.hpp"

namespace dds {
namespace {

/// Before each parcel: what a rank of another version, or one in the middle of something else, would not send.
struct Header {
  std::uint64_t mark = kMark;
  std::uint64_t size = 0;
  static constexpr std::uint64_t kMark = 0x6464732d72616e04;   // "dds-ran", version 4 of what follows
  static constexpr std::uint64_t kError = 0x6464732d65727204;  // "dds-err": the text of an error follows
};

/// What follows the header goes in pieces: nothing is filled that was only announced, and MPI counts bytes in an int.
constexpr std::uint64_t kPiece = std::uint64_t{1} << 26;

at::Tensor as_tensor(const void* bytes, std::size_t size) {
  // Never written to where it is sent from.
  return at::from_blob(const_cast<void*>(bytes), {static_cast<std::int64_t>(size)}, at::TensorOptions(at::kByte));
}

std::string first_line(const std::string& text) { return text.substr(0, text.find('\n')); }

template <class Work>
void guarded(const Ranks& ranks, const char* doing, int other, const Work& work) {
  try {
    work();
  } catch (const RankError&) {
    throw;
  } catch (...) {
    throw RankError(fmt::format("rank {} of {} could not {} rank {}: {}", ranks.rank(), ranks.size(), doing, other,
                                first_line(text_of(std::current_exception()))));
  }
}

void send_as(std::uint64_t mark, Ranks& ranks, const Parcel& parcel, int to) {
  guarded(ranks, "send to", to, [&] {
    const Header header{.mark = mark, .size = parcel.bytes().size()};
    ranks.send(as_tensor(&header, sizeof header), to);
    for (std::uint64_t begin = 0; begin < header.size; begin += kPiece) {
      ranks.send(as_tensor(parcel.bytes().data() + begin, std::min(kPiece, header.size - begin)), to);
    }
  });
}

}  // namespace

std::string text_of(const std::exception_ptr& error) {
  std::string text;
  try {
    std::rethrow_exception(error);
  } catch (const std::exception& thrown) {
    text = plain_message(thrown);
  } catch (...) {
    return "an exception of a type of its own";
  }
  return text.empty() ? "an exception without a text" : text;
}

void send(Ranks& ranks, const Parcel& parcel, int to) { send_as(Header::kMark, ranks, parcel, to); }

void send_error(Ranks& ranks, const std::string& error, int to) {
  Parcel parcel;
  parcel.put(error);
  send_as(Header::kError, ranks, parcel, to);
}

Parcel receive(Ranks& ranks, int from) {
  Header header;
  std::vector<std::byte> bytes;
  guarded(ranks, "receive from", from, [&] {
    ranks.receive(as_tensor(&header, sizeof header), from);
    if (header.mark != Header::kMark && header.mark != Header::kError) {
      throw RankError(fmt::format(
          "rank {} got something else than a reading from rank {}; expected the same version of the library on all "
          "ranks, and a group that nothing else sends through",
          ranks.rank(), from));
    }
    bytes.reserve(header.size);
    while (bytes.size() < header.size) {
      const std::size_t begin = bytes.size(), size = std::min(kPiece, header.size - begin);
      bytes.resize(begin + size);
      ranks.receive(as_tensor(bytes.data() + begin, size), from);
    }
  });
  Parcel parcel(std::move(bytes));
  if (header.mark == Header::kError) throw ToldError(parcel.take<std::string>());
  return parcel;
}

}  // namespace dds
