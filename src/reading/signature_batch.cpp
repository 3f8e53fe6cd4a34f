#include "src/reading/signature_batch.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <utility>

#include "src/base/stopwatch.hpp"
#include "src/causes/find.hpp"
#include "src/spectral/solver.hpp"

namespace dds {

namespace {

/// Rows less their mean: whether that took a dimension is known of a LayerNorm alone, whose outputs less their bias lie
/// across one direction.
void bound_centred(Signature& signature, std::int64_t rows) {
  signature.centred = true;
  std::int64_t& bound = *signature.structural_bound;
  if (signature.kind == "LayerNorm" && signature.side == Side::Activation && bound >= *signature.width - 1) {
    bound = std::min(bound, *signature.width - 1);
  } else if (signature.bound_ended_by.empty() && bound < rows) {
    signature.bound_ended_by = "the mean that was taken off";
  }
  bound = std::min(bound, rows - 1);
}

}  // namespace

void SignatureBatch::add(const LayerRows& layer, Side side, Signature like, std::int64_t terms,
                         const Cancellation& cancellation) {
  const SideRows& rows = layer.side(side);
  Request request{&layer, &rows, std::move(like), terms, cancellation.factor()};
  Signature& signature = request.signature;
  signature.layer = layer.layer();
  signature.kind = layer.kind();
  signature.side = side;
  signature.calls = rows.calls;
  signature.backwards = side == Side::Fisher ? layer.backwards() : 0;
  signature.status |= rows.status;
  if (!layer.ran()) signature.status |= layer.missing();
  if (rows.factor) {
    signature.row_mode = layer.expanded() ? RowMode::Expand : RowMode::Sample;
    signature.rows = rows.factor->rows() / terms;
    signature.width = rows.factor->width();
    signature.structural_bound = rows.bound.rank;
    signature.bound_ended_by = rows.bound.unknown;
    if (options_.centred()) bound_centred(signature, rows.factor->rows());
    signature.seconds = rows.seconds;
    if (!cancellation.known() && !signature.status.no_numbers()) signature.status |= Status::LossUnknown;
  } else if (!signature.status.no_numbers()) {
    // A layer that ran and has no rows on this side: token indices have no features, a frozen output no gradient.
    signature.status |= rows.empty             ? Status::Empty
                        : !layer.ran()         ? Status::NotRun
                        : side == Side::Fisher ? Status::NoGradient
                                               : Status::NotObservable;
  }
  requests_.push_back(std::move(request));
}

std::optional<std::int64_t> SignatureBatch::fixed_rank(const SeriesId& series) const {
  const std::optional<std::int64_t> wanted = options_.fixed_rank() ? options_.fixed_rank()(series) : std::nullopt;
  return wanted || !known_ ? wanted : known_->of(series);
}

void SignatureBatch::fill_in(Request& request, Spectrum& spectrum) {
  Signature& signature = request.signature;
  spectrum.divisor /= request.terms;
  if (!std::isfinite(spectrum.cancellation)) {  // a NaN in the loss that did not reach this layer
    spectrum.cancellation = 1;
    signature.status |= Status::LossUnknown;
  } else if (request.cancellation.defined()) {
    signature.cancellation = spectrum.cancellation;
  }
  signature.fixed_rank = fixed_rank(series_of(signature));
  read_numbers(spectrum, *request.rows->dtype, signature);
  if (!signature.fixed_rank && signature.logdet_plus) {
    signature.fixed_rank = signature.rank;
    signature.logdet_fixed_rank = signature.logdet_plus;
  }
  if (!spectrum.finite) return;
  if (options_.spectra() || known_) {
    signature.spectrum = spectrum.sigma;
    for (double& sigma : signature.spectrum) sigma = std::ldexp(sigma, spectrum.exponent);
  }
  if (options_.dead_axes()) {
    if (spectrum.width <= Spectrum::kMostAxes) signature.dead_axes = dead_axes(spectrum, signature);
    signature.axes = spectrum.right;
  }
}

std::vector<Signature> SignatureBatch::read() {
  const Stopwatch watch;
  std::vector<Request*> readable;
  std::vector<const TriangularAccumulator*> factors;
  std::vector<at::Tensor> cancellations;
  for (Request& request : requests_) {
    if (!request.rows->factor || request.signature.status.no_numbers()) continue;
    readable.push_back(&request);
    factors.push_back(&*request.rows->factor);
    cancellations.push_back(request.cancellation);
  }
  std::vector<Spectrum> spectra = read_spectra(factors, options_.dead_axes(), library_svd, cancellations);
  std::vector<CauseEvidence> evidence;
  for (std::size_t i = 0; i < readable.size(); ++i) {
    Request& request = *readable[i];
    fill_in(request, spectra[i]);
    if (!options_.causes() || !request.signature.rank) continue;
    evidence.push_back({request.layer, &request.signature, spectra[i].factor, spectra[i].exponent, spectra[i].rows});
  }
  find_causes(evidence);
  const double share = watch.seconds() / static_cast<double>(std::max<std::size_t>(1, readable.size()));
  std::vector<Signature> signatures;
  for (Request* request : readable) request->signature.seconds += share;
  for (Request& request : requests_) signatures.push_back(std::move(request.signature));
  requests_.clear();
  return signatures;
}

std::vector<Signature> read_signatures(const ReadingRows& rows, const SignatureOptions& options, Source source,
                                       const FixedRanks* known) {
  SignatureBatch batch(options, known);
  for (const ReadingRows::Layer& layer : rows.layers) {
    for (const Side side : options.sides()) {
      Signature like;
      like.step = rows.step;
      like.source = source;
      if (side != Side::Fisher) {
        batch.add(layer.rows, side, std::move(like));
        continue;
      }
      like.fisher_kind = rows.labels.kind;
      like.reduction = layer.targets > 0 ? fmt::format("{}:{}", layer.reduction, layer.targets) : layer.reduction;
      batch.add(layer.rows, side, std::move(like), rows.labels.terms(), layer.cancellation);
    }
  }
  return batch.read();
}

}  // namespace dds
