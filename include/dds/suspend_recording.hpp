// A scope in which nothing is recorded.
#pragma once

#include <dds/export.hpp>

namespace DDS_EXPORT dds {

/// Within the scope of such an object, no recorder and no observing hook sees what this thread runs. Other threads are
/// not affected. Scopes nest.
///
///   const dds::SuspendRecording unseen;
///   model->forward(validation_batch);
class SuspendRecording {
 public:
  SuspendRecording();
  ~SuspendRecording();
  SuspendRecording(const SuspendRecording&) = delete;
  SuspendRecording& operator=(const SuspendRecording&) = delete;
};

}  // namespace dds
