// What ranks send one another. The first byte says what it is: the rows of a layer, what cancels in a loss, or values,
// whose types are the next bytes up to one that is none. What was taken is put as the same bytes.
#include <algorithm>

#include "src/ranks/parcel.hpp"
#include "src/reading/signature_batch.hpp"
#include "src/rows/wire.hpp"
#include "tests/fuzz/fuzz.hpp"

namespace {

using namespace dds;

Parcel parcel_of(const std::uint8_t* data, std::size_t size) {
  const auto* const bytes = reinterpret_cast<const std::byte*>(data);
  return Parcel(std::vector<std::byte>(bytes, bytes + size));
}

template <class T>
void pass_on(Parcel& from, Parcel& to) {
  to.put(from.take<T>());
}

enum class Colour : std::int8_t { Red, Green, Blue };

void values(const std::uint8_t* data, std::size_t size) {
  const std::uint8_t* const end = data + size;
  const std::uint8_t* const types = data;
  while (data < end && *data < 9) ++data;
  const std::uint8_t* const rest = data < end ? data + 1 : end;
  Parcel from = parcel_of(rest, static_cast<std::size_t>(end - rest)), to;
  const std::vector<std::byte> sent = from.bytes();
  for (const std::uint8_t* type = types; type < data; ++type) {
    switch (*type) {
      case 0:
        pass_on<bool>(from, to);
        break;
      case 1:
        pass_on<std::uint8_t>(from, to);
        break;
      case 2:
        pass_on<double>(from, to);
        break;
      case 3:
        to.put(from.take_up_to(Colour::Blue));
        break;
      case 4:
        to.put(from.take_tally());
        break;
      case 5:
        pass_on<std::string>(from, to);
        break;
      case 6:
        pass_on<std::vector<double>>(from, to);
        break;
      case 7:
        pass_on<at::Tensor>(from, to);
        break;
      default:
        pass_on<std::vector<at::Tensor>>(from, to);
    }
  }
  const std::vector<std::byte>& again = to.bytes();
  fuzz::require(again.size() <= sent.size() && std::equal(again.begin(), again.end(), sent.begin()),
                "what was taken is put as the same bytes");
  fuzz::require(from.at_end() == (again.size() == sent.size()), "the end is where all was taken");
}

/// What joins the rows of ranks, up to the spectra.
void rows(Parcel parcel) {
  static const SignatureOptions options = SignatureOptions().sides({Side::Activation, Side::Input, Side::Fisher});
  const LayerRows taken = LayerRows::unpack(parcel, options);
  Parcel first, second;
  taken.pack(first);
  Parcel copy(first.bytes());
  const LayerRows back = LayerRows::unpack(copy, options);
  fuzz::require(copy.at_end(), "the rows are packed whole");
  back.pack(second);
  fuzz::require(first.bytes() == second.bytes(), "the rows are back");

  LayerRows joined = taken;
  joined.merge(back);
  SignatureBatch batch(options);
  for (const Side side : options.sides()) batch.add(joined, side, {});
  fuzz::require(batch.read().size() == options.sides().size(), "there is a signature for each side");
}

void cancellation(Parcel parcel) {
  const Cancellation taken = unpack_cancellation(parcel);
  Cancellation joined;
  joined.add(taken);
  joined.add(taken);
  const at::Tensor factor = joined.factor();
  fuzz::require(!factor.defined() || (factor.dim() == 0 && factor.scalar_type() == at::kDouble),
                "the factor is a number");
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  if (size == 0) return 0;
  try {
    switch (data[0]) {
      case 'r':
        rows(parcel_of(data + 1, size - 1));
        break;
      case 'c':
        cancellation(parcel_of(data + 1, size - 1));
        break;
      default:
        values(data + 1, size - 1);
    }
  } catch (const RankError&) {
  }
  return 0;
}
