#include "experiments/volume_identity/path.hpp"

#include <algorithm>
#include <cmath>

namespace volume_identity {

const dds::DecayCount* Path::count(const dds::SeriesId& series) const {
  const auto found = std::find_if(counts.begin(), counts.end(), [&](const auto& c) { return c.series == series; });
  return found == counts.end() ? nullptr : &*found;
}

dds::SeriesId fisher_at(const std::string& layer, std::string_view kind) {
  return {layer, dds::Side::Fisher, dds::Source::Read, dds::fisher_kind_from_string(kind)};
}

std::string fisher_text(const dds::SeriesId& series) {
  return series.fisher_kind ? to_string(*series.fisher_kind) : "";
}

dds::SeriesId activation_at(const std::string& layer) {
  return {layer, dds::Side::Activation, dds::Source::Read, std::nullopt};
}

double log_volume(const dds::Signature& signature) { return *signature.logdet_fixed_rank / std::log(10); }

double log_lambda_min(const dds::Signature& signature) {
  const double sigma = signature.spectrum[static_cast<std::size_t>(*signature.fixed_rank) - 1];
  return 2 * std::log10(sigma) - std::log10(static_cast<double>(*signature.rows));
}

Points points(const Path& path, const dds::SeriesId& series, Observable observable, double low, double high) {
  Points result;
  for (const dds::Signature& signature : path.signatures) {
    if (dds::series_of(signature) != series || !signature.fixed_rank || signature.rank < *signature.fixed_rank)
      continue;
    const double scale = path.scale[static_cast<std::size_t>(signature.step)];
    if (scale < low || scale > high) continue;
    result.x.push_back(std::log10(scale));
    result.y.push_back(observable(signature));
  }
  return result;
}

std::optional<dds::LineFit> slope(const Path& path, const dds::SeriesId& series, Observable observable) {
  const Points p = points(path, series, observable, path.low, path.high);
  if (p.x.size() < 5) return std::nullopt;
  return dds::fit_line(p.x, p.y);
}

}  // namespace volume_identity
