// From the triangular factors of layers to their signatures.
#pragma once

#include <cstdint>
#include <dds/signature.hpp>
#include <dds/signature_options.hpp>
#include <dds/spectrum.hpp>
#include <optional>
#include <string>
#include <vector>

#include "src/rows/reading_rows.hpp"
#include "src/series/fixed_ranks.hpp"

namespace dds {

/// Signatures that are read together: the spectra of all of them in few calls.
class SignatureBatch {
 public:
  /// `known`: the fixed ranks of a run whose readings are followed; null: none is. What is followed keeps its spectrum,
  /// whatever the options say. Both arguments must outlive the batch.
  explicit SignatureBatch(const SignatureOptions& options, const FixedRanks* known = nullptr)
      : options_(options), known_(known) {}

  /// Asks for the signature of one side of `layer`, which must outlive read(). `like` has what the caller knows: step,
  /// source, fisher_kind, reduction. `terms`: rows that make up the expectation of one. `cancellation`: of the losses
  /// whose gradients the rows are.
  void add(const LayerRows& layer, Side side, Signature like, std::int64_t terms = 1,
           const Cancellation& cancellation = {});

  /// In the order of add().
  std::vector<Signature> read();

 private:
  struct Request {
    const LayerRows* layer;
    const SideRows* rows;
    Signature signature;
    std::int64_t terms;
    at::Tensor cancellation;
  };
  std::optional<std::int64_t> fixed_rank(const SeriesId& series) const;
  void fill_in(Request& request, Spectrum& spectrum);

  const SignatureOptions& options_;
  const FixedRanks* known_;
  std::vector<Request> requests_;
};

/// The signatures of all layers and sides of a reading, which must be reduced. `source`: Signature::source. `known`: as
/// SignatureBatch has it.
std::vector<Signature> read_signatures(const ReadingRows& rows, const SignatureOptions& options, Source source,
                                       const FixedRanks* known = nullptr);

}  // namespace dds
