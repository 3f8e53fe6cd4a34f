// The library's side of <dds/signature_options.hpp>.
#pragma once

#include <cstdint>
#include <dds/signature_options.hpp>

namespace dds {

/// Throws InvalidArgument, which names `function`, for options out of range.
void check(const SignatureOptions& options, const char* function);

/// True if the options ask for this side.
bool wants(const SignatureOptions& options, Side side);
/// The most rows of a layer of this width that one rank of SignatureOptions::ranks keeps.
std::int64_t own_max_rows(const SignatureOptions& options, std::int64_t width);
/// The stream of the seed that this rank draws from.
std::uint64_t stream_of(const SignatureOptions& options);

}  // namespace dds
