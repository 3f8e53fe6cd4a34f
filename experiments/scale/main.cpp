// At the size people train: a network of GPT-2's widths, with everything at its defaults. Does every layer have
// numbers? What does a training cost that is read every 100 steps? And how does the price of a reading grow with rows
// and width?
#include <fmt/format.h>
#include <sys/resource.h>

#include <algorithm>
#include <cmath>
#include <dds/dds.hpp>
#include <memory>
#include <vector>

#include "experiments/harness/harness.hpp"
#include "experiments/scale/gpt.hpp"
#include "src/base/stopwatch.hpp"
#include "src/series/trend.hpp"
#include "src/theory/least_squares.hpp"

namespace {

namespace F = torch::nn::functional;
using dds::experiments::at_most;
using dds::experiments::claim_of;
using dds::experiments::exactly;
using dds::experiments::Progress;
using dds::experiments::RunOptions;
using dds::experiments::Summary;

constexpr std::int64_t kEvery = 100;  // steps from one reading to the next, in the claim on the whole training

struct Plan {
  scale::Shape shape;
  int bare;                          ///< steps without the library
  int beside;                        ///< steps after the due one
  std::vector<std::int64_t> rows;    ///< of synthetic readings, at kWidth columns
  std::vector<std::int64_t> widths;  ///< of synthetic readings, with kRows rows
};
constexpr std::int64_t kRows = 512, kWidth = 768;

Plan plan_of(const RunOptions& options) {
  if (options.full()) {
    return {.shape = {12, 768, 12, 50257, 512},
            .bare = 8,
            .beside = 6,
            .rows = {1000, 3000, 10000, 30000, 65536},
            .widths = {64, 256, 768, 3072, 12288, 50257}};
  }
  return {.shape = {2, 768, 12, 50257, 512},
          .bare = 6,
          .beside = 4,
          .rows = {1000, 3000, 10000},
          .widths = {64, 256, 768, 3072, 12288, 50257}};
}

/// Tokens as rare as words are: the k-th has a share of 1/k.
torch::Tensor random_tokens(const scale::Shape& shape) {
  const torch::Tensor u = torch::rand({1, shape.context + 1}, torch::kDouble);
  const double log_size = std::log(static_cast<double>(shape.vocabulary));
  return u.mul(log_size).exp().sub(1).to(torch::kLong).clamp(0, shape.vocabulary - 1);
}

/// The most memory that the process has held, in bytes.
double peak_bytes() {
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  return 1024.0 * static_cast<double>(usage.ru_maxrss);
}

class Training {
 public:
  explicit Training(const scale::Shape& shape) : shape_(shape), model_(shape), optimizer_(model_->parameters(), 1e-4) {}

  double step() {
    const torch::Tensor ids = random_tokens(shape_);
    const dds::Stopwatch watch;
    optimizer_.zero_grad();
    const torch::Tensor logits = model_->forward(ids.narrow(1, 0, shape_.context));
    F::cross_entropy(logits.flatten(0, 1), ids.narrow(1, 1, shape_.context).flatten()).backward();
    optimizer_.step();
    return watch.seconds();
  }

  torch::nn::Module& model() { return *model_; }

