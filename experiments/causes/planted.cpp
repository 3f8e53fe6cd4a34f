#include "experiments/causes/planted.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <set>

namespace dds::experiments {
namespace {

using Units = std::vector<std::int64_t>;
constexpr std::int64_t kWidth = 24, kClasses = 5, kInputs = 12, kHidden = 3;

/// 12 inputs, three hidden layers of 24, 5 classes.
struct Network : torch::nn::Module {
  explicit Network(bool tanh) : tanh(tanh) {
    for (std::int64_t i = 0; i <= kHidden; ++i) {
      layers.push_back(register_module(fmt::format("fc{}", i),
                                       torch::nn::Linear(i == 0 ? kInputs : kWidth, i == kHidden ? kClasses : kWidth)));
    }
    to(torch::kDouble);
  }
  at::Tensor forward(at::Tensor x) {
    outputs.clear();
    for (std::int64_t i = 0; i <= kHidden; ++i) {
      x = layers[static_cast<std::size_t>(i)](x);
      outputs.push_back(x.detach());
      if (i < kHidden) x = tanh ? torch::tanh(x) : torch::relu(x);
    }
    return x;
  }
  at::Tensor weight(std::int64_t layer) { return layers[static_cast<std::size_t>(layer)]->weight.data(); }
  at::Tensor bias(std::int64_t layer) { return layers[static_cast<std::size_t>(layer)]->bias.data(); }
  bool tanh;
  std::vector<torch::nn::Linear> layers;
  std::vector<at::Tensor> outputs;  ///< of the last forward
};

/// A cause that a reading should name.
struct Expected {
  std::int64_t layer;
  Side side;
  CauseKind kind;
  Units units;
};

class Planter {
 public:
  Planter(Network& net, at::Generator generator) : net_(net), generator_(std::move(generator)) {
    for (std::int64_t layer = 0; layer < kHidden; ++layer) {
      const at::Tensor order = torch::randperm(kWidth, generator_, torch::kLong);
      free_.emplace_back(order.data_ptr<std::int64_t>(), order.data_ptr<std::int64_t>() + kWidth);
    }
  }

  /// Plants the `kind`-th cause at a layer of its own choice, in units that have none yet.
  void plant(std::int64_t kind) {
    const std::int64_t count = 1 + draw(4);
    switch (kind) {
      case 0:
        return off(draw(kHidden), count);
      case 1:
        return unfed(1 + draw(kHidden - 1), count);
      case 2:
        return unread(draw(kHidden), count);
      case 3:
        return equal(1 + draw(kHidden - 1), count + 1);
      default:
        return combined(1 + draw(kHidden - 1));
    }
  }

  const std::vector<Expected>& expected() const { return expected_; }

 private:
  std::int64_t draw(std::int64_t below) {
    return torch::randint(below, {1}, generator_, torch::kLong).item<std::int64_t>();
  }
  Units take(std::int64_t layer, std::int64_t count) {
    Units& left = free_[static_cast<std::size_t>(layer)];
    Units units(left.end() - count, left.end());
    left.resize(left.size() - units.size());
    std::sort(units.begin(), units.end());
    return units;
  }

  /// Units whose function gives the same in every row: 0 of a ReLU, -1 of a tanh.
  void off(std::int64_t layer, std::int64_t count) {
    const Units units = take(layer, count);
    for (const std::int64_t unit : units) net_.bias(layer)[unit] = -1000;
    expected_.push_back({layer, Side::Fisher, net_.tanh ? CauseKind::Saturated : CauseKind::ReluOff, units});
  }
  /// No weights and no bias into units: zero outputs.
  void unfed(std::int64_t layer, std::int64_t count) {
    const Units units = take(layer, count);
    for (const std::int64_t unit : units) {
      net_.weight(layer)[unit].zero_();
      net_.bias(layer)[unit].zero_();
    }
    expected_.push_back({layer, Side::Activation, CauseKind::IncomingZero, units});
    if (!net_.tanh) expected_.push_back({layer, Side::Fisher, CauseKind::ReluOff, units});
  }
  void unread(std::int64_t layer, std::int64_t count) {
    const Units units = take(layer, count);
    for (const std::int64_t unit : units) net_.weight(layer + 1).select(1, unit).zero_();
    expected_.push_back({layer, Side::Fisher, CauseKind::OutgoingZero, units});
  }
  void equal(std::int64_t layer, std::int64_t count) {
    const Units units = take(layer, count);
    for (std::size_t i = 1; i < units.size(); ++i) {
      const double sign = draw(2) == 0 ? 1 : -1;
      net_.weight(layer)[units[i]] = sign * net_.weight(layer)[units[0]];
      net_.bias(layer)[units[i]] = sign * net_.bias(layer)[units[0]];
    }
    expected_.push_back({layer, Side::Activation, CauseKind::Duplicate, units});
  }
  void combined(std::int64_t layer) {
    const Units units = take(layer, 3);
    for (const at::Tensor& parameter : {net_.weight(layer), net_.bias(layer)}) {
      parameter[units[0]] = 1.5 * parameter[units[1]] - 0.7 * parameter[units[2]];
    }
    expected_.push_back({layer, Side::Activation, CauseKind::Combination, units});
  }

