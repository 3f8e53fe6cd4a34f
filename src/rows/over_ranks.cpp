#include "src/rows/over_ranks.hpp"

#include <fmt/format.h>

#include <dds/error.hpp>
#include <exception>
#include <utility>

#include "src/ranks/exchange.hpp"
#include "src/rows/wire.hpp"

namespace dds {
namespace {

/// The two directions of a message: what a rank sends of its rows, and what it takes in of another one's.
class RowsMessage {
 public:
  RowsMessage(const Ranks& ranks, const SignatureOptions& options, ReadingRows& rows)
      : ranks_(ranks), options_(options), rows_(rows) {
    if (rows.error) note(text_of(rows.error));
  }

  const std::string& error() const { return error_; }

  Parcel packed() const {
    Parcel parcel;
    parcel.put(rows_.step);
    pack(rows_.labels, parcel);
    parcel.put(error_);
    parcel.put(rows_.incomplete);
    parcel.put(rows_.layers.size());
    for (const ReadingRows::Layer& layer : rows_.layers) pack(layer, parcel);
    return parcel;
  }

  void join(Parcel theirs) {
    const auto step = theirs.take<std::int64_t>();
    if (step != rows_.step) {
      throw RankError(fmt::format(
          "rank {} reads step {} while another one reads step {}; expected all ranks to read the same steps",
          ranks_.rank(), rows_.step, step));
    }
    const FisherLabels labels = unpack_labels(theirs);
    const auto their_error = theirs.take<std::string>();
    if (error_.empty()) error_ = their_error;
    rows_.incomplete = theirs.take<bool>() || rows_.incomplete;
    if (error_.empty() && labels != rows_.labels) {
      note(
          fmt::format("a rank read the Fisher side {} in {} passes, another one {} in {}; expected the same "
                      "likelihood and options on all",
                      to_string(labels.kind), labels.passes, to_string(rows_.labels.kind), rows_.labels.passes));
      return;
    }
    try {
      for (auto left = theirs.take<std::size_t>(); left > 0; --left) rows_.merge(unpack_layer(theirs, options_));
    } catch (const RankError&) {
      throw;
    } catch (...) {
      rows_.incomplete = true;
      note(text_of(std::current_exception()));
    }
  }

 private:
  void note(const std::string& what) {
    if (error_.empty()) error_ = fmt::format("rank {} of {}: {}", ranks_.rank(), ranks_.size(), what);
  }

  const Ranks& ranks_;
  const SignatureOptions& options_;
  ReadingRows& rows_;
  std::string error_;
};

}  // namespace

JoinedRows join_rows(Tree& tree, const Ranks& ranks, const SignatureOptions& options, ReadingRows& rows) {
  RowsMessage message(ranks, options, rows);
  const bool all =
      tree.reduce([&] { return message.packed(); }, [&](Parcel theirs) { message.join(std::move(theirs)); });
  return {all, message.error()};
}

bool join_rows_or_throw(Tree& tree, const Ranks& ranks, const SignatureOptions& options, ReadingRows& rows) {
  JoinedRows joined;
  try {
    joined = join_rows(tree, ranks, options, rows);
  } catch (const RankError&) {
    // A loss: broadcast() throws it on all ranks that can be reached.
  }
  try {
    Parcel outcome;
    outcome.put(joined.error);
    joined.error = tree.broadcast(std::move(outcome)).take<std::string>();
  } catch (const RankError&) {
    if (!rows.error) throw;
  }
  if (rows.error) std::rethrow_exception(rows.error);
  if (!joined.error.empty()) throw RankError("read: " + joined.error);
  return joined.all;
}

}  // namespace dds
