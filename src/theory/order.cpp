#include <ATen/ops/linalg_solve.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/zeros.h>
#include <ATen/ops/zeros_like.h>
#include <c10/core/GradMode.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <dds/order.hpp>
#include <limits>
#include <utility>

#include "src/base/check.hpp"
#include "src/theory/landscape.hpp"
#include "src/theory/least_squares.hpp"
#include "src/theory/valley.hpp"

namespace dds {
namespace {

constexpr double kUsable = 1e6;      // floors: above, rounding changes K by less than 0.2 %
constexpr double kQuantile = 2.2;    // Student's, 95 %, at 11 degrees of freedom
constexpr double kUnit = 0x1p-53;    // one rounding of a number near 1
constexpr double kWidest = 0.25;     // half of the widest interval that decides an order
constexpr double kNarrowest = 0.02;  // and of the narrowest: a fit has systematic errors too

void check_arguments(const at::Tensor& point, const at::Tensor& direction, const OrderOptions& options) {
  constexpr auto kWho = "direction_order";
  check(
      point.defined() && point.dim() == 1 && point.scalar_type() == at::kDouble && point.is_cpu() && point.numel() >= 1,
      kWho, "point", point, "a Double vector on the CPU");
  check(direction.defined() && direction.sizes() == point.sizes() && direction.scalar_type() == at::kDouble, kWho,
        "direction", direction, "{}, as the point", text_of(point));
  check_positive(kWho, "the length of the direction", direction.norm().item<double>());
  check(options.t_min() > 0 && options.t_min() < options.t_max(), kWho, "t_min", options.t_min(),
        "above 0 and below t_max, which is {}", options.t_max());
  check_at_least(kWho, "points", options.points(), 6);
  check(options.cone() > 0 && options.cone() <= 1, kWho, "cone", options.cone(), "above 0 and at most 1");
  check(!(options.floor() < 0), kWho, "floor", options.floor(), "at least 0");
  check_at_least(kWho, "newton_steps", options.newton_steps(), 1);
}

// ---- where K is looked at ----

/// t_min .. t_max, log-spaced.
std::vector<double> distances(const OrderOptions& options) {
  std::vector<double> result;
  for (std::int64_t i = 0; i < options.points(); ++i) {
    const double share = static_cast<double>(i) / static_cast<double>(options.points() - 1);
    result.push_back(options.t_min() * std::pow(options.t_max() / options.t_min(), share));
  }
  return result;
}

/// K on the line, from the smallest |t| outwards on either side.
std::vector<OrderPoint> points_on(const Line& line, Landscape& landscape, const OrderOptions& options) {
  std::vector<OrderPoint> points;
  for (const double sign : {-1.0, 1.0}) {
    for (const double distance : distances(options)) {
      const double t = sign * distance, k = landscape.value(line.at(t));
      points.push_back({t, k, k, 0});
    }
  }
  return points;
}

/// 100 p times what K makes of weights that are off by one rounding, since K is quadratic in most directions:
///   100 p max_z K(w* + t z)/t^2 (u |w*|)^2,   u = 2^-53, |w*| at least 1
/// z runs over five fixed unit vectors, so that no generator of the caller's is drawn from. Those whose entries are all
/// of one size may be zeros of K, as of (a^2 - b^2)^2.
double rounding_floor(Landscape& landscape, const at::Tensor& point, double t) {
  const double unit = kUnit * std::max(1.0, point.norm().item<double>());
  double largest = 0;
  const auto probe = [&](const at::Tensor& z) {
    largest = std::max(largest, std::abs(landscape.value(point.add(z.mul(t / z.norm().item<double>())))) / (t * t));
  };
  for (const int stride : {1, 2, 5}) {
    at::Tensor signs = at::zeros_like(point);
    double* const entries = signs.data_ptr<double>();
    for (std::int64_t i = 0; i < signs.numel(); ++i) entries[i] = (i / stride) % 2 == 0 ? 1 : -1;
    probe(signs);
  }
  for (const int i : {0, 1}) probe(uneven_vector(point, i));
  return 100 * static_cast<double>(point.numel()) * largest * unit * unit;
}

double floor_of(Landscape& landscape, const at::Tensor& point, const OrderOptions& options) {
  if (options.floor() > 0) return options.floor();
  return std::max(rounding_floor(landscape, point, options.t_min()), std::numeric_limits<double>::min());
}

// ---- what the values of K say ----

/// t and K of the points whose K is well above the floor.
std::vector<std::pair<double, double>> usable(const std::vector<OrderPoint>& points, Branch branch, double floor,
                                              const OrderOptions& options) {
  std::vector<std::pair<double, double>> result;
  for (const OrderPoint& point : points) {
    if (branch == &OrderPoint::followed && is_cut_off(point, options)) continue;
    if (point.*branch > kUsable * floor) result.emplace_back(point.t, point.*branch);
  }
  return result;
}

struct PowerLaw {
  double order, standard_error, log_scale;
};

/// log K = a + 2 k log |t| + b s + c s^2 (+ d sign t, if there are both signs), s = t / max |t|, by least squares: the
/// order k with its standard error, and a. Empty for fewer than two degrees of freedom.
std::optional<PowerLaw> fit_power(const std::vector<std::pair<double, double>>& points) {
  bool both = false;
  double largest = 0;
  for (const auto& [t, k] : points) {
    both |= (t > 0) != (points.front().first > 0);
    largest = std::max(largest, std::abs(t));
  }
  const std::int64_t columns = both ? 5 : 4;
  const std::int64_t n = std::ssize(points);
  if (n < columns + 2) return std::nullopt;
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
  const double variance = residual.dot(residual).item<double>() / static_cast<double>(n - columns);
  return PowerLaw{solution[1].item<double>(), std::sqrt(variance * inverse[1][1].item<double>()),
                  solution[0].item<double>()};
}

/// An order with its interval.
struct Order {
  double value, low, high, log_scale;
  double half() const { return high - value; }
};

/// The order along `branch`. Its interval joins that of the fit and the distance to the fit without the largest third
/// of log |t|, where corrections are largest. Empty if too few points are clear of the floor.
std::optional<Order> fit_order(const std::vector<OrderPoint>& points, Branch branch, double floor,
                               const OrderOptions& options) {
  const auto all = usable(points, branch, floor, options);
  auto central = all;
  const double largest = options.t_max() * std::pow(options.t_min() / options.t_max(), 1.0 / 3);
  std::erase_if(central, [&](const auto& point) { return std::abs(point.first) > largest; });
  const auto fit = fit_power(all), near = fit_power(central);
  if (!fit || !near) return std::nullopt;
  const double half = std::hypot(kQuantile * fit->standard_error, fit->order - near->order);
  return Order{fit->order, fit->order - half, fit->order + half, fit->log_scale};
}

void sort_by_t(std::vector<OrderPoint>& points) {
  std::sort(points.begin(), points.end(), [](const OrderPoint& a, const OrderPoint& b) { return a.t < b.t; });
}

void set_order(DirectionOrder& result, const Order& order) {
  result.order = order.value;
  result.low = order.low;
  result.high = order.high;
  result.log_scale = order.log_scale;
}

/// A line along which K is quadratic is regular whatever surrounds it: what is tangent to it changes no t^2.
bool is_regular(const Order& straight) { return std::abs(straight.value - 1) < 0.02 && straight.half() < 0.05; }

/// K where it is no value of a divergence from the frozen model; empty where it is one, up to rounding.
std::optional<double> not_a_divergence(const OrderPoint& point, double floor) {
  if (!std::isfinite(point.straight)) return point.straight;
  const double lowest = std::min(point.straight, point.followed);
  return lowest < -kGauge * floor ? std::optional(lowest) : std::nullopt;
}

/// The lowest points beside the line that its gradient leads to.
std::vector<OrderPoint> points_beside(const Line& line, Landscape& landscape, const OrderOptions& options,
                                      double floor) {
  std::vector<OrderPoint> points;
  const std::vector<double> outwards = distances(options);
  for (const double sign : {-1.0, 1.0}) {
    Valley valley(line, landscape, options, floor, outwards.front());
    for (const double distance : outwards) points.push_back(valley.at(sign * distance));
  }
  sort_by_t(points);
  return points;
}

/// Curves beside the sides t < 0 and t > 0.
using Curves = std::array<std::optional<Curve>, 2>;

/// Fills in the points. From the line outwards first: that is enough where the gradient leads to the curve. Where it
/// does not lead to zeros of K, starts beside the line may: the curves that these found come back.
Curves search_beside(DirectionOrder& result, const Line& line, Landscape& landscape, const Flat& flat,
                     const OrderOptions& options) {
  result.points = points_beside(line, landscape, options, result.floor);
  const bool tangent = result.followed = is_tangent(result.points, options, result.floor);
  Curves curves;
  if (all_zero(result.points, tangent ? &OrderPoint::followed : &OrderPoint::straight, options, result.floor))
    return curves;
  std::vector<double> inwards = distances(options);
  std::reverse(inwards.begin(), inwards.end());
  for (const double sign : {-1.0, 1.0}) {
    curves[sign > 0] = curve_beside(line, landscape, flat, options, result.floor, sign, inwards);
  }
  if (!curves[0] && !curves[1]) return curves;
  result.followed = true;
  for (OrderPoint& point : result.points) {
    // What the gradient led to may lie off at an angle.
    if (!tangent) point.followed = point.straight, point.departure = 0;
    const std::optional<Curve>& curve = curves[point.t > 0];
    if (!curve) continue;
    for (const OrderPoint& other : curve->points) {
      if (other.t == point.t && other.followed < point.followed) point = other;
    }
  }
  return curves;
}

/// A t at which K is zero though it is not at a smaller one or on the other side: a curve of zeros that ends at w*, or
/// that was lost on the way. Empty if there is none.
std::optional<double> zero_further_out(const std::vector<OrderPoint>& points, Branch branch,
                                       const OrderOptions& options, double floor) {
  double nearest = std::numeric_limits<double>::infinity();
  for (const auto& [t, k] : usable(points, branch, floor, options)) nearest = std::min(nearest, std::abs(t));
  for (const OrderPoint& point : points) {
    if (branch != &OrderPoint::followed || is_cut_off(point, options)) continue;
    if (point.followed <= kGauge * floor && std::abs(point.t) > nearest) return point.t;
  }
  return std::nullopt;
}

/// Gauge, order or neither, from the points on either side.
void decide(DirectionOrder& result, const OrderOptions& options) {
  const Branch branch = result.followed ? &OrderPoint::followed : &OrderPoint::straight;
  if (const auto straight = fit_power(usable(result.points, &OrderPoint::straight, result.floor, options))) {
    result.straight_order = straight->order;
  }
  if (all_zero(result.points, branch, options, result.floor)) {
    result.kind = DirectionKind::Gauge;
    return;
  }
  if (const auto t = zero_further_out(result.points, branch, options, result.floor)) {
    result.reason =
        fmt::format("K is zero beside t = {:.3g}, but not on a curve of zeros on both sides of the point", *t);
    return;
  }
  const auto order = fit_order(result.points, branch, result.floor, options);
  if (!order) {
    result.reason =
        fmt::format("K stands clear of its rounding floor {:.3g} at too few of {} points: take a larger t_max",
                    result.floor, result.points.size());
    return;
  }
  set_order(result, *order);
  const double half = order->half(), integer = std::round(order->value);
  if (half > kWidest || std::abs(order->value - integer) > std::max(half, kNarrowest) || integer < 1) {
    result.reason = fmt::format("the order {:.3f} +- {:.3f} tells no integer", order->value, half);
    return;
  }
  result.kind = integer == 1 ? DirectionKind::Regular : DirectionKind::Dead;
}

/// An order counts if it holds below the window too, down to where K is rounding. Otherwise the window is too far out:
/// w^4 + 1e-6 w^2 has order 2 from 3e-3 on, and order 1 at w = 0.
void check_window(DirectionOrder& result, const Line& line, Landscape& landscape, const OrderOptions& options,
                  Curves curves = {}) {
  if (result.kind != DirectionKind::Regular && result.kind != DirectionKind::Dead) return;
  constexpr int kSteps = 8;
  const double step = std::sqrt(0.1);
  for (const double sign : {-1.0, 1.0}) {
    std::optional<Curve>& curve = curves[sign > 0];
    Valley valley = curve ? std::move(curve->valley) : Valley(line, landscape, options, result.floor, options.t_min());
    double outer = 0;
    for (int i = 0; i <= kSteps; ++i) {
      const double t = sign * options.t_min() * std::pow(step, i);
      const double k = result.followed ? valley.at(t).followed : landscape.value(line.at(t));
      if (!(k > kUsable * result.floor)) break;
      const double local = i == 0 ? *result.order : std::log(k / outer) / (2 * std::log(step));
      if (std::abs(local - *result.order) > kWidest) {
        result.kind = DirectionKind::Undecided;
        result.reason = fmt::format(
            "the order depends on the window: {:.2f} from |t| = {:.3g} to {:.3g}, but {:.2f} near {:.2g}: take a "
            "smaller t_min and t_max",
            *result.order, options.t_min(), options.t_max(), local, std::abs(t));
        return;
      }
      outer = k;
    }
  }
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
  throw_invalid("to_string", "kind", std::to_string(static_cast<int>(kind)), "a DirectionKind");
}

DirectionOrder direction_order(Landscape& landscape, const at::Tensor& point, const at::Tensor& direction,
                               const OrderOptions& options) {
  check_arguments(point, direction, options);
  const at::NoGradGuard no_grad;
  const Line line{point.detach(), direction.detach().div(direction.norm())};
  DirectionOrder result;
  const auto not_a_minimum = [&](std::string reason) {
    result.kind = DirectionKind::NotAMinimum;
    result.reason = std::move(reason);
    return result;
  };
  const double at_point = landscape.value(line.point);
  result.floor = floor_of(landscape, line.point, options);
  if (!(std::abs(at_point) <= kGauge * result.floor)) {
    return not_a_minimum(
        fmt::format("K is {:.3g} at the point, expected 0 up to its rounding floor {:.3g}", at_point, result.floor));
  }

  const double zero = kGauge * result.floor, far = options.cone() * options.t_max();
  // A curvature that K does not show at t_min is none.
  const Flat flat(landscape, line.point, 2 * zero / (options.t_min() * options.t_min()));
  if (const auto k = descent_beside(landscape, line.point, flat, options.cone() * options.t_min(), far, zero)) {
    return not_a_minimum(fmt::format("K is {:.3g} beside the point, expected a number of at least 0", *k));
  }

  const std::vector<OrderPoint> straight = points_on(line, landscape, options);
  const auto straight_order = fit_order(straight, &OrderPoint::straight, result.floor, options);
  if (straight_order && is_regular(*straight_order)) {
    result.points = straight;
    sort_by_t(result.points);
    set_order(result, *straight_order);
    result.straight_order = result.order;
    result.kind = DirectionKind::Regular;
    check_window(result, line, landscape, options);
    return result;
  }

  Curves curves = search_beside(result, line, landscape, flat, options);
  for (const OrderPoint& point : result.points) {
    if (const auto k = not_a_divergence(point, result.floor)) {
      return not_a_minimum(fmt::format("K is {:.3g} at t = {:.3g}, expected a number of at least 0", *k, point.t));
    }
  }
  decide(result, options);
  check_window(result, line, landscape, options, std::move(curves));
  return result;
}

}  // namespace dds
