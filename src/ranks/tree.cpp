#include "src/ranks/tree.hpp"

#include <dds/error.hpp>
#include <exception>
#include <optional>
#include <utility>

#include "src/ranks/exchange.hpp"

namespace dds {

void Tree::with(int other, const std::function<void()>& work) {
  if (lost_.contains(other)) return;
  try {
    work();
  } catch (const ToldError& told) {
    set_loss(told.what());
  } catch (...) {
    lost_.insert(other);
    set_loss(text_of(std::current_exception()));
  }
}

void Tree::attempt(const std::function<void()>& work) {
  try {
    work();
  } catch (...) {
    set_loss(text_of(std::current_exception()));
  }
}

void Tree::set_loss(std::string what) {
  if (loss_.empty()) loss_ = std::move(what);
}

bool Tree::reduce(const std::function<Parcel()>& pack, const std::function<void(Parcel)>& join) {
  const bool known = !loss_.empty();
  std::optional<Parcel> own;  // none after a loss
  const int rank = ranks_.rank(), size = ranks_.size();
  for (std::int64_t step = 1; step < size; step *= 2) {
    const int apart = static_cast<int>(step);
    if ((rank & apart) != 0) {
      const int above = rank - apart;
      if (loss_.empty()) attempt([&] { own = pack(); });
      with(above, [&] { own ? send(ranks_, *own, above) : send_error(ranks_, loss_, above); });
      break;
    }
    if (apart >= size - rank) continue;
    std::optional<Parcel> theirs;
    with(rank + apart, [&] { theirs = receive(ranks_, rank + apart); });
    if (theirs && loss_.empty()) attempt([&] { join(std::move(*theirs)); });
  }
  if (!known && !loss_.empty()) throw RankError(loss_);
  return rank == 0 && loss_.empty();
}

Parcel Tree::broadcast(Parcel parcel) {
  const int rank = ranks_.rank(), size = ranks_.size();
  std::int64_t step = 1;  // at which this rank gets it: its lowest bit; rank 0 has it
  while (step < size && (rank & step) == 0) step *= 2;
  if (rank != 0) {
    const int above = rank - static_cast<int>(step);
    with(above, [&] { parcel = receive(ranks_, above); });
  }
  for (step /= 2; step >= 1; step /= 2) {
    if (step >= size - rank) continue;
    const int below = rank + static_cast<int>(step);
    with(below, [&] { loss_.empty() ? send(ranks_, parcel, below) : send_error(ranks_, loss_, below); });
  }
  if (!loss_.empty()) throw RankError(loss_);
  return parcel;
}

}  // namespace dds
