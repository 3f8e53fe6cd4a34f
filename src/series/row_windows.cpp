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
  window.bounds.push_back(rows.bound);
  while (std::ssize(window.bounds) > window.rows.size()) window.bounds.pop_front();
  RankBound bound;
  for (const RankBound& reading : window.bounds) bound.add(reading);
  layer.rows.replace(side, window.rows.all(), std::move(bound));
  if (side != Side::Fisher) return;
  window.cancellations.push_back(layer.cancellation);
  while (std::ssize(window.cancellations) > window.rows.size()) window.cancellations.pop_front();
  layer.cancellation = {};
  for (const Cancellation& reading : window.cancellations) layer.cancellation.add(reading);
}

}  // namespace dds
