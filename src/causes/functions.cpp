// What functions between layers do to a unit.
#include <algorithm>
#include <array>
#include <cmath>
#include <string_view>

#include "src/causes/search.hpp"

namespace dds {
namespace {

constexpr auto kReluLike = std::to_array<std::string_view>({"relu", "relu6"});
constexpr auto kEntrywise = std::to_array<std::string_view>(
    {"relu",     "relu6",     "leaky_relu",  "tanh", "sigmoid",     "gelu", "silu", "elu", "selu", "celu", "softplus",
     "hardtanh", "hardswish", "hardsigmoid", "mish", "log_sigmoid", "sin",  "cos",  "exp", "abs",  "erf"});

template <class Names>
bool among(const Names& names, std::string_view name) {
  return std::find(names.begin(), names.end(), name) != names.end();
}

}  // namespace

bool is_relu(const std::string& function) { return among(kReluLike, function); }
bool is_entrywise(const std::string& function) { return among(kEntrywise, function); }

double largest_slope(const std::string& function, double low, double high) {
  const double nearest = low > 0 ? low : high < 0 ? -high : 0;  // to 0
  if (function == "tanh") return 1 / std::pow(std::cosh(std::min(nearest, 300.0)), 2);
  if (function == "sigmoid") return std::exp(-nearest);
  if (function == "relu") return high <= 0 ? 0 : 1;
  if (function == "relu6") return high <= 0 || low >= 6 ? 0 : 1;
  if (high >= 0) return 1;
  // |x| e^x bounds what is left of x sigmoid(x) far below 0; that of x Phi(x) is smaller.
  if (function == "silu" || function == "gelu") return (1 + nearest) * std::exp(-nearest);
  if (function == "elu") return std::exp(-nearest);
  return 1;
}

}  // namespace dds
