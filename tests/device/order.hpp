// Which work on a device is ordered after which: vector clocks over streams, events and the host.
//
// Work on a stream is numbered. The clock of a stream, an event or the host says for each stream up to which number its
// work is known to be done before what follows there. A launch is after everything that the host knows to be done.
#pragma once

#include <c10/core/Stream.h>

#include <cstdint>
#include <map>
#include <mutex>
#include <set>
#include <string>
#include <utility>
#include <vector>

namespace dds::test::strict {

using StreamKey = std::pair<c10::DeviceIndex, c10::StreamId>;
inline StreamKey key_of(const c10::Stream& stream) { return {stream.device_index(), stream.id()}; }

/// Up to which number the work of each stream is done.
class Clock {
 public:
  std::uint64_t operator[](StreamKey stream) const {
    const auto found = done_.find(stream);
    return found == done_.end() ? 0 : found->second;
  }
  void join(const Clock& other);
  std::uint64_t advance(StreamKey stream) { return ++done_[stream]; }
  bool includes(const Clock& other) const;

 private:
  std::map<StreamKey, std::uint64_t> done_;
};

/// One piece of work that used a block of memory.
struct Access {
  StreamKey stream;
  std::uint64_t number = 0;  ///< 0: none
  std::string what;          ///< the operator
};

/// The last uses of a block of memory.
struct History {
  StreamKey home;  ///< the stream that was current when it was allocated, on which it is used again once freed
  Access write;
  std::map<StreamKey, Access> reads;  ///< since the last write
  std::set<StreamKey> recorded;       ///< streams that record_stream has named
};

class Order {
 public:
  /// Work that begins on `stream`. Returns its number.
  std::uint64_t launch(StreamKey stream);
  /// That work reads or writes a block. Gives the complaint, or an empty text.
  std::string use(History& block, bool writes, const Access& access);
  /// The complaint about a block that is freed while a stream may still use it.
  std::string free(const History& block);

  Clock record(StreamKey stream);  ///< the clock of an event
  void block(const Clock& event, StreamKey stream);
  void wait(const Clock& event);     ///< the host waits for an event
  void wait(StreamKey stream);       ///< and for a stream
  bool is_done(const Clock& event);  ///< as far as the host knows

 private:
  bool is_before(const Access& access, StreamKey stream);

  std::mutex mutex_;
  Clock host_;
  std::map<StreamKey, Clock> streams_;
};

}  // namespace dds::test::strict
