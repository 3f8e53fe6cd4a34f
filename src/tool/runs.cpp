#include "src/tool/runs.hpp"

#include <map>

#include "src/base/check.hpp"
#include "src/log/file.hpp"

namespace dds::tool {

std::vector<const Signature*> last_readings(const log::Run& run) {
  std::vector<SeriesId> order;
  std::map<SeriesId, const Signature*> last;
  for (const Signature& s : run.signatures) {
    const auto [place, is_new] = last.try_emplace(series_of(s), &s);
    if (is_new) order.push_back(place->first);
    if (s.step >= place->second->step) place->second = &s;
  }
  std::vector<const Signature*> readings;
  readings.reserve(order.size());
  for (const SeriesId& id : order) readings.push_back(last.at(id));
  return readings;
}

void check_free(const char* command, const std::filesystem::path& file, bool overwrite) {
  check(overwrite || !log::is_there(file), command, "the file to write", file.string(),
        "one that is not there yet, or --overwrite");
}

}  // namespace dds::tool
