#include "src/tool/runs.hpp"

#include <map>

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

}  // namespace dds::tool
