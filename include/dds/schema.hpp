// The files of a run directory, column by column. The writers, the reader, the report and src/docs/columns.md all
// follow these tables.
//
//   signatures.csv    one row per step, source, layer and side: `signature_columns`
//   spectra.jsonl     singular values, for the rows that have them: one JSON object a line, with the columns that
//                     identify a row (step, layer, side, source, fisher_kind) and `spectrum`, descending
//   llc.csv           one row per LLC estimate: `llc_columns`
//   metrics.csv       one row per scalar of the user's own: `metric_columns`
//   run.json          one object: `schema_version`, `dds` and `libtorch` (versions), each key given to Sink::describe,
//                     `lost_rows` if rows were lost to a full disk, and `models`: of each model that a Monitor
//                     watched, the number of its parameters and a hash of their names and shapes
//   report.html       written by write_report, from the other files
//   events.out.tfevents.*  for TensorBoard, with DirectoryOptions::tensorboard: tags in <dds/log.hpp>
//
// CSV follows RFC 4180, with a header and lines that end in "\n". Text is UTF-8. A number has the fewest digits that
// read back as the same number. (A reader that guesses types, like pandas, reads a column as integers if all its
// numbers happen to be whole.) A number that is missing, not finite or not applicable is an empty field in CSV and null
// in JSON: never 0, "nan" or "inf".
//
// The lines of spectra.jsonl are in the order of their rows in signatures.csv. Each is written before its row, so no
// row lacks its spectrum. After a crash a line at the end may have no row: ignore it.
//
// What a reader may rely on:
//   - Within one schema_version the columns of each file, their order, names, types, units and meanings stay as they
//     are, as does everything said above.
//   - run.json may get new keys. The text columns `kind`, `fisher_kind`, `causes`, `sampler`, `verdict` and `status`
//   may get new
//     values. Ignore those that you do not know.
//   - Across versions, read columns by their name.
//   - This library reads the runs of every version up to its own, without the columns that their version lacks. It
//     refuses runs of later versions.
#pragma once

#include <array>
#include <cstdint>
#include <dds/causes.hpp>
#include <dds/llc.hpp>
#include <dds/log.hpp>
#include <dds/signature.hpp>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <variant>
#include <vector>

