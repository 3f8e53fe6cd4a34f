#include <ATen/ops/expm1.h>
#include <ATen/ops/linalg_eigh.h>
#include <ATen/ops/linalg_solve.h>
#include <ATen/ops/log_softmax.h>
#include <ATen/ops/ones_like.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/where.h>
#include <ATen/ops/zeros.h>
#include <ATen/ops/zeros_like.h>
#include <c10/core/GradMode.h>
#include <fmt/format.h>
#include <fmt/ranges.h>
#include <torch/csrc/autograd/autograd.h>

#include <algorithm>
#include <cmath>
#include <dds/error.hpp>
#include <dds/order.hpp>
#include <limits>
#include <tuple>
#include <utility>

#include "src/model/divergence.hpp"
#include "src/theory/landscape.hpp"

namespace dds {
namespace {

constexpr double kGauge = 1e3;       // floors: K below is zero
constexpr double kRounding = 1e-12;  // of a gradient: what lies outside the direction is rounding of what lies along it
constexpr std::int64_t kFew = 16, kExact = 512;  // weights: between, a Newton step takes the whole Hessian
constexpr double kUsable = 1e6;                  // floors: above, rounding changes K by less than 0.2 %

double scalar_product(const at::Tensor& a, const at::Tensor& b) { return a.dot(b).item<double>(); }

/// The landscape of a function of one vector.
class ExcessLandscape final : public Landscape {
 public:
  explicit ExcessLandscape(const Excess& excess) : excess_(excess) {}

  double value(const at::Tensor& weights) override { return checked(weights).item<double>(); }

  at::Tensor gradient(const at::Tensor& weights) override {
    const at::AutoGradMode grad(true);
    weights_ = weights.detach().clone().requires_grad_();
    const at::Tensor k = checked(weights_);
    if (!k.requires_grad()) throw InvalidArgument("direction_order: K does not depend on the weights by autograd");
    gradient_ = torch::autograd::grad({k}, {weights_}, {}, /*retain_graph=*/true, /*create_graph=*/true,
                                      /*allow_unused=*/true)[0];
    if (!gradient_.defined()) gradient_ = at::zeros_like(weights_);
    return gradient_.detach();
  }

  at::Tensor curvature(const at::Tensor& v) override {
    if (!gradient_.requires_grad()) return at::zeros_like(v);
    const at::Tensor product = torch::autograd::grad({gradient_}, {weights_}, {v}, /*retain_graph=*/true,
                                                     /*create_graph=*/false, /*allow_unused=*/true)[0];
    return product.defined() ? product.detach() : at::zeros_like(v);
  }

 private:
  at::Tensor checked(const at::Tensor& weights) const {
    at::Tensor k = excess_(weights);
    if (!k.defined() || k.dim() != 0 || k.scalar_type() != at::kDouble) {
      throw InvalidArgument(fmt::format(
          "direction_order: K is {}, expected a 0-d Double tensor",
          k.defined() ? fmt::format("{} of {} dimensions", c10::toString(k.scalar_type()), k.dim()) : "undefined"));
    }
    return k;
  }

  const Excess& excess_;
  at::Tensor weights_, gradient_;
};

/// K, its gradient and its Hessian's products, over the complement of a direction.
class Complement {
 public:
  Complement(Landscape& landscape, at::Tensor direction) : landscape_(landscape), direction_(std::move(direction)) {}

  double value(const at::Tensor& weights) const { return landscape_.value(weights); }
  /// Of K itself: what of it lies along the direction tells how much of the rest is rounding.
  at::Tensor whole_gradient(const at::Tensor& weights) const { return landscape_.gradient(weights); }
  at::Tensor curvature(const at::Tensor& v) const { return projected(landscape_.curvature(v)); }

  at::Tensor projected(const at::Tensor& v) const {
    const at::Tensor once = v.sub(direction_.mul(scalar_product(v, direction_)));
    return once.sub(direction_.mul(scalar_product(once, direction_)));  // once more for what rounding left
  }

