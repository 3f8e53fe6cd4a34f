#include "src/series/row_windows.hpp"

#include <utility>

namespace dds {

void RowWindows::join(ReadingRows::Layer& layer, const SignatureOptions& options) {
  if (capacity_ <= 1) return;
  for (const Side side : options.sides()) join(layer, side);
}

void RowWindows::join(ReadingRows::Layer& layer, Side side) {
  const SideRows& rows = layer.rows.side(side);
  if (!rows.whole()) return;
  const std::pair key{layer.rows.layer(), side};
  const auto known = windows_.find(key);
  if (known != windows_.end() && known->second.dtype != rows.dtype) windows_.erase(known);
  Window& window = windows_.try_emplace(key, Window{TriangularWindow(capacity_), rows.dtype, {}, {}}).first->second;
  window.rows.push(*rows.factor);
  SideRows& reading = window.readings.emplace_back(rows);
  const bool centred = rows.mean.value.defined();
  if (!centred) reading.factor.reset();
  while (std::ssize(window.readings) > window.rows.size()) window.readings.pop_front();
  SideRows all = rows;
  all.bound = {};
  all.ranges = {};
  for (const SideRows& each : window.readings) {
    all.bound.add(each.bound);
    all.ranges.add(each.ranges);
  }
  if (centred) {
    all.factor = window.readings.front().factor;
    all.mean = window.readings.front().mean;
    for (std::size_t i = 1; i < window.readings.size(); ++i) {
      const SideRows& next = window.readings[i];
      all.factor = joined_centred(*all.factor, all.mean, *next.factor, next.mean);
    }
  } else {
    all.factor = window.rows.all();
  }
  layer.rows.replace(side, std::move(all));
  if (side != Side::Fisher) return;
  window.cancellations.push_back(layer.cancellation);
  while (std::ssize(window.cancellations) > window.rows.size()) window.cancellations.pop_front();
  layer.cancellation = {};
  for (const Cancellation& reading : window.cancellations) layer.cancellation.add(reading);
}

}  // namespace dds
