// What was heard of a program, what was read of it and what was not: in run.json, and as one line at the end.
#pragma once

#include <cstdint>
#include <nlohmann/json.hpp>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "src/attach/leaves.hpp"

namespace dds::attach {

struct Account {
  std::int64_t passes = 0;                 ///< backward passes through parameters
  std::int64_t passes_outside = 0;         ///< ... through which no gradient of a parameter was asked for
  std::int64_t passes_of_nothing = 0;      ///< ... before any parameter was known
  std::int64_t passes_without_update = 0;  ///< times that gradients were dropped without an update
  std::int64_t updates = 0;
  std::int64_t by_versions = 0, by_elements = 0, by_optimisers = 0;  ///< updates, by what they were seen
  std::int64_t updates_per_step = 0;                                 ///< 0: not known yet
  std::int64_t steps = 0, due = 0;
  std::int64_t readings = 0, readings_due = 0;  ///< all, and those of or in place of due steps
  std::int64_t forks = 0;                       ///< processes that were forked, which are not followed
  bool threads_overlap = false;                 ///< passes of several threads came between updates
};

/// Steps that are due among so many.
std::int64_t due_steps(std::int64_t steps, std::int64_t every, std::optional<std::int64_t> stop_after);

/// Those of `layers` that are not in `read`.
std::vector<std::string> never_read(const std::vector<std::string>& layers, const std::set<std::string>& read);

nlohmann::ordered_json description_of(const std::vector<Leaves::Source>& networks);
nlohmann::ordered_json description_of(const Account& account);

/// What was not read though it was due, and why labels of steps cannot be trusted: a sentence each.
std::vector<std::string> losses_of(const Account& account, const std::vector<Leaves::Source>& networks,
                                   const std::vector<std::string>& layers_never_read);

/// One line. `folder`: of the log; empty where there is none, and the line says why.
std::string summary_of(const Account& account, std::size_t networks, std::size_t layers,
                       const std::vector<std::string>& notes, const std::string& folder);

/// Writes a line on the standard error.
void say(const std::string& line);

}  // namespace dds::attach
