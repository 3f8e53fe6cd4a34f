// The exceptions of the library. A message names the offending value and what was expected:
// "read: batch_size is 0, expected at least 1".
#pragma once

#include <dds/export.hpp>
#include <stdexcept>

namespace DDS_EXPORT dds {

/// Base class of the library's exceptions.
class Error : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

/// An argument, option or tensor that the call cannot work with.
class InvalidArgument : public Error {
 public:
  using Error::Error;
};

/// Rows of a layer could not be captured. It is not thrown from the user's `forward` or `backward`, but from the next
/// call of the library.
class CaptureError : public Error {
 public:
  using Error::Error;
};

/// Another process that takes part in a reading or an LLC estimate failed, or was not reached before the transport's
/// time-out.
class RankError : public Error {
 public:
  using Error::Error;
};

/// A file or directory cannot be read or written, or does not hold what it should.
class IoError : public Error {
 public:
  using Error::Error;
};

}  // namespace dds
