// The Gram matrices K_l of layers, and their spectra.
#include <ATen/TensorOperators.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/isfinite.h>
#include <ATen/ops/linalg_eigvalsh.h>
#include <ATen/ops/stack.h>
#include <ATen/ops/zeros.h>
#include <c10/core/GradMode.h>
#include <c10/util/Exception.h>

#include <cmath>
#include <dds/per_sample.hpp>
#include <dds/spectrum.hpp>
#include <dds/triangular.hpp>
#include <limits>
#include <map>
#include <utility>

#include "src/base/dtype.hpp"
#include "src/per_sample/gradients.hpp"
#include "src/spectral/solver.hpp"

namespace dds {

using hooks::real_rows;
using hooks::Terms;

namespace {

/// K_l, of which only the upper triangle is filled in.
at::Tensor upper_gram(const std::vector<Terms>& terms, std::int64_t max_bytes) {
  const std::int64_t n = terms.front().samples();
  at::Tensor sum = at::zeros({n, n}, real_rows(terms.front().entries(0, 0, max_bytes)).options());
  for (const Terms& parameter : terms) parameter.add_gram(sum, max_bytes);
  return sum.div_(static_cast<double>(n));
}

/// The eigenvalues of positive semi-definite matrices (b, k, k) given by their upper triangles, ascending, on the CPU.
/// A matrix on which the device's solver fails is solved by a Jacobi iteration, and marked.
at::Tensor eigenvalues(const at::Tensor& matrices, std::vector<bool>& retried) {
  retried.assign(static_cast<std::size_t>(matrices.size(0)), false);
  at::Tensor values;
  try {
    values = at::linalg_eigvalsh(matrices, "U").cpu().to(at::kDouble);
  } catch (const c10::OutOfMemoryError&) {
    throw;
  } catch (const c10::Error&) {
    values = at::zeros({matrices.size(0), matrices.size(1)}, at::kDouble).fill_(std::nan(""));
  }
  for (std::int64_t i = 0; i < matrices.size(0); ++i) {
    if (at::isfinite(values[i]).all().item<bool>()) continue;
    retried[static_cast<std::size_t>(i)] = true;
    const at::Tensor upper = matrices[i].cpu().to(at::kDouble).triu();
    const at::Tensor whole = upper + upper.triu(1).t();
    const at::Tensor scale = whole.abs().max().clamp_min(std::numeric_limits<double>::min());
    values[i].copy_(jacobi_svd(whole / scale, false).sigma.flip(0).mul(scale));
  }
  return values;
}

const std::vector<std::string>& parameters_of(const PerSampleGradients::Impl& impl, const std::string& layer) {
  return impl.layers()[impl.layer(layer)].parameters;
}

/// K_l or, where a layer has fewer parameters than samples, (1/n) sum_i g_i g_i^T, which has the same positive
/// eigenvalues. Only the upper triangle counts.
at::Tensor smaller_side(const PerSampleGradients::Impl& impl, const GramSpectrum& of) {
  const std::int64_t n = impl.samples(), max_bytes = impl.options().max_bytes();
  if (of.parameters >= n) return upper_gram(impl.terms_of(impl.layer(of.layer)), max_bytes);
  std::vector<at::Tensor> parts;
  for (const std::string& parameter : parameters_of(impl, of.layer)) {
    const Terms& terms = impl.parameter(parameter).terms;
    parts.push_back(real_rows(terms.entries(0, terms.numel(), max_bytes)));
  }
  const at::Tensor rows = at::cat(parts, 1);
  return rows.t().mm(rows).div_(static_cast<double>(n));
}

/// Fills in spectra from matrices of one size and type, in one solve.
void solve(const std::vector<at::Tensor>& matrices, const std::vector<GramSpectrum*>& spectra) {
  const at::Tensor stacked = at::stack(matrices);
  const at::Tensor finite = at::isfinite(stacked).flatten(1).all(1);
  const at::Tensor told = finite.cpu();
  const double eps = machine_epsilon(stacked.scalar_type(), "PerSampleGradients::spectra");
  std::vector<bool> retried;
  // A matrix that is not finite would fail the whole batch.
  const at::Tensor values = eigenvalues(stacked.masked_fill(finite.logical_not().reshape({-1, 1, 1}), 0), retried);
  for (std::size_t k = 0; k < spectra.size(); ++k) {
    GramSpectrum& spectrum = *spectra[k];
    if (!told[static_cast<std::int64_t>(k)].item<bool>()) {
      spectrum.status |= Status::NonFinite;
      continue;
    }
    if (retried[k]) spectrum.status |= Status::SolverRetried;
    const at::Tensor descending = values[static_cast<std::int64_t>(k)].flip(0).contiguous();
    const double* data = descending.data_ptr<double>();
    spectrum.eigenvalues.assign(data, data + descending.numel());
    spectrum.floor = 4 * std::sqrt(static_cast<double>(spectrum.samples)) * eps * spectrum.eigenvalues.front();
  }
}

/// GramRange::Gram.
void fill_from_grams(const PerSampleGradients::Impl& impl, std::vector<GramSpectrum>& spectra) {
  struct Batch {
    std::vector<at::Tensor> matrices;
    std::vector<GramSpectrum*> spectra;
  };
  std::map<std::pair<std::int64_t, at::ScalarType>, Batch> batches;
  for (GramSpectrum& spectrum : spectra) {
    const at::Tensor matrix = smaller_side(impl, spectrum);
    Batch& batch = batches[{matrix.size(0), matrix.scalar_type()}];
    batch.matrices.push_back(matrix);
    batch.spectra.push_back(&spectrum);
  }
  for (const auto& [shape, batch] : batches) solve(batch.matrices, batch.spectra);
}

/// GramRange::Rows.
void fill_from_rows(const PerSampleGradients::Impl& impl, GramSpectrum& spectrum) {
  const std::int64_t n = impl.samples();
  TriangularAccumulator rows(n);
  at::ScalarType type = at::kDouble;
  for (const std::string& parameter : parameters_of(impl, spectrum.layer)) {
    impl.parameter(parameter).terms.for_each_slab(impl.options().max_bytes(), [&](const at::Tensor& slab) {
      const at::Tensor real = real_rows(slab);
      type = real.scalar_type();
      rows.update(real.t());
    });
  }
  const Spectrum singular = read_spectrum(rows);
  if (!singular.finite) {
    spectrum.status |= Status::NonFinite;
    return;
  }
  if (singular.retried) spectrum.status |= Status::SolverRetried;
  for (const double sigma : singular.sigma) {
    const double unscaled = std::ldexp(sigma, singular.exponent);
    spectrum.eigenvalues.push_back(unscaled * unscaled / static_cast<double>(n));
  }
  const double largest = std::ldexp(singular.sigma.empty() ? 0 : singular.sigma.front(), singular.exponent);
  const double floor = noise_floor(type, n, spectrum.parameters, largest);
  spectrum.floor = floor * floor / static_cast<double>(n);
}

}  // namespace

at::Tensor PerSampleGradients::gram(const std::string& name) const {
  const at::NoGradGuard no_grad;
  const at::Tensor upper = upper_gram(impl_->terms_of(impl_->layer(name)), impl_->options().max_bytes());
  return upper.triu().add_(upper.triu(1).t());
}

std::vector<GramSpectrum> PerSampleGradients::spectra(GramRange range) const {
  std::vector<std::string> names;
  for (const PerSampleLayer& layer : layers()) {
    if (layer.has_gradients) names.push_back(layer.name);
  }
  return spectra(names, range);
}

std::vector<GramSpectrum> PerSampleGradients::spectra(const std::vector<std::string>& names, GramRange range) const {
  const at::NoGradGuard no_grad;
  std::vector<GramSpectrum> spectra;
  for (const std::string& name : names) {
    GramSpectrum& spectrum = spectra.emplace_back();
    spectrum.layer = name;
    spectrum.samples = samples();
    for (const std::string& parameter : parameters_of(*impl_, name)) {
      const auto& of = impl_->parameter(parameter);
      spectrum.parameters += (of.tensor.is_complex() ? 2 : 1) * of.terms.numel();
    }
  }
  if (range == GramRange::Rows) {
    for (GramSpectrum& spectrum : spectra) fill_from_rows(*impl_, spectrum);
  } else {
    fill_from_grams(*impl_, spectra);
  }
  return spectra;
}

}  // namespace dds
