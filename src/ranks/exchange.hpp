// Parcels from one rank to another.
#pragma once

#include <dds/error.hpp>
#include <dds/ranks.hpp>
#include <exception>
#include <string>

#include "src/ranks/parcel.hpp"

namespace dds {

/// All throw RankError, which names the two ranks, for whatever the transport throws.
void send(Ranks& ranks, const Parcel& parcel, int to);
Parcel receive(Ranks& ranks, int from);

/// What an exception says, for other ranks; of LibTorch's without the stack. Never empty, since no text means
/// no error.
std::string text_of(const std::exception_ptr& error);

/// In the place of a parcel: what keeps this rank from having one. There, `receive` throws it as a ToldError.
void send_error(Ranks& ranks, const std::string& error, int to);

/// An error that the rank at the other end tells of; it can be reached.
class ToldError : public RankError {
 public:
  using RankError::RankError;
};

}  // namespace dds
