#include "src/llc/spread.hpp"

#include <fmt/format.h>

#include <cmath>
#include <dds/error.hpp>
#include <exception>
#include <type_traits>

#include "src/ranks/exchange.hpp"

namespace dds {
namespace {

enum class Request : std::uint8_t { Advance, Dismiss };

std::vector<std::size_t> chains_of(int rank, int ranks, std::size_t chains) {
  std::vector<std::size_t> own;
  for (auto i = static_cast<std::size_t>(rank); i < chains; i += static_cast<std::size_t>(ranks)) own.push_back(i);
  return own;
}

void put(Parcel& parcel, const Dynamics& dynamics) {
  parcel.put(dynamics.sampler);
  for (const double number : {dynamics.n_beta, dynamics.gamma, dynamics.eps, dynamics.box}) parcel.put(number);
  parcel.put(dynamics.scale);
}

/// For chains of the weights of `start`.
Dynamics take_dynamics(Parcel& parcel, const at::Tensor& start) {
  Dynamics dynamics;
  dynamics.sampler = static_cast<Sampler>(parcel.take<std::underlying_type_t<Sampler>>());
  if (!find_policy(dynamics.sampler)) throw RankError("a sampler came that there is none of");
  for (double* number : {&dynamics.n_beta, &dynamics.gamma, &dynamics.eps, &dynamics.box}) parcel.take(*number);
  parcel.take(dynamics.scale);
  if (!dynamics.scale.defined()) return dynamics;
  if (dynamics.scale.sizes() != start.sizes() || dynamics.scale.scalar_type() != start.scalar_type()) {
    throw RankError(
        fmt::format("a preconditioner of {} weights came, expected {}", dynamics.scale.numel(), start.numel()));
  }
  dynamics.scale = dynamics.scale.to(start.device());
  return dynamics;
}

/// What all ranks must have in common: the number of weights, the number of samples, and the loss at w*. The loss may
/// differ by rounding.
struct Start {
  std::int64_t parameters, samples;
  double loss;
};

void put(Parcel& parcel, const Start& start) {
  parcel.put(start.parameters);
  parcel.put(start.samples);
  parcel.put(start.loss);
}

Start take_start(Parcel& parcel) {
  return {parcel.take<std::int64_t>(), parcel.take<std::int64_t>(), parcel.take<double>()};
}

Start start_of(const Objective& objective) {
  return {objective.start().numel(), objective.samples(), objective.start_loss()};
}

void check_same(const Start& here, const Start& there) {
  constexpr double kRounding = 1e-4;
  const bool same_loss = std::abs(here.loss - there.loss) <= kRounding * (std::abs(here.loss) + std::abs(there.loss));
  if (here.parameters == there.parameters && here.samples == there.samples && same_loss) return;
  throw RankError(
      fmt::format("{} weights, {} samples and a loss of {:.6g} at w*, where rank 0 has {}, {} and {:.6g}; expected the "
                  "same weights "
                  "and data on all ranks",
                  here.parameters, here.samples, here.loss, there.parameters, there.samples, there.loss));
}

/// Sends an error to rank 0, and waits until rank 0 dismisses this rank. Otherwise the dismissal would be left over,
/// and be taken for the next message.
void tell_error(Ranks& ranks, const std::string& error) {
  Parcel answer;
  answer.put(error);
  try {
    send(ranks, answer, 0);
    receive(ranks, 0);
  } catch (const RankError&) {  // rank 0 is gone: nobody is left to tell
  }
}

}  // namespace

void advance(Ranks* ranks, std::vector<Chain>& chains, const Objective& objective, const Dynamics& dynamics,
             std::int64_t steps, Keep keep, Watch& watch, const RunChains& run) {
  const int size = ranks ? ranks->size() : 1;
  std::exception_ptr error;
  const auto attempt = [&](const auto& work) {
    try {
      work();
    } catch (...) {
      if (!error) error = std::current_exception();
    }
  };
  std::vector<int> asked;
  attempt([&] {
    for (int rank = 1; rank < size; ++rank) {
      Parcel request;
      request.put(Request::Advance);
      put(request, start_of(objective));
      put(request, dynamics);
      request.put(steps);
      request.put(watch.left());
      request.put(keep.draws);
      request.put(keep.moments);
      for (const std::size_t i : chains_of(rank, size, chains.size())) chains[i].pack(request);
      send(*ranks, request, rank);
      asked.push_back(rank);
    }
    run(chains_of(0, size, chains.size()), [&](std::size_t i, const Replica& replica) {
      chains[i].advance(replica, dynamics, steps, keep, [&] { return watch.tick(); });
    });
  });
  // Take the answers after an error too: a rank can be dismissed only once its answer is taken.
  for (const int rank : asked) {
    attempt([&] {
      Parcel answer = receive(*ranks, rank);
      const auto theirs = answer.take<std::string>();
      if (!theirs.empty()) throw RankError(fmt::format("estimate_llc: rank {}: {}", rank, theirs));
      if (answer.take<bool>()) watch.cancel();
      for (const std::size_t i : chains_of(rank, size, chains.size())) chains[i].unpack(answer);
    });
  }
  if (error) std::rethrow_exception(error);
}

void dismiss(Ranks& ranks, const std::string& error) noexcept {
  for (int rank = 1; rank < ranks.size(); ++rank) {
    try {
      Parcel request;
      request.put(Request::Dismiss);
      request.put(error);
      send(ranks, request, rank);
    } catch (const std::exception&) {  // the rank is gone: it needs no dismissal
    }
  }
}

void serve(Ranks& ranks, std::vector<Chain>& chains, const Objective& objective, Watch& watch, const RunChains& run) {
  const std::vector<std::size_t> own = chains_of(ranks.rank(), ranks.size(), chains.size());
  while (true) {
    Parcel request = receive(ranks, 0);
    if (request.take_up_to(Request::Dismiss) == Request::Dismiss) {
      const auto error = request.take<std::string>();
      if (!error.empty()) throw RankError("estimate_llc: rank 0: " + error);
      return;
    }
    Parcel answer;
    try {
      check_same(start_of(objective), take_start(request));
      const Dynamics dynamics = take_dynamics(request, objective.start());
      const std::int64_t steps = request.take_tally();
      watch.end_in(request.take<double>());
      Keep keep;
      request.take(keep.draws);
      request.take(keep.moments);
      for (const std::size_t i : own) chains[i].unpack(request);
      run(own, [&](std::size_t i, const Replica& replica) {
        chains[i].advance(replica, dynamics, steps, keep, [&] { return watch.tick(); });
      });
      answer.put(std::string());
      answer.put(watch.cancelled());
      for (const std::size_t i : own) chains[i].pack(answer);
    } catch (...) {
      tell_error(ranks, text_of(std::current_exception()));
      throw;
    }
    send(ranks, answer, 0);
  }
}

void refuse(Ranks& ranks, const std::string& error) {
  if (receive(ranks, 0).take_up_to(Request::Dismiss) != Request::Dismiss) tell_error(ranks, error);
}

}  // namespace dds