  Network& net_;
  at::Generator generator_;
  std::vector<Units> free_;
  std::vector<Expected> expected_;
};

std::string layer_of(std::int64_t layer) { return fmt::format("fc{}", layer); }

using Causes = std::map<std::tuple<std::string, Side, CauseKind>, std::set<std::int64_t>>;

/// Plants of one kind at one place are one cause.
Causes joined(const std::vector<Expected>& all) {
  Causes units;
  for (const Expected& one : all) {
    units[{layer_of(one.layer), one.side, one.kind}].insert(one.units.begin(), one.units.end());
  }
  return units;
}

/// Units of random weights may be off too, unplanted ones among them: their outputs say so.
void add_units_that_are_off(Network& net, Causes& causes) {
  for (std::int64_t layer = 0; layer < kHidden && !net.tanh; ++layer) {
    const at::Tensor most = net.outputs[static_cast<std::size_t>(layer)].amax(0);
    for (std::int64_t unit = 0; unit < kWidth; ++unit) {
      if (most[unit].item<double>() > 0) continue;
      causes[{layer_of(layer), Side::Fisher, CauseKind::ReluOff}].insert(unit);
      const auto unread = causes.find({layer_of(layer), Side::Fisher, CauseKind::OutgoingZero});
      if (unread == causes.end()) continue;
      unread->second.erase(unit);
      if (unread->second.empty()) causes.erase(unread);
    }
  }
}

}  // namespace

Verdict plant_and_read(std::int64_t kinds, std::int64_t number, at::Generator generator) {
  const torch::NoGradGuard no_grad;
  Network net(number % 2 == 1);
  for (at::Tensor& parameter : net.parameters()) {
    const double scale = parameter.dim() > 1 ? 1.5 / std::sqrt(static_cast<double>(parameter.size(1))) : 0.3;
    parameter.copy_(torch::randn(parameter.sizes(), generator, torch::kDouble) * scale);
  }
  Planter planter(net, generator);
  for (std::int64_t i = 0; i < kinds; ++i) planter.plant((number / 2 + 2 * i) % 5);
  const at::Tensor probe = torch::randn({400, kInputs}, generator, torch::kDouble);
  const auto signatures = dds::read({net, categorical(), Data(probe)});

  Verdict verdict;
  Causes expected = joined(planter.expected());
  net.forward(probe);
  add_units_that_are_off(net, expected);
  verdict.planted = std::ssize(expected);
  for (const auto& [place, units] : expected) {
    const auto& [layer, side, kind] = place;
    std::vector<Cause> text(1);
    text[0] = {.kind = kind, .directions = std::ssize(units), .units = {units.begin(), units.end()}};
    verdict.plants +=
        fmt::format("{}{} {} {}", verdict.plants.empty() ? "" : ", ", layer, to_string(side), to_string(text));
  }
  for (const Signature& s : signatures) {
    for (const Cause& cause : s.causes) {
      if (is_by_architecture(cause.kind)) continue;
      const std::vector<Cause> one{cause};
      verdict.causes +=
          fmt::format("{}{} {} {}", verdict.causes.empty() ? "" : ", ", s.layer, to_string(s.side), to_string(one));
      if (cause.kind == CauseKind::Unexplained) continue;
      const auto planted = expected.find({s.layer, s.side, cause.kind});
      const bool right = planted != expected.end() && std::equal(cause.units.begin(), cause.units.end(),
                                                                 planted->second.begin(), planted->second.end());
      // What a plant does to the layer behind is named after the layer that has it.
      const bool follows = s.side == Side::Activation && !cause.layer.empty() &&
                           std::any_of(expected.begin(), expected.end(),
                                       [&](const auto& e) { return std::get<0>(e.first) == cause.layer; });
      verdict.named += right;
      verdict.wrong += !right && !follows;
    }
  }
  return verdict;
}

}  // namespace dds::experiments
