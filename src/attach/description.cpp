#include "src/attach/description.hpp"

#include <fmt/format.h>

#include <set>

#include "src/log/file.hpp"

namespace dds::attach {

std::vector<std::string> command_line() {
  std::vector<std::string> words;
  std::string text = log::read_file("/proc/self/cmdline");
  for (std::size_t begin = 0, end; (end = text.find('\0', begin)) != std::string::npos; begin = end + 1) {
    words.push_back(text.substr(begin, end - begin));
  }
  return words;
}

std::string list_of_layers(const Monitor& monitor) {
  std::string table;
  for (const std::string& layer : monitor.layers()) {
    std::set<std::string> runs, others;
    for (const Attribution& use : monitor.attribution()) {
      if (use.layer != layer) continue;
      const bool run = use.outcome == Attribution::Outcome::Captured;
      (run ? runs : others).insert(use.statement());
    }
    for (const std::string& statement : runs.empty() ? others : runs)
      table += fmt::format("{}\t{}\n", layer, statement);
    if (runs.empty() && others.empty()) table += fmt::format("{}\tno operator took a parameter of it\n", layer);
  }
  return table;
}

}  // namespace dds::attach
