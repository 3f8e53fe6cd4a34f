// What a Session says: in run.json, and at the end on the standard error.
#include <fmt/format.h>
#include <fmt/ranges.h>
#include <unistd.h>

#include <algorithm>
#include <sstream>

#include "src/attach/description.hpp"
#include "src/attach/folder.hpp"
#include "src/attach/names.hpp"
#include "src/attach/session.hpp"
#include "src/base/glob.hpp"
#include "src/log/json.hpp"

namespace dds::attach {

void Session::note(const std::string& what) {
  constexpr std::size_t kNotes = 20;  // kept, of what went otherwise than expected
  if (notes_.size() < kNotes && std::find(notes_.begin(), notes_.end(), what) == notes_.end()) notes_.push_back(what);
}

std::string Session::idle_patterns() {
  constexpr std::ptrdiff_t kNamed = 20;
  const std::vector<std::string> layers(leaves_->layers().begin(), leaves_->layers().end());
  std::string lines;
  if (layers.empty()) return lines;
  const std::ptrdiff_t more = std::max<std::ptrdiff_t>(0, std::ssize(layers) - kNamed);
  const std::string names = fmt::format("{}{}", fmt::join(layers.begin(), layers.end() - more, ", "),
                                        more > 0 ? fmt::format(" and {} more", more) : "");
  for (const std::string& pattern : settings_.layers) {
    const auto matches = [&](const std::string& layer) { return glob_match(pattern, layer); };
    if (std::any_of(layers.begin(), layers.end(), matches)) continue;
    note(fmt::format("the pattern '{}' selects none of the layers {}", pattern, names));
    lines += fmt::format("{}\tselects none of the layers {}\n", pattern, names);
  }
  return lines;
}

void Session::sum_up() {
  using Evidence = Update::Evidence;
  account_.by_versions = training_.count(Evidence::Versions);
  account_.by_elements = training_.count(Evidence::Elements);
  account_.by_optimisers = training_.count(Evidence::Optimisers);
  account_.threads_overlap = training_.threads_overlap();
  account_.forks = forks_;
  account_.steps = step();
  account_.due = due_steps(step(), settings_.every, settings_.stop_after);
  account_.updates_per_step = steps_.certain() ? steps_.updates_per_step() : 0;
}

std::vector<std::string> Session::layers_never_read() const {
  std::vector<std::string> layers = never_read(recording_->monitor().layers(), folder_->layers_read());
  std::erase_if(layers, [this](const std::string& layer) { return leaves_->vectors().contains(layer); });
  return layers;
}

void Session::describe() {
  sum_up();
  nlohmann::ordered_json attached{
      {"command", command_line()},
      {"pid", ::getpid()},
      {"every", settings_.every},
      {"layers", recording_->monitor().layers()},
      {"networks", description_of(leaves_->networks())},
      {"leaves_by_order_of_use", leaves_->alone()},
  };
  attached.update(description_of(account_));
  attached["layers_never_read"] = layers_never_read();
  attached["notes"] = notes_;
  if (snapshots_) {
    nlohmann::ordered_json& of_snapshots = attached[kSnapshotDescription];
    of_snapshots = probe_.description();
    of_snapshots["written"] = snapshots_->written();
    of_snapshots["failed"] = failed_snapshots_;
  }
  folder_->describe(kDescription, log::json_text(attached));
}

void Session::tell(const std::string& idle) {
  if (settings_.list.empty()) {
    std::istringstream lines(idle);
    for (std::string line; std::getline(lines, line);) {
      const std::size_t tab = line.find('\t');
      say(fmt::format("dds: error: attach: the pattern '{}' {}\n", line.substr(0, tab), line.substr(tab + 1)));
    }
  }
  if (settings_.quiet || !settings_.list.empty()) return;
  const bool trained = account_.passes + account_.passes_outside + account_.passes_of_nothing > 0;
  if (!trained && settings_.process != ::getpid()) return;
  say(summary_of(account_, leaves_->networks().size(), folder_->layers_read().size(), notes_,
                 folder_->is_there() ? folder_->path().string() : ""));
}

}  // namespace dds::attach
