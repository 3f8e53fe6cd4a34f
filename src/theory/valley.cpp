#include "src/theory/valley.hpp"

#include <ATen/ops/zeros_like.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <utility>

#include "src/theory/least_squares.hpp"

namespace dds {
namespace {

constexpr double kClearlyBelow = 0.9;  // of K on the line
constexpr double kLeastPower = 1.25, kMostPower = 8;
constexpr int kRays = 3;
constexpr std::int64_t kStartSteps = 12;  // of a descent from a start: what it finds is descended from again
constexpr double kChange = 0.3;           // of K on the line: this far off, other terms matter
constexpr double kShortest = 1e-5;        // of the radius: a start is no nearer to the line
constexpr double kSame = 0.05;            // of |v|: two minima nearer to each other are one
constexpr std::size_t kMostCurves = 3;
constexpr std::size_t kSoon = 4;       // points inwards: a tangent curve has left the rim of the cone by then
constexpr std::ptrdiff_t kFewCut = 2;  // points that the rim cuts off, where half of all can tell an angle
constexpr std::size_t kLeastTold = 3;  // points of one side that tell an angle
constexpr double kTangent = 1.3;   // |v| ~ |t|^p with p above this: the curve of the minimisers is tangent to the line
constexpr double kVisible = 1e-9;  // of |t|: a shorter v is none
constexpr double kAtRim = 0.98;    // of the radius: the cone cuts the curve off

/// Where a search beside the line starts, on a ray.
enum class Length {
  Natural,  ///< the shortest at which K is no longer what it is on the line: where the lowest points are at
            ///< |v| ~ |t|^p, so is this length
  Far,      ///< a good part of the radius
};

/// Empty if the natural length is near the other one.
std::optional<double> start_length(const Complement& complement, const at::Tensor& base, const at::Tensor& ray,
                                   double straight, double radius, Length kind) {
  const double far = 0.3 * radius;
  if (kind == Length::Far) return far;
  double length = far;
  for (double shorter = far; shorter > kShortest * radius; shorter /= 3) {
    if (std::abs(complement.value(base.add(ray.mul(shorter))) - straight) < kChange * std::abs(straight)) break;
    length = shorter;
  }
  return length < far / 4 ? std::optional(length) : std::nullopt;
}

/// Points beside `base` that are clearly lower, the nearest first.
std::vector<at::Tensor> lower_beside(const Complement& complement, const Flat& flat, const Line& line,
                                     const at::Tensor& base, Length kind, const MinimumOptions& options) {
  const double straight = complement.value(base);
  std::vector<std::pair<double, at::Tensor>> found;
  for (const at::Tensor& ray : flat.rays(kRays, line.direction)) {
    for (const double sign : {1.0, -1.0}) {
      const at::Tensor way = ray.mul(sign);
      const auto length = start_length(complement, base, way, straight, options.radius, kind);
      if (!length) continue;
      const auto [lowest, v] = lowest_from(complement, base, way.mul(*length), options);
      if (!(lowest < kClearlyBelow * straight)) continue;
      const double distance = v.norm().item<double>();
      const bool known = std::any_of(found.begin(), found.end(), [&, &place = v](const auto& other) {
        return other.second.sub(place).norm().template item<double>() < kSame * distance;
      });
      if (!known) found.emplace_back(distance, v);
    }
  }
  std::sort(found.begin(), found.end(), [](const auto& a, const auto& b) { return a.first < b.first; });
  std::vector<at::Tensor> result;
  for (auto& [distance, v] : found) result.push_back(std::move(v));
  return result;
}

/// The curve from the point where the valley starts; empty if it goes off at an angle.
std::optional<Curve> curve_from(Valley valley, const OrderOptions& options, double floor, double sign,
                                const std::vector<double>& distances) {
  std::vector<OrderPoint> points;
  for (std::size_t i = 0; i < distances.size(); ++i) {
    points.push_back(valley.at(sign * distances[i]));
    if (points.back().departure == 0) return std::nullopt;
    if (i == kSoon && is_cut_off(points.back(), options)) return std::nullopt;
    const auto cut_off = std::count_if(points.begin(), points.end(),
                                       [&](const OrderPoint& point) { return is_cut_off(point, options); });
    const bool judged =
        (i == distances.size() / 2 && cut_off <= kFewCut) || i + 1 == distances.size() || (i == kSoon && cut_off == 0);
    if (judged && !is_tangent(points, options, floor, kLeastTold)) return std::nullopt;
  }
  return Curve{std::move(points), std::move(valley)};
}

}  // namespace

bool is_cut_off(const OrderPoint& point, const OrderOptions& options) {
  return point.departure > kAtRim * options.cone() * std::abs(point.t);
}

bool is_tangent(const std::vector<OrderPoint>& points, const OrderOptions& options, double floor, std::size_t least) {
  std::vector<double> log_t, log_v;
  std::size_t visible = 0;
  for (const OrderPoint& point : points) {
    if (!(point.straight > kGauge * floor)) continue;
    ++visible;
    if (!(point.departure > kVisible * std::abs(point.t)) || is_cut_off(point, options)) continue;
    log_t.push_back(std::log(std::abs(point.t)));
    log_v.push_back(std::log(point.departure));
  }
  if (log_t.size() < least || 2 * log_t.size() < visible) return false;
  const CentredSums sums = centred_sums(log_t, log_v);
  return sums.xy > kTangent * sums.xx;
}

bool all_zero(const std::vector<OrderPoint>& points, Branch branch, const OrderOptions& options, double floor) {
  return std::all_of(points.begin(), points.end(), [&](const OrderPoint& point) {
    return point.*branch <= kGauge * floor || (branch == &OrderPoint::followed && is_cut_off(point, options));
  });
}

Valley::Valley(const Line& line, Landscape& landscape, const OrderOptions& options, double floor, double first)
    : line_(&line),
      landscape_(&landscape),
      options_(&options),
      floor_(floor),
      complement_(landscape, line.direction),
      v_(at::zeros_like(line.direction)),
      last_(first),
      beside_(false) {}

Valley::Valley(const Line& line, Landscape& landscape, const OrderOptions& options, double floor, double t,
               at::Tensor v)
    : Valley(line, landscape, options, floor, std::abs(t)) {
  v_ = std::move(v);
  beside_ = true;
}

OrderPoint Valley::at(double t) {
  const at::Tensor base = line_->at(t);
  const double distance = std::abs(t), ratio = distance / last_;
  const MinimumOptions options{options_->cone() * distance, options_->newton_steps(), floor_};
  OrderPoint point{t, landscape_->value(base), 0, 0};
  const at::Tensor start = v_.mul(std::pow(ratio, power_at(base, ratio)));
  const Minimum lowest = (beside_ ? lowest_from : lowest_beside)(complement_, base, start, options);
  point.followed = lowest.value;
  point.departure = lowest.v.norm().item<double>();
  v_ = lowest.v;
  last_ = distance;
  return point;
}

/// The power of |t| that takes the last minimiser to where K is lowest now. The first time it may be any.
double Valley::power_at(const at::Tensor& base, double ratio) {
  if (!beside_ || ratio == 1) return power_;
  double least = std::numeric_limits<double>::infinity();
  const auto try_at = [&](double power) {
    const double k = complement_.value(base.add(v_.mul(std::pow(ratio, power))));
    if (k < least) {
      least = k;
      power_ = power;
    }
  };
  const double known = power_;
  if (!scaled_) {
    for (double power = kLeastPower; power <= kMostPower; power += 0.75) try_at(power);
  } else {
    for (const double change : {0.0, -0.5, 0.5}) try_at(known + change);
  }
  for (const double change : {0.25, 0.12}) {
    const double middle = power_;
    try_at(middle - change);
    try_at(middle + change);
  }
  scaled_ = true;
  return power_;
}

std::optional<Curve> curve_beside(const Line& line, Landscape& landscape, const Flat& flat, const OrderOptions& options,
                                  double floor, double sign, const std::vector<double>& distances) {
  const double t = sign * distances.front();
  const Complement complement(landscape, line.direction);
  const std::int64_t steps = std::min(kStartSteps, options.newton_steps());
  const MinimumOptions minimum{options.cone() * distances.front(), steps, floor};
  std::optional<Curve> best;
  double least = std::numeric_limits<double>::infinity();
  for (const Length kind : {Length::Natural, Length::Far}) {
    std::size_t curves = 0;
    for (at::Tensor& v : lower_beside(complement, flat, line, line.at(t), kind, minimum)) {
      if (++curves > kMostCurves) break;
      std::optional<Curve> curve =
          curve_from(Valley(line, landscape, options, floor, t, std::move(v)), options, floor, sign, distances);
      if (!curve) continue;
      if (all_zero(curve->points, &OrderPoint::followed, options, floor)) return curve;
      double height = 0;
      for (const OrderPoint& point : curve->points) height += std::log(std::max(point.followed, floor));
      if (height >= least) continue;
      least = height;
      best = std::move(curve);
    }
  }
  return best;
}

std::optional<double> descent_beside(Landscape& landscape, const at::Tensor& point, const Flat& flat, double near,
                                     double far, double least) {
  constexpr std::int64_t kSteps = 6;
  for (const at::Tensor& ray : flat.rays(kRays)) {
    double lowest = std::numeric_limits<double>::infinity(), start = 0;
    for (const double length : {near, -near, far, -far}) {
      const double k = landscape.value(point.add(ray.mul(length)));
      if (k < -least) return k;
      if (std::abs(length) < far || k > lowest) continue;
      lowest = k;
      start = length;
    }
    const Complement complement(landscape, ray);
    const at::Tensor base = point.add(ray.mul(start));
    const double k = lowest_beside(complement, base, at::zeros_like(point), {3 * far, kSteps, -2 * least}).value;
    if (k < -least) return k;
  }
  return std::nullopt;
}

}  // namespace dds
