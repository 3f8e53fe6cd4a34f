// Parcels between ranks, and the tree in which they are joined.
#pragma once

#include <dds/ranks.hpp>
#include <functional>

#include "src/ranks/parcel.hpp"

namespace dds {

/// Both throw RankError, which names the two ranks, for whatever the transport throws.
void send(Ranks& ranks, const Parcel& parcel, int to);
Parcel receive(Ranks& ranks, int from);

/// Up a binomial tree to rank 0: in round k = 0, 1, ... those whose number is 2^k modulo 2^(k+1) send what they have to
/// the rank 2^k below, and are done. So every rank but the first sends once, none receives more than log2(size)
/// parcels, and what is joined is the same in the same order at every run. True on rank 0, which then has everything.
///
/// `join(parcel)` takes another rank's into one's own; `pack()` is asked for once, when all is joined that will be.
bool gather_to_first(Ranks& ranks, const std::function<Parcel()>& pack, const std::function<void(Parcel)>& join);

/// The same tree downwards: every rank gets the parcel of rank 0.
Parcel spread_from_first(Ranks& ranks, Parcel parcel);

}  // namespace dds
