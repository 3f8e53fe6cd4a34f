// Soak: a long training with everything attached. Its weights are those of the bare one to the bit, and after a tenth
// of the way neither memory nor threads nor open files grow.
//
//   dds_soak STEPS
#include <fmt/format.h>
#include <torch/torch.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <dds/dds.hpp>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <vector>

#include "src/base/stopwatch.hpp"

namespace {

namespace fs = std::filesystem;

constexpr std::int64_t kEvery = 10;
constexpr std::int64_t kLooks = 100;  ///< at memory, threads and files
constexpr double kGrowth = 4;         ///< MiB that the rest of the run may add to the second tenth of it

struct Look {
  std::int64_t step;
  double resident;  ///< MiB
  std::ptrdiff_t threads, files;
};

std::ptrdiff_t entries(const char* folder) {
  return std::distance(fs::directory_iterator(folder), fs::directory_iterator());
}

Look look(std::int64_t step) {
  std::ifstream statm("/proc/self/statm");
  double size = 0, resident = 0;
  statm >> size >> resident;
  return {step, resident * static_cast<double>(sysconf(_SC_PAGESIZE)) / (1 << 20), entries("/proc/self/task"),
          entries("/proc/self/fd")};
}

torch::nn::Sequential network() {
  torch::manual_seed(1);
  return torch::nn::Sequential(torch::nn::Conv2d(torch::nn::Conv2dOptions(1, 4, 3)), torch::nn::ReLU(),
                               torch::nn::Flatten(), torch::nn::Linear(64, 24), torch::nn::Tanh(),
                               torch::nn::Linear(24, 6));
}

/// Trains for `steps`; with a monitor, inside its steps. `at` is called after each.
template <class At>
at::Tensor train(std::int64_t steps, torch::nn::Sequential model, dds::Monitor* monitor, const At& at) {
  torch::optim::Adam optimizer(model->parameters(), 1e-3);
  const at::Tensor images = torch::randn({512, 1, 6, 6}), labels = torch::randint(6, {512});
  for (std::int64_t i = 0; i < steps; ++i) {
    {
      std::optional<dds::Monitor::Step> step;
      if (monitor) step.emplace(monitor->step());
      const std::int64_t begin = i * 32 % 512;
      optimizer.zero_grad();
      torch::nn::functional::cross_entropy(model->forward(images.slice(0, begin, begin + 32)),
                                           labels.slice(0, begin, begin + 32))
          .backward();
      optimizer.step();
    }
    at(i + 1);
  }
  return torch::nn::utils::parameters_to_vector(model->parameters()).detach();
}

/// The middle one of those within [begin, end) tenths of the run.
double median_resident(const std::vector<Look>& looks, std::int64_t begin, std::int64_t end) {
  std::vector<double> values;
  for (const Look& each : looks) {
    const std::int64_t tenth = each.step * 10 / (looks.back().step + 1);
    if (tenth >= begin && tenth < end) values.push_back(each.resident);
  }
  std::nth_element(values.begin(), values.begin() + std::ssize(values) / 2, values.end());
  return values[values.size() / 2];
}

int soak(std::int64_t steps) {
  torch::set_num_threads(1);
  dds::Stopwatch watch;
  const at::Tensor bare = train(steps, network(), nullptr, [](std::int64_t) {});
  const double bare_seconds = watch.seconds();

  const fs::path folder = fs::temp_directory_path() / fmt::format("dds-soak-{}", getpid());
  std::vector<Look> looks;
  std::int64_t errors = 0;
  at::Tensor attached;
  watch = {};
  {
    torch::nn::Sequential model = network();
    dds::Monitor monitor(*model,
                         dds::MonitorOptions()
                             .every(kEvery)
                             .worker(dds::Worker::Wait)
                             .window(2)
                             .signatures(dds::SignatureOptions().spectra(true).dead_axes(true))
                             .on_error([&](const std::exception&) { ++errors; }),
                         dds::log::directory(folder, {.tensorboard = true}));
    attached = train(steps, model, &monitor, [&](std::int64_t step) {
      if (step % kEvery == 0) monitor.log("step", static_cast<double>(step));
      if (step % std::max<std::int64_t>(1, steps / kLooks) == 0) looks.push_back(look(step));
    });
    monitor.flush();
    if (monitor.decay_counts().empty()) ++errors;
  }
  const double attached_seconds = watch.seconds();
  std::uintmax_t bytes = 0;
  for (const fs::directory_entry& file : fs::directory_iterator(folder)) bytes += file.file_size();
  std::error_code ignored;
  fs::remove_all(folder, ignored);

  fmt::print("{:>9} {:>13} {:>8} {:>6}\n", "step", "resident/MiB", "threads", "files");
  for (std::size_t i = 0; i < looks.size(); i += i == 0 ? 4 : 5) {
    fmt::print("{:9} {:13.1f} {:8} {:6}\n", looks[i].step, looks[i].resident, looks[i].threads, looks[i].files);
  }
  const Look &warm = looks[looks.size() / 10], &last = looks.back();
  const double growth = median_resident(looks, 9, 10) - median_resident(looks, 1, 2);
  const bool identical = torch::equal(bare, attached);
  fmt::print(
      "{} steps: bare {:.1f} s, attached and read every {} steps {:.1f} s, {:.1f} MB of log\n"
      "memory from the second to the last tenth: {:+.2f} MiB; threads {} to {}, files {} to {}; {} errors; weights "
      "{}\n",
      steps, bare_seconds, kEvery, attached_seconds, static_cast<double>(bytes) / 1e6, growth, warm.threads,
      last.threads, warm.files, last.files, errors, identical ? "equal" : "DIFFERENT");
  const bool held =
      identical && errors == 0 && growth <= kGrowth && last.threads <= warm.threads && last.files <= warm.files;
  return held ? EXIT_SUCCESS : EXIT_FAILURE;
}

}  // namespace

int main(int argc, char** argv) {
  const std::int64_t steps = argc == 2 ? std::atoll(argv[1]) : 0;
  if (steps < kLooks) {
    fmt::print(stderr, "Usage: dds_soak STEPS, at least {}\n", kLooks);
    return 2;
  }
  return soak(steps);
}
