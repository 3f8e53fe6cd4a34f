// One training of the transformer, attached to as a user would, and what was read of it on the way.
#pragma once

#include <cstdint>
#include <dds/dds.hpp>
#include <filesystem>
#include <map>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

#include "experiments/modular_addition/fourier.hpp"
#include "experiments/modular_addition/network.hpp"

namespace modular_addition {

/// Modulus and share of the pairs that are trained on, and the widths that are compared.
struct Arm {
  std::string name;
  std::int64_t p = 0;
  double share = 0;
  std::vector<std::int64_t> widths;
};
/// A: with widths beyond p - 1, which cap the rank of the gradients at the read-out. B: without.
const std::vector<Arm>& arms();

/// One training.
struct Cell {
  const Arm* arm = nullptr;
  std::int64_t width = 0;
  std::uint64_t seed = 0;
  std::string name() const;  ///< "A_d64_seed0"
};

/// All pairs (a, b, =) with their sums, and those that are trained on.
struct Pairs {
  torch::Tensor tokens, sums;  ///< p^2 x 3 and p^2, a the slower index
  torch::Tensor train, test;   ///< indices
  dds::Data training() const;
};
Pairs pairs_of(const Arm& arm, std::uint64_t seed);

/// Spectrum of one side at one site.
struct Reading {
  std::string site, side;        ///< "resid_mid", "activation" or "fisher"
  std::string fisher;            ///< "empirical" or "sampled:1"
  std::vector<double> spectrum;  ///< singular values of the raw rows
  double floor = 0;
  std::int64_t rows = 0;
};

/// The network at one moment, read in fp64 over the training pairs.
struct Checkpoint {
  std::string name;  ///< "init", "matched" or "end"
  std::int64_t step = 0;
  double loss = 0;
  std::vector<Reading> readings;
  double read_seconds = 0;      ///< of all layers and taps, both sides, empirical Fisher, spectra
  double one_site_seconds = 0;  ///< of resid_mid alone
  Modes modes;
};

/// Numbers every so many steps.
struct Series {
  std::vector<std::int64_t> step;
  std::vector<double> train_loss, train_accuracy, test_loss, test_accuracy, weight_norm;
  /// Name of the reading ("log10 lambda_min+/tr resid_mid", ...) to its values; NaN where there is none.
  std::map<std::string, std::vector<double>> signature;
};

struct Training {
  Cell cell;
  std::vector<Checkpoint> checkpoints;
  Series series;
  double seconds = 0;
};

struct TrainingOptions {
  std::int64_t steps = 8000;
  std::int64_t every = 50;               ///< steps from one signature to the next
  std::vector<std::int64_t> kept_steps;  ///< at which the weights are kept, beside the end
  std::filesystem::path weights;         ///< folder for them
};

/// One thread. Throws IoError if weights cannot be kept.
Training train(const Cell& cell, const TrainingOptions& options);

/// The network with the weights that a training kept.
Transformer kept(const Cell& cell, std::int64_t step, const std::filesystem::path& weights);

/// lambda_min+(G) and tr(G) at resid_mid (empirical Fisher, fp64, log10) of a training at the steps whose weights it
/// kept: what a reading at another last step would have been.
struct Followed {
  std::vector<std::int64_t> step;
  std::vector<double> lambda_min, trace;
};
Followed follow(const Cell& cell, const std::vector<std::int64_t>& steps, const std::filesystem::path& weights);
nlohmann::json to_json(const Followed& followed);
Followed followed_from_json(const nlohmann::json& json);

nlohmann::json to_json(const Training& training);
Training from_json(const nlohmann::json& json, const Cell& cell);

}  // namespace modular_addition