namespace dds::schema {

/// Raised by one whenever a column is added, removed, renamed or changes its type, unit or meaning. A run can be
/// resumed only by a library with the same version.
inline constexpr std::int64_t kVersion = 5;

/// Columns that only earlier versions have.
inline constexpr auto retired_columns = std::to_array<std::string_view>({"distance_r_hat", "distance_drift"});

/// Access to one member of a row. The member may be in a struct within the row.
template <class Row, class T>
struct Access {
  const T& (*of)(const Row&);  ///< for reading
  T& (*in)(Row&);              ///< for writing
};

namespace detail {
template <class Class, class T>
Class class_of(T Class::*);

template <class Object, class Member, class... Members>
constexpr auto& follow(Object& object, Member member, Members... members) {
  if constexpr (sizeof...(members) == 0) {
    return object.*member;
  } else {
    return follow(object.*member, members...);
  }
}
}  // namespace detail

/// `member<&LlcEstimate::lambda>`, or through nested structs `member<&Outer::inner, &Inner::field>`.
template <auto First, auto... Rest>
inline constexpr auto member = [] {
  using Row = decltype(detail::class_of(First));
  using T = std::remove_reference_t<decltype(detail::follow(std::declval<Row&>(), First, Rest...))>;
  return Access<Row, T>{[](const Row& row) -> const T& { return detail::follow(row, First, Rest...); },
                        [](Row& row) -> T& { return detail::follow(row, First, Rest...); }};
}();

/// The member that a column holds. How each type is written:
///   bool          true or false
///   enumerations  as to_string gives it
///   StatusSet     "ok", or names joined by '+'
///   causes        as to_string gives them: "layer_norm:1 relu_off:3[3,8-9]"
///   vector        "converged", or the failures of an LLC estimate joined by "; "
template <class Row>
using Field =
    std::variant<Access<Row, std::int64_t>, Access<Row, std::uint64_t>, Access<Row, double>, Access<Row, bool>,
                 Access<Row, std::string>, Access<Row, std::optional<double>>, Access<Row, std::optional<std::int64_t>>,
                 Access<Row, std::optional<bool>>, Access<Row, Side>, Access<Row, Source>,
                 Access<Row, std::optional<FisherKind>>, Access<Row, std::optional<RowMode>>,
                 Access<Row, std::optional<c10::ScalarType>>, Access<Row, StatusSet>, Access<Row, LlcKind>,
                 Access<Row, std::vector<std::string>>, Access<Row, std::vector<Cause>>>;

/// One column of a file.
template <class Row>
struct Column {
  std::string_view name;
  std::string_view unit;  ///< empty for text and pure numbers
  std::string_view meaning;
  Field<Row> field;
};

/// The columns of signatures.csv. Singular values sigma are those of the raw rows, in the rows' own unit. The
/// eigenvalues lambda = sigma^2 / n are kept as logarithms, since they can leave the range of double.
inline constexpr auto signature_columns = std::to_array<Column<Signature>>({
    {"step", "step", "training step that the reading belongs to", member<&Signature::step>},
    {"layer", "", "name as named_modules() gives it; a raw parameter's full name; name#2 for a further site",
     member<&Signature::layer>},
    {"kind", "", "what ran: Linear, Conv2d, Embedding, ...; Raw: a raw parameter; Tap", member<&Signature::kind>},
    {"side", "", "activation: the layer's output; input: its input; fisher: the per-sample gradient at its output",
     member<&Signature::side>},
    {"source", "", "step: inside a training step; read: a checkpoint read; one series never mixes them",
     member<&Signature::source>},
    {"fisher_kind", "", "fisher side: empirical, exact or sampled:K; one series never mixes them",
     member<&Signature::fisher_kind>},
    {"reduction", "", "fisher side: how gradients were put back to the per-sample loss: sum, mean:N or scale:S",
     member<&Signature::reduction>},
    {"row_mode", "", "sample: a row is a sample; expand: a row is a sample and a position",
     member<&Signature::row_mode>},
    {"dtype", "", "of the captured rows: Float, Double, Half or BFloat16", member<&Signature::dtype>},
    {"centred", "", "the rows are less their mean", member<&Signature::centred>},
    {"calls", "1", "times that the layer ran in this reading", member<&Signature::calls>},
    {"backwards", "1", "times that a backward pass came through it", member<&Signature::backwards>},
    {"rows", "1", "n, the divisor in lambda = sigma^2 / n: samples, or samples times positions",
     member<&Signature::rows>},
    {"width", "1", "d, the columns of the matrix", member<&Signature::width>},
    {"sigma_max", "rows' unit", "largest singular value", member<&Signature::sigma_max>},
    {"sigma_min", "rows' unit", "smallest of the min(n, d) singular values", member<&Signature::sigma_min>},
    {"sigma_min_plus", "rows' unit", "smallest singular value above the floor", member<&Signature::sigma_min_plus>},
    {"log10_lambda_min_plus", "log10 of rows' unit^2",
     "smallest positive eigenvalue, sigma_min_plus^2 / n: the rate observable",
     member<&Signature::log10_lambda_min_plus>},
    {"log10_trace", "log10 of rows' unit^2", "trace of (1/n) M^T M, the sum of the eigenvalues",
     member<&Signature::log10_trace>},
    {"logdet_plus", "nat",
     "sum of the natural logarithms of the positive eigenvalues, over `rank` of them: the volume observable",
     member<&Signature::logdet_plus>},
    {"rank", "1", "singular values above the floor", member<&Signature::rank>},
    {"fixed_rank", "1", "number of eigenvalues that logdet_fixed_rank is taken over, the same for the whole run",
     member<&Signature::fixed_rank>},
    {"logdet_fixed_rank", "nat", "sum of the natural logarithms of the first fixed_rank eigenvalues",
     member<&Signature::logdet_fixed_rank>},
    {"structural_bound", "1",
     "the largest rank that the network's operators and shapes and the probe allow; empty: not known",
     member<&Signature::structural_bound>},
    {"dead_directions", "1", "structural_bound - rank", member<&Signature::dead_directions>},
    {"dead_by_architecture", "1",
     "of width - rank: left out by the network's operators and shapes and the probe; with the next two it adds up",
     member<&Signature::dead_by_architecture>},
    {"dead_explained", "1", "of width - rank: those that the causes found in this network account for",
     member<&Signature::dead_explained>},
    {"dead_unexplained", "1", "of width - rank: the rest, for which no cause was found",
     member<&Signature::dead_unexplained>},
    {"causes", "",
     "cause:dimensions[units](layer), parted by spaces; empty: nothing is dead, or nothing was looked for",
     member<&Signature::causes>},
    {"born", "1",
     "dead dimensions that were alive at the series' last reading, matched by angle; empty without dead axes",
     member<&Signature::born>},
    {"revived", "1", "dimensions that were dead at the series' last reading and are alive; empty without dead axes",
     member<&Signature::revived>},
    {"floor", "rows' unit", "singular values at or below are rounding noise of `dtype`", member<&Signature::floor>},
    {"cancellation", "1", "fisher side: the factor in the floor for what cancels in the loss; empty: not known",
     member<&Signature::cancellation>},
    {"at_floor", "", "sigma_min is at or below the floor", member<&Signature::at_floor>},
    {"condition", "1", "sigma_max / sigma_min_plus", member<&Signature::condition>},
    {"effective_rank", "1", "exponential of the entropy of sigma / sum sigma (Roy and Vetterli 2007)",
     member<&Signature::effective_rank>},
    {"stable_rank", "1", "sum sigma^2 / sigma_max^2", member<&Signature::stable_rank>},
    {"status", "", "ok, or why the reading is not an ordinary one, names joined by '+'", member<&Signature::status>},
    {"seconds", "s", "time that the spectral work of this reading took", member<&Signature::seconds>},
});

/// The columns of llc.csv.
inline constexpr auto llc_columns = std::to_array<Column<LlcEstimate>>({
    {"step", "step", "training step that the estimate belongs to", member<&LlcEstimate::step>},
    {"kind", "", "plain: the published estimator; tilted: the gradient at w* taken out, not the published one",
     member<&LlcEstimate::kind>},
    {"lambda", "1", "localised learning coefficient lambda_hat(gamma, n beta)", member<&LlcEstimate::lambda>},
    {"standard_error", "1", "Monte Carlo error of lambda, baseline included", member<&LlcEstimate::standard_error>},
    {"low", "1", "lower end of the stated 95 % interval, with terms for gamma and the step size",
     member<&LlcEstimate::low>},
    {"high", "1", "upper end of it", member<&LlcEstimate::high>},
    {"verdict", "", "converged, or what failed with its number, the cause of the others first, joined by '; '",
     member<&LlcEstimate::failures>},
    {"sampler", "", "sgld, rmsprop_sgld, mala or averaged_noise",
     member<&LlcEstimate::settings, &LlcSettings::sampler>},
    {"r_hat", "1", "rank-normalised split R-hat of the loss over the chains",
     member<&LlcEstimate::diagnostics, &LlcDiagnostics::r_hat>},
    {"ess", "draws", "effective sample size of the loss, all chains together",
     member<&LlcEstimate::diagnostics, &LlcDiagnostics::ess>},
    {"acceptance", "1", "MALA: mean acceptance probability",
     member<&LlcEstimate::diagnostics, &LlcDiagnostics::acceptance>},
    {"discretisation", "1", "bias of the finite step, estimated along the chains and taken off lambda",
     member<&LlcEstimate::diagnostics, &LlcDiagnostics::discretisation>},
    {"drift", "standard errors", "Geweke: first fifth against last half of the draws",
     member<&LlcEstimate::diagnostics, &LlcDiagnostics::drift>},
    {"below_baseline", "1", "share of the draws whose loss is below that at w*",
     member<&LlcEstimate::diagnostics, &LlcDiagnostics::below_baseline>},
    {"distance", "weights' unit", "root mean square of |w - w*| over the draws",
     member<&LlcEstimate::diagnostics, &LlcDiagnostics::distance>},
    {"relative_distance", "1", "distance / |w*|",
     member<&LlcEstimate::diagnostics, &LlcDiagnostics::relative_distance>},
    {"distance_ratio", "1", "E|w - w*|^2 over what it must be in the stationary state",
     member<&LlcEstimate::diagnostics, &LlcDiagnostics::distance_ratio>},
    {"distance_ratio_error", "1", "Monte Carlo error of distance_ratio",
     member<&LlcEstimate::diagnostics, &LlcDiagnostics::distance_ratio_error>},
    {"descent", "1",
     "upper bound of (n beta)^2 g^T (n beta H + gamma)^-1 g, g and H the gradient and Hessian of L_n at w*: small "
     "against lambda where w* is a minimum",
     member<&LlcEstimate::diagnostics, &LlcDiagnostics::descent>},
    {"negative_curvature", "loss / weights' unit^2", "most negative curvature of L_n at w* that was found; 0: none",
     member<&LlcEstimate::diagnostics, &LlcDiagnostics::negative_curvature>},
    {"saddle", "1", "what directions of negative curvature at w* take off lambda",
     member<&LlcEstimate::diagnostics, &LlcDiagnostics::saddle>},
    {"rounding", "1", "root mean square error of n beta (L - L(w*)) by the rounding of the dtype",
     member<&LlcEstimate::diagnostics, &LlcDiagnostics::rounding>},
    {"elsewhere", "1", "what lambda would gain by regions where no chain was",
     member<&LlcEstimate::diagnostics, &LlcDiagnostics::elsewhere>},
    {"settled_distance", "weights' unit", "distance of w* from the checkpoint, where the estimate settled first",
     member<&LlcEstimate::diagnostics, &LlcDiagnostics::settled_distance>},
    {"batch_noise", "1",
     "what the noise of mini-batches adds to lambda at most, as a share of it, measured where the chains ended; empty "
     "for "
     "full batches",
     member<&LlcEstimate::diagnostics, &LlcDiagnostics::batch_noise>},
    {"step_change", "1", "lambda at half the step size less lambda",
     member<&LlcEstimate::diagnostics, &LlcDiagnostics::step_change>},
    {"step_change_error", "1", "Monte Carlo error of step_change",
     member<&LlcEstimate::diagnostics, &LlcDiagnostics::step_change_error>},
    {"richardson", "1", "lambda extrapolated to step size 0",
     member<&LlcEstimate::diagnostics, &LlcDiagnostics::richardson>},
    {"gamma_change", "1", "lambda less lambda at four times gamma, where gamma was searched for",
     member<&LlcEstimate::diagnostics, &LlcDiagnostics::gamma_change>},
    {"gamma_change_error", "1", "Monte Carlo error of gamma_change",
     member<&LlcEstimate::diagnostics, &LlcDiagnostics::gamma_change_error>},
    {"gamma_bias", "1", "bias that gamma still causes, by gamma_change or by gamma_response, whichever has less noise",
     member<&LlcEstimate::diagnostics, &LlcDiagnostics::gamma_bias>},
    {"gamma_response", "1", "what halving gamma would add to lambda, by linear response",
     member<&LlcEstimate::diagnostics, &LlcDiagnostics::gamma_response>},
    {"gamma_response_error", "1", "Monte Carlo error of gamma_response",
     member<&LlcEstimate::diagnostics, &LlcDiagnostics::gamma_response_error>},
    {"wbic", "nat", "n E[L_n(w)] at beta = 1 / log n, localised (Watanabe 2013)", member<&LlcEstimate::wbic>},
    {"functional_variance", "nat^2", "sum over the samples of the variance of log p over the draws",
     member<&LlcEstimate::functional_variance>},
    {"singular_fluctuation", "1", "n_beta / (2 n) times functional_variance",
     member<&LlcEstimate::singular_fluctuation>},
    {"n_beta", "1 / loss", "inverse temperature times n", member<&LlcEstimate::settings, &LlcSettings::n_beta>},
    {"gamma", "1 / weights' unit^2", "localisation", member<&LlcEstimate::settings, &LlcSettings::gamma>},
    {"resolution", "loss / weights' unit^2", "gamma / n_beta: the curvature below which a direction hardly counts",
     member<&LlcEstimate::settings, &LlcSettings::resolution>},
    {"step_size", "weights' unit^2", "eps of the sampler", member<&LlcEstimate::settings, &LlcSettings::step_size>},
    {"relaxation", "steps", "2 / (eps gamma): time of a direction held by the localisation alone",
     member<&LlcEstimate::settings, &LlcSettings::relaxation>},
    {"mu_max", "loss / weights' unit^2", "largest curvature of L_n that was found; rmsprop_sgld: of L_n in w / sqrt(P)",
     member<&LlcEstimate::diagnostics, &LlcDiagnostics::mu_max>},
    {"baseline", "loss", "L_n(w*) over the chain's data", member<&LlcEstimate::diagnostics, &LlcDiagnostics::baseline>},
    {"samples", "1", "n", member<&LlcEstimate::settings, &LlcSettings::samples>},
    {"parameters", "1", "dimension of the chain", member<&LlcEstimate::settings, &LlcSettings::parameters>},
    {"batch_size", "1", "samples per step of the chain", member<&LlcEstimate::settings, &LlcSettings::batch_size>},
    {"chains", "1", "chains, each from w* with its own draws", member<&LlcEstimate::settings, &LlcSettings::chains>},
    {"diverged", "1", "chains that left the finite numbers",
     member<&LlcEstimate::diagnostics, &LlcDiagnostics::diverged>},
    {"draws", "1", "draws kept per chain", member<&LlcEstimate::settings, &LlcSettings::draws>},
    {"burn_in", "1", "steps per chain before the first draw that counts",
     member<&LlcEstimate::settings, &LlcSettings::burn_in>},
    {"gradients", "1", "forward and backward passes spent, calibration included", member<&LlcEstimate::gradients>},
    {"seed", "", "seed of the draws", member<&LlcEstimate::settings, &LlcSettings::seed>},
    {"replicas", "", "how the chains got their models: clone, factory or in turn",
     member<&LlcEstimate::settings, &LlcSettings::replicas>},
    {"seconds", "s", "wall time of the estimate", member<&LlcEstimate::seconds>},
});

/// The columns of metrics.csv.
inline constexpr auto metric_columns = std::to_array<Column<Metric>>({
    {"step", "step", "training step", member<&Metric::step>},
    {"name", "", "the user's own name", member<&Metric::name>},
    {"value", "", "its value; empty where it was not finite", member<&Metric::value>},
});

/// The columns of the file that holds rows of this type.
template <class Row>
constexpr std::span<const Column<Row>> columns_of();
template <>
constexpr std::span<const Column<Signature>> columns_of<Signature>() {
  return signature_columns;
}
template <>
constexpr std::span<const Column<LlcEstimate>> columns_of<LlcEstimate>() {
  return llc_columns;
}
template <>
constexpr std::span<const Column<Metric>> columns_of<Metric>() {
  return metric_columns;
}

}  // namespace dds::schema