 private:
  Landscape& landscape_;
  at::Tensor direction_;
};

/// The step that lowers the quadratic model most within `radius`, from the eigenvalues of the whole Hessian. Conjugate
/// gradients take as many products where it is as badly conditioned as a network's, and are less exact.
at::Tensor exact_step(const Complement& complement, const at::Tensor& gradient, double radius) {
  constexpr double kFlat = 1e-13;  // of the largest curvature: rounding
  const std::int64_t p = gradient.numel();
  at::Tensor hessian = at::zeros({p, p}, gradient.options());
  for (std::int64_t i = 0; i < p; ++i) {
    at::Tensor unit = at::zeros_like(gradient);
    unit[i] = 1;
    hessian.select(0, i).copy_(complement.curvature(complement.projected(unit)));
  }
  const auto [curvatures, basis] = at::linalg_eigh(hessian.add(hessian.t()).mul(0.5));
  const at::Tensor size = curvatures.abs(), slope = basis.t().mv(gradient), zero = at::zeros_like(slope);
  const at::Tensor bends = size.gt(size.max().mul(kFlat));
  const auto shifted = [&](double shift) { return at::where(bends, slope.div(size.add(shift)), zero).neg(); };
  at::Tensor step = shifted(0);
  double low = 0, high = slope.norm().item<double>() / radius;
  for (int i = 0; i < 50 && step.norm().item<double>() > radius; ++i) {
    // The boundary lies between; the last step is from its inner side.
    const double middle = 0.5 * (low + high);
    (shifted(middle).norm().item<double>() > radius ? low : high) = middle;
    if (i == 49 || high - low < 1e-3 * high) step = shifted(high);
  }
  return basis.mv(step);
}

/// Steihaug's conjugate gradients: a step that lowers the quadratic model within `radius`.
at::Tensor newton_step(const Complement& complement, const at::Tensor& gradient, double radius) {
  at::Tensor step = at::zeros_like(gradient), residual = gradient.neg(), search = residual;
  double rr = scalar_product(residual, residual);
  const double tolerance = 1e-24 * rr;
  const std::int64_t most = std::min<std::int64_t>(2 * gradient.numel(), 200);
  const auto to_boundary = [&] {
    const double a = scalar_product(search, search), b = scalar_product(step, search),
                 c = scalar_product(step, step) - radius * radius;
    return step.add(search.mul((-b + std::sqrt(std::max(0.0, b * b - a * c))) / a));
  };
  for (std::int64_t i = 0; i < most && rr > tolerance; ++i) {
    const at::Tensor curved = complement.curvature(search);
    const double bend = scalar_product(search, curved);
    // Curvature that is rounding beside the rest belongs to flat directions, along which there is nothing to gain.
    if (!(bend > 0)) return i == 0 ? to_boundary() : step;
    const double alpha = rr / bend;
    const at::Tensor next = step.add(search.mul(alpha));
    if (scalar_product(next, next) > radius * radius) return to_boundary();
    step = next;
    residual = residual.sub(curved.mul(alpha));
    const double next_rr = scalar_product(residual, residual);
    search = residual.add(search.mul(next_rr / rr));
    rr = next_rr;
  }
  return step;
}

/// The lowest point of K(base + v) over v in the complement with |v| <= limit, from v = start; returns K and |v|.
std::pair<double, at::Tensor> lowest(const Complement& complement, const at::Tensor& base, at::Tensor v, double limit,
                                     std::int64_t steps, double floor) {
  double value = complement.value(base.add(v));
  const double straight = complement.value(base);
  if (!(value <= straight)) {
    value = straight;
    v = at::zeros_like(v);
  }
  double radius = limit;
  for (std::int64_t i = 0; i < steps && value > floor && radius > 1e-14 * limit; ++i) {
    const at::Tensor whole_gradient = complement.whole_gradient(base.add(v));
    const at::Tensor gradient = complement.projected(whole_gradient);
    const double outside = scalar_product(gradient, gradient), whole = scalar_product(whole_gradient, whole_gradient);
    if (outside <= kRounding * kRounding * whole) break;
    const at::Tensor step = gradient.numel() > kFew && gradient.numel() <= kExact
                                ? exact_step(complement, gradient, radius)
                                : newton_step(complement, gradient, radius);
    if (std::abs(scalar_product(gradient, step)) < 1e-7 * value) break;  // twice what a Newton step promises
    at::Tensor next = complement.projected(v.add(step));
    const double length = std::sqrt(scalar_product(next, next));
    if (length > limit) next = next.mul(limit / length);
    const double lower = complement.value(base.add(next));
    if (lower < value) {
      const bool stalled = lower > (1 - 1e-6) * value;
      v = next;
      value = lower;
      radius = std::min(limit, 2 * radius);
      if (stalled) break;
    } else {
      radius /= 8;
    }
  }
  return {value, v};
}

struct Fit {
  double order, standard_error, log_scale;
};

/// log K = a + 2 k log |t| + corrections, by least squares.
std::optional<Fit> fit_order(const std::vector<std::pair<double, double>>& points) {
  bool both = false;
  for (const auto& [t, k] : points) both |= (t > 0) != (points.front().first > 0);
  const std::int64_t columns = both ? 5 : 4;
  const std::int64_t n = std::ssize(points);
  if (n < columns + 2) return std::nullopt;
  double largest = 0;
  for (const auto& [t, k] : points) largest = std::max(largest, std::abs(t));
  std::vector<double> rows, values;
  for (const auto& [t, k] : points) {
    const double s = t / largest;
    rows.insert(rows.end(), {1.0, 2 * std::log(std::abs(t)), s, s * s});
    if (both) rows.push_back(t > 0 ? 1.0 : -1.0);
    values.push_back(std::log(k));
  }
  const at::Tensor a = at::tensor(rows, at::kDouble).reshape({n, columns}), y = at::tensor(values, at::kDouble);
  const at::Tensor normal = a.t().mm(a);
  const at::Tensor eye = at::zeros({columns}, a.options()).add(1).diag();
  const at::Tensor inverse = at::linalg_solve(normal, eye);
  const at::Tensor solution = inverse.mv(a.t().mv(y));
  const at::Tensor residual = y.sub(a.mv(solution));
  const double variance = scalar_product(residual, residual) / static_cast<double>(n - columns);
  return Fit{solution[1].item<double>(), std::sqrt(variance * inverse[1][1].item<double>()),
             solution[0].item<double>()};
}

std::vector<std::pair<double, double>> usable(const std::vector<OrderPoint>& points, double OrderPoint::*k,
                                              double above) {
  std::vector<std::pair<double, double>> result;
  for (const OrderPoint& point : points) {
    if (point.*k > above) result.emplace_back(point.t, point.*k);
  }
  return result;
}

/// The exponent p of |v| ~ |t|^p, if the minimisers leave the line visibly at all.
std::optional<double> departure_exponent(const std::vector<OrderPoint>& points) {
  double n = 0, sx = 0, sy = 0, sxx = 0, sxy = 0;
  for (const OrderPoint& point : points) {
    if (!(point.departure > 1e-9 * std::abs(point.t))) continue;
    const double x = std::log(std::abs(point.t)), y = std::log(point.departure);
    n += 1, sx += x, sy += y, sxx += x * x, sxy += x * y;
  }
  if (n < 5 || n < 0.5 * static_cast<double>(points.size())) return std::nullopt;
  return (n * sxy - sx * sy) / (n * sxx - sx * sx);
}

void check(const at::Tensor& point, const at::Tensor& direction, const OrderOptions& options) {
  const auto shape = [](const at::Tensor& t) {
    return t.defined() ? fmt::format("{} [{}]", c10::toString(t.scalar_type()), fmt::join(t.sizes().vec(), ", "))
                       : "undefined";
  };
  if (!point.defined() || point.dim() != 1 || point.scalar_type() != at::kDouble || !point.is_cpu() ||
      point.numel() < 1) {
    throw InvalidArgument(
        fmt::format("direction_order: point is {}, expected a Double vector on the CPU", shape(point)));
  }
  if (!direction.defined() || direction.sizes() != point.sizes() || direction.scalar_type() != at::kDouble) {
    throw InvalidArgument(
        fmt::format("direction_order: direction is {}, expected {} as the point", shape(direction), shape(point)));
  }
  const double length = direction.norm().item<double>();
  if (!(length > 0) || !std::isfinite(length)) {
    throw InvalidArgument(
        fmt::format("direction_order: the direction has length {}, expected a positive number", length));
  }
  if (!(options.t_min() > 0 && options.t_max() > options.t_min()) || options.points() < 6) {
    throw InvalidArgument(
        fmt::format("direction_order: {} points from {} to {}, expected at least 6 from 0 < t_min < t_max",
                    options.points(), options.t_min(), options.t_max()));
  }
  if (!(options.cone() > 0 && options.cone() <= 1) || options.floor() < 0 || options.newton_steps() < 1) {
    throw InvalidArgument(fmt::format(
        "direction_order: cone is {}, floor {} and newton_steps {}, expected 0 < cone <= 1, floor >= 0 and at "
        "least 1 step",
        options.cone(), options.floor(), options.newton_steps()));
  }
}

/// What K makes of weights that are off by one rounding: K is quadratic in most directions, or flatter.
double rounding_floor(Landscape& landscape, const at::Tensor& point, double t) {
  const double unit = std::numeric_limits<double>::epsilon() / 2 * std::max(1.0, point.norm().item<double>());
  at::Tensor probe = at::zeros_like(point);
  double largest = 0;
  // A fixed spread of signs rather than a generator of the caller's: three Walsh-like patterns.
  for (const int stride : {1, 2, 5}) {
    double* const entries = probe.data_ptr<double>();
    for (std::int64_t i = 0; i < probe.numel(); ++i) entries[i] = (i / stride) % 2 == 0 ? 1 : -1;
    const double length = probe.norm().item<double>();
    largest = std::max(largest, std::abs(landscape.value(point.add(probe.mul(t / length)))) / (t * t));
  }
  return 100 * static_cast<double>(point.numel()) * largest * unit * unit;
}

}  // namespace

std::string_view to_string(DirectionKind kind) {
  switch (kind) {
    case DirectionKind::Regular:
      return "regular";
    case DirectionKind::Dead:
      return "dead";
    case DirectionKind::Gauge:
      return "gauge";
    case DirectionKind::Undecided:
      return "undecided";
    case DirectionKind::NotAMinimum:
      return "not_a_minimum";
  }
  throw InvalidArgument(fmt::format("to_string: {} is no DirectionKind", static_cast<int>(kind)));
}

Excess gaussian_excess(std::function<at::Tensor(const at::Tensor&)> output, const at::Tensor& point, double sigma) {
  if (!(sigma > 0) || !std::isfinite(sigma)) {
    throw InvalidArgument(fmt::format("gaussian_excess: sigma is {}, expected a positive number", sigma));
  }
  const at::NoGradGuard no_grad;
  const at::Tensor frozen = output(point).detach().clone();
  return [output = std::move(output), frozen, sigma](const at::Tensor& weights) {
    const at::Tensor difference = output(weights).sub(frozen);
    return difference.mul(difference).sum().mul(1 / (2 * sigma * sigma * static_cast<double>(frozen.size(0))));
  };
}

Excess categorical_excess(std::function<at::Tensor(const at::Tensor&)> output, const at::Tensor& point) {
  const at::NoGradGuard no_grad;
  const at::Tensor frozen = at::log_softmax(output(point), -1).detach().clone();
  return [output = std::move(output), frozen](const at::Tensor& weights) {
    const at::Tensor terms = divergence_terms(frozen, at::log_softmax(output(weights), -1));
    return terms.sum().div(static_cast<double>(frozen.size(0)));
  };
}

DirectionOrder direction_order(const Excess& excess, const at::Tensor& point, const at::Tensor& direction,
                               const OrderOptions& options) {
  ExcessLandscape landscape(excess);
  return direction_order(landscape, point, direction, options);
}

namespace {

/// Fits the order of what counts, with its interval. False if too few points are clear of the floor.
bool fit_result(DirectionOrder& result, double OrderPoint::*counts, const OrderOptions& options) {
  const auto all = usable(result.points, counts, kUsable * result.floor);
  auto central = all;
  const double without = options.t_max() * std::pow(options.t_min() / options.t_max(), 1.0 / 3);
  std::erase_if(central, [&](const auto& p) { return std::abs(p.first) > without; });
  const auto fit = fit_order(all), near = fit_order(central);
  if (!fit || !near) return false;
  const double half = std::hypot(2.2 * fit->standard_error, fit->order - near->order);
  result.order = fit->order;
  result.low = fit->order - half;
  result.high = fit->order + half;
  result.log_scale = fit->log_scale;
  return true;
}

}  // namespace

DirectionOrder direction_order(Landscape& landscape, const at::Tensor& point, const at::Tensor& direction,
                               const OrderOptions& options) {
  check(point, direction, options);
  const at::NoGradGuard no_grad;
  const at::Tensor u = direction.detach().div(direction.norm());
  const Complement complement(landscape, u);
  DirectionOrder result;
  const double at_point = landscape.value(point.detach());
  result.floor = options.floor() > 0 ? options.floor()
                                     : std::max(rounding_floor(landscape, point.detach(), options.t_min()),
                                                std::numeric_limits<double>::min());
  if (!(std::abs(at_point) <= kGauge * result.floor)) {
    result.kind = DirectionKind::NotAMinimum;
    result.reason =
        fmt::format("K is {:.3g} at the point, expected 0 up to its rounding floor {:.3g}", at_point, result.floor);
    return result;
  }

  // A line along which K is quadratic is regular whatever surrounds it: what is tangent to it changes no t^2.
  for (const double sign : {-1.0, 1.0}) {
    for (std::int64_t i = 0; i < options.points(); ++i) {
      const double share = static_cast<double>(i) / static_cast<double>(options.points() - 1);
      const double t = sign * options.t_min() * std::pow(options.t_max() / options.t_min(), share);
      const double k = landscape.value(point.detach().add(u.mul(t)));
      result.points.push_back({t, k, k, 0});
    }
  }
  if (fit_result(result, &OrderPoint::straight, options) && std::abs(*result.order - 1) < 0.02 &&
      *result.high - *result.order < 0.05) {
    std::sort(result.points.begin(), result.points.end(),
              [](const OrderPoint& a, const OrderPoint& b) { return a.t < b.t; });
    result.straight_order = result.order;
    result.kind = DirectionKind::Regular;
    return result;
  }
  result.points.clear();
  result.order = result.low = result.high = result.log_scale = std::nullopt;

  // From the smallest t outwards on either side: the minimiser of the last t, scaled as a parabola is, starts the next.
  for (const double sign : {-1.0, 1.0}) {
    at::Tensor v = at::zeros_like(u);
    double last = options.t_min();
    for (std::int64_t i = 0; i < options.points(); ++i) {
      const double share = static_cast<double>(i) / static_cast<double>(options.points() - 1);
      const double t = options.t_min() * std::pow(options.t_max() / options.t_min(), share);
      const at::Tensor base = point.detach().add(u.mul(sign * t));
      OrderPoint one{sign * t, landscape.value(base), 0, 0};
      const double ratio = t / last;
      std::tie(one.followed, v) =
          lowest(complement, base, v.mul(ratio * ratio), options.cone() * t, options.newton_steps(), result.floor);
      one.departure = v.norm().item<double>();
      last = t;
      if (!std::isfinite(one.straight) || std::min(one.straight, one.followed) < -kGauge * result.floor) {
        result.kind = DirectionKind::NotAMinimum;
        result.reason =
            fmt::format("K is {:.3g} at t = {:.3g}, expected a number of at least 0",
                        std::isfinite(one.straight) ? std::min(one.straight, one.followed) : one.straight, sign * t);
        return result;
      }
      result.points.push_back(one);
    }
  }
  std::sort(result.points.begin(), result.points.end(),
            [](const OrderPoint& a, const OrderPoint& b) { return a.t < b.t; });

  const std::optional<double> exponent = departure_exponent(result.points);
  result.followed = exponent && *exponent > 1.3;
  double OrderPoint::*const counts = result.followed ? &OrderPoint::followed : &OrderPoint::straight;
  if (const auto straight = fit_order(usable(result.points, &OrderPoint::straight, kUsable * result.floor))) {
    result.straight_order = straight->order;
  }
  if (std::all_of(result.points.begin(), result.points.end(),
                  [&](const OrderPoint& p) { return p.*counts <= kGauge * result.floor; })) {
    result.kind = DirectionKind::Gauge;
    return result;
  }
  if (!fit_result(result, counts, options)) {
    result.reason =
        fmt::format("K stands clear of its rounding floor {:.3g} at too few of {} points: take a larger t_max",
                    result.floor, result.points.size());
    return result;
  }
  const double half = *result.high - *result.order;
  const double integer = std::round(*result.order);
  if (half > 0.25 || std::abs(*result.order - integer) > std::max(half, 0.02) || integer < 1) {
    result.reason = fmt::format("the order {:.3f} +- {:.3f} tells no integer", *result.order, half);
    return result;
  }
  result.kind = integer == 1 ? DirectionKind::Regular : DirectionKind::Dead;
  return result;
}

}  // namespace dds
