// What the weight-side Gram matrices K_l of all layers and their eigenvalues cost, from nothing to the numbers, beside
// what libraries in Python take that write the per-sample gradients out: the work of src/docs/the_method.md,
// Benchmarks.
#include <fmt/format.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <dds/dds.hpp>
#include <dds/error.hpp>
#include <limits>

#include "tests/benchmarks/peer.hpp"
#include "tests/benchmarks/timing.hpp"

namespace {

namespace F = torch::nn::functional;
using dds::benchmarks::compare;
using dds::benchmarks::Peer;
using dds::benchmarks::Results;

/// A network and a batch, drawn in the order in which peers/gram.py draws them.
struct Workload {
  std::string name, description;
  double goal = 0, func_goal = 0, backpack_goal = 0;  ///< how many times faster than Opacus, torch.func, BackPACK
  torch::nn::Sequential model;
  dds::Data data;

  void plain() {
    model->zero_grad();
    F::cross_entropy(model->forward(data.inputs[0]), data.targets, F::CrossEntropyFuncOptions().reduction(torch::kSum))
        .backward();
  }

  std::vector<dds::GramSpectrum> spectra() {
    return dds::per_sample_gradients({*model, dds::categorical(), data}).spectra();
  }
};

Workload workload(const std::string& name) {
  using torch::nn::Conv2d, torch::nn::Conv2dOptions, torch::nn::Linear, torch::nn::ReLU, torch::nn::Sequential;
  Workload work;
  work.name = name;
  torch::manual_seed(0);
  std::vector<std::int64_t> shape;
  if (name == "mlp") {
    work.description = "MLP 784-512-512-10, batch 512";
    work.goal = work.func_goal = work.backpack_goal = 40;
    work.model = Sequential(Linear(784, 512), ReLU(), Linear(512, 512), ReLU(), Linear(512, 10));
    shape = {512, 784};
  } else {
    work.description = "CNN 1-16-32, 1568-128-10, batch 256";
    work.goal = 4;
    work.func_goal = 3;
    work.backpack_goal = 3.5;
    work.model = Sequential(Conv2d(Conv2dOptions(1, 16, 3).stride(2).padding(1)), ReLU(),
                            Conv2d(Conv2dOptions(16, 32, 3).stride(2).padding(1)), ReLU(), torch::nn::Flatten(),
                            Linear(1568, 128), ReLU(), Linear(128, 10));
    shape = {256, 1, 28, 28};
  }
  torch::manual_seed(0);  // as if the layers had drawn nothing
  const torch::NoGradGuard no_grad;
  for (torch::Tensor& parameter : work.model->parameters()) {
    const double fan_in = static_cast<double>(std::max<std::int64_t>(1, parameter[0].numel()));
    parameter.copy_(torch::randn(parameter.sizes()) / std::sqrt(fan_in));
  }
  const torch::Tensor x = torch::randn(shape);
  work.data = dds::Data(x, torch::randint(10, {shape[0]}, torch::kLong));
  return work;
}

/// Most memory in KiB that a process of its own takes for `body`.
std::int64_t peak(const std::function<void()>& body) {
  int ends[2];
  if (pipe(ends) != 0) throw dds::Error("per_sample: no pipe to a process that measures memory");
  const pid_t child = fork();
  if (child == 0) {
    body();
    rusage usage{};
    getrusage(RUSAGE_SELF, &usage);
    const std::int64_t kib = usage.ru_maxrss;
    _exit(write(ends[1], &kib, sizeof kib) == sizeof kib ? 0 : 1);
  }
  close(ends[1]);
  std::int64_t kib = 0;
  const bool whole = child > 0 && read(ends[0], &kib, sizeof kib) == sizeof kib;
  close(ends[0]);
  if (child > 0) waitpid(child, nullptr, 0);
  if (!whole) throw dds::Error("per_sample: the process that measures memory failed");
  return kib;
}

/// Memory of the spectra above that of a plain forward and backward pass, in MiB.
double own_memory(const std::string& name) {
  const auto twice = [&](const std::function<void(Workload&)>& step) {
    return peak([&] {
      Workload work = workload(name);
      for (int i = 0; i < 2; ++i) step(work);
    });
  };
  const std::int64_t gram = twice([](Workload& work) { work.spectra(); });
  return static_cast<double>(gram - twice([](Workload& work) { work.plain(); })) / 1024;
}

dds::experiments::Claim claim(std::string id, std::string statement, double measured, double goal_high) {
  dds::experiments::Claim claim;
  claim.id = std::move(id);
  claim.statement = std::move(statement);
  claim.measured = claim.low = claim.high = measured;
  claim.goal_high = goal_high;
  return claim;
}

/// Largest difference of an eigenvalue from the peer's, relative to the largest of its layer.
double difference(const std::vector<dds::GramSpectrum>& ours, const nlohmann::json& theirs) {
  double largest = ours.size() == theirs.size() ? 0 : std::numeric_limits<double>::infinity();
  for (std::size_t l = 0; l < std::min(ours.size(), theirs.size()); ++l) {
    for (std::size_t k = 0; k < ours[l].eigenvalues.size(); ++k) {
      const double apart = std::abs(ours[l].eigenvalues[k] - theirs[l][k].get<double>());
      largest = std::max(largest, apart / theirs[l][0].get<double>());
    }
  }
  return largest;
}

void against_peers(Workload& work, double memory, Results& results, const dds::experiments::RunOptions& options) {
  double least = std::numeric_limits<double>::infinity();
  for (const auto& [name, goal] : {std::pair{"opacus", work.goal}, std::pair{"backpack", work.backpack_goal},
                                   std::pair{"torch_func", work.func_goal}}) {
    Peer peer(options, name);
    const double theirs =
        (peer.ask({"peak", work.name, "gram"}).get<double>() - peer.ask({"peak", work.name, "plain"}).get<double>()) /
        1024;
    least = std::min(least, theirs);
    results.add(claim(fmt::format("{}_value_difference.{}", work.name, name),
                      fmt::format("{}: eigenvalues of K_l in fp32, largest difference from {}'s over lambda_max",
                                  work.description, name),
                      difference(work.spectra(), peer.ask({"gram", work.name})), 1e-4));
    results.add_speedup(
        fmt::format("{}_speedup_over_{}", work.name, name),
        fmt::format("{}: K_l of every layer and its eigenvalues, {}'s time over ours", work.description, name),
        compare([&] { work.spectra(); },
                [&] {
                  peer.ask({"step", work.name});
                },
                20),
        goal);
  }
  results.add(
      claim(work.name + "_memory_ratio",
            fmt::format("{}: memory above a plain step, ours ({:.0f} MiB) over that of the peer that takes least "
                        "({:.0f} MiB)",
                        work.description, memory, least),
            memory / least, 0.1));
}

}  // namespace

int main(int argc, char** argv) {
  const auto options = dds::experiments::parse_command_line(
      argc, argv, "per_sample", "Weight-side Gram matrices of all layers and their eigenvalues, on one thread.");
  return dds::experiments::run_experiment([&] {
    torch::set_num_threads(1);
    std::map<std::string, double> memory;
    for (const char* name : {"mlp", "cnn"}) memory[name] = own_memory(name);  // before this process has run anything
    Results results(options);
    for (const char* name : {"mlp", "cnn"}) {
      Workload work = workload(name);
      results.add(work.name + "_over_plain",
                  fmt::format("{}: K_l of every layer and its eigenvalues against a forward and backward pass "
                              "({:.0f} MiB above it)",
                              work.description, memory[name]),
                  compare([&] { work.plain(); }, [&] { work.spectra(); }), std::nullopt);
      if (Peer::wanted()) against_peers(work, memory[name], results, options);
    }
    results.write();
  });
}
