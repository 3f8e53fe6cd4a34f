#include "src/attach/account.hpp"

#include <fmt/format.h>
#include <fmt/ranges.h>
#include <unistd.h>

#include <algorithm>

namespace dds::attach {
namespace {

std::string counted(std::int64_t count, std::string_view one, std::string_view many) {
  return fmt::format("{} {}", count, count == 1 ? one : many);
}

std::string why_no_log(const Account& account) {
  if (account.passes + account.passes_outside + account.passes_of_nothing == 0)
    return account.forks == 0 ? "no backward pass was run"
                              : "no backward pass was run here, and what runs in a forked process is not read";
  if (account.passes == 0) return "no backward pass reached a parameter";
  if (account.updates == 0)
    return fmt::format(
        "after {} no parameter was seen to change: weights that are made anew for each step are not "
        "followed",
        counted(account.passes, "backward pass", "backward passes"));
  return "no step was read";
}

}  // namespace

std::int64_t due_steps(std::int64_t steps, std::int64_t every, std::optional<std::int64_t> stop_after) {
  if (stop_after) steps = std::min(steps, *stop_after + 1);
  return steps > 0 ? (steps - 1) / every + 1 : 0;
}

std::vector<std::string> never_read(const std::vector<std::string>& layers, const std::set<std::string>& read) {
  std::vector<std::string> never;
  std::copy_if(layers.begin(), layers.end(), std::back_inserter(never),
               [&](const std::string& layer) { return !read.contains(layer); });
  return never;
}

nlohmann::ordered_json description_of(const std::vector<Leaves::Source>& networks) {
  nlohmann::ordered_json list = nlohmann::ordered_json::array();
  for (const Leaves::Source& source : networks) {
    list.push_back({{"class", source.network},
                    {"language", source.language},
                    {"prefix", source.prefix},
                    {"updates", source.updates},
                    {"readings", source.readings}});
  }
  return list;
}

nlohmann::ordered_json description_of(const Account& account) {
  const auto per_step = account.updates_per_step;
  return {
      {"updates_per_step", per_step > 0 ? nlohmann::ordered_json(per_step) : nullptr},
      {"updates", account.updates},
      {"updates_seen_by",
       {{"versions", account.by_versions}, {"elements", account.by_elements}, {"optimisers", account.by_optimisers}}},
      {"steps", account.steps},
      {"steps_due", account.due},
      {"steps_read", account.readings},
      {"backward_passes", account.passes},
      {"backward_passes_without_update", account.passes_without_update},
      {"backward_passes_outside", account.passes_outside},
      {"backward_passes_before_any_parameter", account.passes_of_nothing},
      {"threads_overlap", account.threads_overlap}};
}

std::vector<std::string> losses_of(const Account& account, const std::vector<Leaves::Source>& networks,
                                   const std::vector<std::string>& layers_never_read) {
  constexpr std::ptrdiff_t kNamed = 8;
  std::vector<std::string> losses;
  if (account.passes > 0 && account.updates == 0) losses.emplace_back(why_no_log(account));
  if (account.readings_due < account.due)
    losses.emplace_back(
        fmt::format("{} of {} due steps were not read", account.due - account.readings_due, account.due));
  for (const Leaves::Source& network : networks) {
    if (network.updates > 0 && network.readings == 0)
      losses.emplace_back(fmt::format("the network {}{} was updated {} and never read", network.network,
                                      network.prefix.empty() ? "" : fmt::format(" ({})", network.prefix),
                                      counted(network.updates, "time", "times")));
  }
  if (account.threads_overlap && account.by_versions + account.by_elements > 0)
    losses.emplace_back(
        "passes of several threads overlap, and not all updates are an optimiser's: numbers of steps may be wrong");
  if (account.readings > 0 && !layers_never_read.empty()) {
    const std::ptrdiff_t more = std::max<std::ptrdiff_t>(0, std::ssize(layers_never_read) - kNamed);
    losses.emplace_back(fmt::format("no numbers came of {}{}",
                                    fmt::join(layers_never_read.begin(), layers_never_read.end() - more, ", "),
                                    more > 0 ? fmt::format(" and {} more", more) : ""));
  }
  return losses;
}

std::string summary_of(const Account& account, std::size_t networks, std::size_t layers,
                       const std::vector<std::string>& notes, const std::string& folder) {
  std::string line = "dds: attach: ";
  const std::string why = folder.empty() ? why_no_log(account) : "";
  if (folder.empty()) {
    line += fmt::format("no log: {}", why);
  } else {
    line += fmt::format("{} ({}), {} of {} due read, {}, {}, in {}", counted(account.steps, "step", "steps"),
                        counted(account.updates, "update", "updates"), account.readings_due, account.due,
                        counted(static_cast<std::int64_t>(networks), "network", "networks"),
                        counted(static_cast<std::int64_t>(layers), "layer", "layers"), folder);
  }
  for (const std::string& note : notes) {
    if (note != why) line += "; " + note;
  }
  std::replace(line.begin(), line.end(), '\n', ' ');
  return line + "\n";
}

void say(const std::string& line) {
  for (std::size_t done = 0; done < line.size();) {
    const ssize_t size = ::write(STDERR_FILENO, line.data() + done, line.size() - done);
    if (size <= 0) return;
    done += static_cast<std::size_t>(size);
  }
}

}  // namespace dds::attach
