// The errors of the library: one family, each message naming the offending value and what was expected.
#pragma once

#include <dds/export.hpp>
#include <stdexcept>

namespace DDS_EXPORT dds {

/// Base of everything that the library throws on purpose.
class Error : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

/// An argument, option or tensor that the call cannot work with.
class InvalidArgument : public Error {
 public:
  using Error::Error;
};

/// Rows of a layer could not be captured. Never thrown from the user's `forward` or `backward`: it surfaces from the
/// next call of the library's own.
class CaptureError : public Error {
 public:
  using Error::Error;
};

/// Another process that takes part in a reading failed, or could not be reached in the transport's time.
class RankError : public Error {
 public:
  using Error::Error;
};

/// A file or directory that cannot be read or written, or that holds something else than it should.
class IoError : public Error {
 public:
  using Error::Error;
};

}  // namespace dds
