// The cases of src/docs/reading_signatures.md: networks of which it is known what there is to read. Prints the tables
// of that page, each between marks; tests/examples holds the page to them.
#include <fmt/format.h>
#include <torch/torch.h>

#include <dds/dds.hpp>
#include <initializer_list>
#include <iostream>
#include <optional>
#include <string>

namespace nn = torch::nn;

namespace {

constexpr std::int64_t kSamples = 512;

nn::Linear linear(std::int64_t in, std::int64_t out, bool bias = true) {
  return nn::Linear(nn::LinearOptions(in, out).bias(bias));
}

void set(nn::Linear& layer, const torch::Tensor& weight) {
  const torch::NoGradGuard no_grad;
  layer->weight.copy_(weight);
}

/// A singular value; below the floor it is rounding noise, another one on every machine.
std::string sigma_of(std::optional<double> sigma, std::optional<double> floor) {
  if (!sigma) return "";
  return *sigma <= floor.value_or(0) ? "noise" : fmt::format("{:.3g}", *sigma);
}

std::string text_of(std::optional<double> value, const char* format) {
  return value ? fmt::format(fmt::runtime(format), *value) : "";
}

/// Empty for a count that does not exist, such as a bound that is not known.
std::string text_of(std::optional<std::int64_t> count) { return count ? std::to_string(*count) : ""; }

void row(std::initializer_list<std::string> cells) {
  std::string line = "|";
  for (const std::string& cell : cells) line += ' ' + cell + " |";
  std::cout << line << '\n';
}

void header(std::initializer_list<std::string> cells) {
  row(cells);
  std::string rule = "|";
  for (std::size_t i = 0; i < cells.size(); ++i) rule += "---|";
  std::cout << rule << '\n';
}

void print_readings(nn::Sequential& model, const torch::Tensor& x, const dds::LikelihoodPtr& likelihood) {
  header({"layer", "side", "width", "structural_bound", "rank", "dead_directions", "sigma_min", "sigma_min_plus"});
  for (const dds::Signature& s : dds::read({*model, likelihood, dds::Data(x)})) {
    row({s.layer, std::string(to_string(s.side)), text_of(s.width), text_of(s.structural_bound), text_of(s.rank),
         text_of(s.dead_directions), sigma_of(s.sigma_min, s.floor), sigma_of(s.sigma_min_plus, s.floor)});
  }
}

void healthy() {
  // Braces, here and below: what is in them is made from left to right, by every compiler.
  nn::Sequential model{linear(16, 12), nn::Tanh(), linear(12, 10)};
  print_readings(model, torch::randn({kSamples, 16}), dds::categorical());
}

/// Two linear layers in which two coordinates are scaled by tau: eigenvalues of the Fisher-Gram at the first layer are
/// 1, and tau^2 twice.
void dying() {
  const torch::Tensor x = torch::randn({kSamples, 6});
  nn::Sequential model{linear(6, 6, false), linear(6, 6, false)};
  dds::DecayCounter counter;
  header({"tau", "sigma_min of the activations", "log10_lambda_min_plus of G", "logdet_plus of G", "dead_directions"});
  std::int64_t step = 0;
  for (const double tau : {1.0, 0.5, 0.2, 0.1, 0.05, 0.02, 0.01}) {
    torch::Tensor scales = torch::ones({6});
    scales.narrow(0, 4, 2).fill_(tau);
    for (const std::size_t i : {0, 1}) {
      const torch::NoGradGuard no_grad;
      model[i]->as<nn::Linear>()->weight.copy_(scales.diag());
    }
    const auto readings = dds::read({*model, dds::gaussian(), dds::Data(x)},
                                    dds::ReadOptions().signatures(dds::SignatureOptions().layers({"0"}).spectra(true)));
    const dds::Signature& activation = readings.at(0);
    dds::Signature fisher = readings.at(1);
    fisher.step = step++;
    counter.add(fisher);
    row({fmt::format("{}", tau), sigma_of(activation.sigma_min, activation.floor),
         text_of(fisher.log10_lambda_min_plus, "{:.2f}"), text_of(fisher.logdet_plus, "{:.2f}"),
         std::to_string(*fisher.dead_directions)});
  }
  std::cout << "\n`dds::DecayCounter`: " << counter.counts().at(0).statement() << '\n';
}

/// Twelve hidden units of which three reach the output.
void over_parameterised() {
  nn::Linear out = linear(12, 4);
  {
    const torch::NoGradGuard no_grad;
    out->weight.narrow(1, 3, 9).zero_();
  }
  nn::Sequential model{linear(16, 12), nn::Tanh(), out};
  print_readings(model, torch::randn({kSamples, 16}), dds::gaussian());
}

void rank_capped() {
  nn::Sequential model{linear(16, 4), linear(4, 32), nn::Tanh(), linear(32, 10)};
  print_readings(model, torch::randn({kSamples, 16}), dds::categorical());
}

/// One direction of a layer's output is `size` of the others, and the network computes in fp32.
void at_floor() {
  const torch::Tensor x = torch::randn({kSamples, 8});
  const torch::Tensor basis = std::get<0>(torch::linalg_qr(torch::randn({8, 8}, torch::kDouble)));
  const torch::Tensor other = std::get<0>(torch::linalg_qr(torch::randn({8, 8}, torch::kDouble)));
  header({"size of the direction", "read in", "rank", "at_floor", "floor / sigma_max", "sigma_min / sigma_max"});
  for (const double size : {1e-3, 1e-9, 1e-18}) {
    torch::Tensor scales = torch::ones({8}, torch::kDouble);
    scales[7] = size;
    nn::Linear layer = linear(8, 8, false);
    layer->to(torch::kDouble);
    set(layer, basis.matmul(scales.diag()).matmul(other));
    nn::Sequential model(layer);
    for (const bool fp64 : {false, true}) {
      if (!fp64) model->to(torch::kFloat);
      const auto readings =
          dds::read({*model, dds::gaussian(), dds::Data(x.to(fp64 ? torch::kDouble : torch::kFloat))},
                    dds::ReadOptions().fp64(fp64).signatures(dds::SignatureOptions().sides({dds::Side::Activation})));
      const dds::Signature& s = readings.at(0);
      row({fmt::format("{}", size), c10::toString(*s.dtype), std::to_string(*s.rank), *s.at_floor ? "yes" : "no",
           fmt::format("{:.1e}", *s.floor / *s.sigma_max),
           *s.at_floor ? "noise" : fmt::format("{:.2g}", *s.sigma_min / *s.sigma_max)});
      if (!fp64) {
        model->to(torch::kDouble);
        set(layer, basis.matmul(scales.diag()).matmul(other));
      }
    }
  }
}

void print(const char* name, const char* network, void (*body)()) {
  torch::manual_seed(0);
  std::cout << "<!-- " << name << " -->\n" << network << "; " << kSamples << " samples.\n\n";
  body();
  std::cout << "<!-- end of " << name << " -->\n";
}

}  // namespace

int main() {
  print("healthy", "`Linear(16, 12)`, `Tanh`, `Linear(12, 10)` before training, classes", healthy);
  print("dying",
        "`Linear(6, 6)` twice, without bias, the identity with two of the six coordinates scaled by tau; layer `0`, "
        "Gaussian",
        dying);
  print("over-parameterised",
        "`Linear(16, 12)`, `Tanh`, `Linear(12, 4)` in which 9 of the 12 hidden units have outgoing weights of zero; "
        "Gaussian",
        over_parameterised);
  print("rank-capped", "`Linear(16, 4)`, `Linear(4, 32)`, `Tanh`, `Linear(32, 10)` before training, classes",
        rank_capped);
  print("at the floor", "`Linear(8, 8)` without bias that scales one direction; its activations", at_floor);
  return std::cout.flush() ? 0 : 1;  // a full disk
}