 private:
  scale::Shape shape_;
  scale::Gpt model_;
  torch::optim::AdamW optimizer_;
};

/// One reading among steps, with the worker on another thread.
struct Attached {
  std::vector<dds::Signature> signatures;
  double due = 0;     ///< seconds of the due step
  double beside = 0;  ///< seconds that the steps until the reading was there took longer than bare ones
  double waited = 0;  ///< seconds until the reading was there, once there were no more steps
};

Attached attached(Training& training, const Plan& plan, double bare) {
  const auto sink = std::make_shared<dds::log::Memory>();
  Attached result;
  {
    dds::Monitor monitor(training.model(), dds::MonitorOptions().every(1 << 20).worker(dds::Worker::Wait), sink);
    dds::Stopwatch watch;
    {
      auto step = monitor.step();
      training.step();
    }
    result.due = watch.seconds();
    for (int i = 0; i < plan.beside; ++i) {
      watch = {};
      {
        auto step = monitor.step();
        training.step();
      }
      result.beside += watch.seconds() - bare;
    }
    watch = {};
    monitor.flush();
    result.waited = watch.seconds();
  }
  result.signatures = sink->signatures;
  return result;
}

/// Seconds of one reading of random rows, kept and decomposed.
double reading_seconds(std::int64_t rows, std::int64_t width) {
  const torch::Tensor matrix = torch::randn({rows, width});
  const dds::Stopwatch watch;
  dds::TriangularAccumulator accumulator(width);
  accumulator.update(matrix);
  dds::read_spectrum(accumulator);
  return watch.seconds();
}

/// The slope of log y over log x by least squares.
double slope(const std::vector<std::int64_t>& x, const std::vector<double>& y) {
  std::vector<double> log_x, log_y;
  for (const std::int64_t value : x) log_x.push_back(std::log(static_cast<double>(value)));
  for (const double value : y) log_y.push_back(std::log(value));
  const dds::CentredSums sums = dds::centred_sums(log_x, log_y);
  return sums.xy / sums.xx;
}

void run(const RunOptions& options) {
  torch::set_num_threads(1);
  torch::manual_seed(options.seed);
  const Plan plan = plan_of(options);
  Summary summary(options);
  Progress progress({{"training without the library", 0.2}, {"training with it", 0.4}, {"rows", 0.2}, {"widths", 0.2}});

  Training training(plan.shape);
  std::vector<double> seconds;
  training.step();  // makes the optimiser's state
  for (int i = 0; i < plan.bare; ++i) {
    progress.update("training without the library", static_cast<double>(i) / plan.bare);
    seconds.push_back(training.step());
  }
  const double bare = dds::median(seconds), peak_before = peak_bytes();
  progress.update("training with it", 0);
  const Attached read = attached(training, plan, bare);
  const double peak_after = peak_bytes();

  std::int64_t numbers = 0, widest = 0;
  double spectral = 0;
  for (const dds::Signature& s : read.signatures) {
    numbers += s.has_numbers();
    if (s.has_numbers()) widest = std::max(widest, *s.width);
    spectral += s.seconds;
    if (!s.has_numbers()) progress.say(fmt::format("{} {}: {}", s.layer, to_string(s.side), to_string(s.status)));
  }
  const auto all = static_cast<std::int64_t>(read.signatures.size());
  const auto [least, most] = std::minmax_element(seconds.begin(), seconds.end());
  progress.say(
      fmt::format("bare step {:.2f} s [{:.2f}, {:.2f}]; due step {:.2f} s; the {} steps after it took {:.2f} s longer; "
                  "reading {:.1f} s "
                  "of {} readings, waited for {:.1f} s; peak memory {:.2f} GB, {:.2f} GB before",
                  bare, *least, *most, read.due, plan.beside, read.beside, spectral, all, read.waited, peak_after / 1e9,
                  peak_before / 1e9));

  summary.add(
      at_most(claim_of("gpt2_layers_without_numbers",
                       fmt::format("readings without numbers of the {} of a network of {} blocks of GPT-2 small's "
                                   "widths, {} tokens a step, at the defaults (the widest has {} columns)",
                                   all, plan.shape.blocks, plan.shape.context, widest),
                       exactly(static_cast<double>(all - numbers))),
              0));
  const double over = 1 + (read.due - bare + read.beside) / (static_cast<double>(kEvery) * bare);
  summary.add(at_most(
      claim_of(
          "gpt2_training_over_bare",
          fmt::format("seconds of a training of which every layer is read each {} steps, with the worker on another "
                      "core, over the same without (from one due step and the {} steps after it)",
                      kEvery, plan.beside),
          exactly(over)),
      1.05));
  summary.add(claim_of("gpt2_due_step_over_bare", "seconds of the due step alone over those of a bare one (median)",
                       exactly(read.due / bare)));
  summary.add(claim_of("peak_memory_over_bare", "the most memory that the process held, with a reading over without",
                       exactly(peak_after / peak_before)));

  std::vector<double> by_rows, by_width;
  for (std::size_t i = 0; i < plan.rows.size(); ++i) {
    progress.update("rows", static_cast<double>(i) / static_cast<double>(plan.rows.size()));
    by_rows.push_back(reading_seconds(plan.rows[i], kWidth));
  }
  for (std::size_t i = 0; i < plan.widths.size(); ++i) {
    progress.update("widths", static_cast<double>(i) / static_cast<double>(plan.widths.size()));
    by_width.push_back(reading_seconds(kRows, plan.widths[i]));
  }
  for (std::size_t i = 0; i < plan.rows.size(); ++i) {
    progress.say(fmt::format("{:6} rows of {} columns: {:.3f} s", plan.rows[i], kWidth, by_rows[i]));
  }
  for (std::size_t i = 0; i < plan.widths.size(); ++i) {
    progress.say(fmt::format("{} rows of {:6} columns: {:.3f} s", kRows, plan.widths[i], by_width[i]));
  }
  summary.add(
      claim_of("rows_slope",
               fmt::format("slope of log seconds over log rows of an exact reading of {} columns, from {} to {} rows",
                           kWidth, plan.rows.front(), plan.rows.back()),
               exactly(slope(plan.rows, by_rows))));
  const auto wide = std::find(plan.widths.begin(), plan.widths.end(), kWidth) - plan.widths.begin();
  summary.add(claim_of(
      "width_slope",
      fmt::format("slope of log seconds over log width of an exact reading of {} rows, from {} to {} columns", kRows,
                  kWidth, plan.widths.back()),
      exactly(slope({plan.widths.begin() + wide, plan.widths.end()}, {by_width.begin() + wide, by_width.end()}))));
  summary.write();
}

}  // namespace

int main(int argc, char** argv) {
  const RunOptions options = dds::experiments::parse_command_line(
      argc, argv, "scale", "A network of GPT-2's widths at the defaults, and what readings cost by rows and width.");
  return dds::experiments::run_experiment([&] { run(options); });
}
