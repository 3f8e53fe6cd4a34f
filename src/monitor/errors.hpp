// What went wrong in a monitor: counted, and kept for the next call or given to the user's handler.
#pragma once

#include <atomic>
#include <cstdint>
#include <dds/error.hpp>
#include <exception>
#include <functional>
#include <mutex>
#include <set>
#include <string>
#include <utility>

namespace dds {

/// For any threads at once. The handler (MonitorOptions::on_error; may be empty) is called by one at a time.
class MonitorErrors {
 public:
  using Handler = std::function<void(const std::exception&)>;
  explicit MonitorErrors(Handler handler) : handler_(std::move(handler)) {}

  /// Runs `work`. What it throws goes to the handler, or is kept.
  void guard(const std::function<void()>& work) noexcept;
  /// Runs `write`, which gives something to the log. An IoError of it harms nobody's training: of those that say the
  /// same the first goes to the handler, or else to the logger and to rethrow_all(). Throws what else it throws.
  void guard_write(const std::function<void()>& write);

  /// The first error that was kept, which is then forgotten; null: none.
  std::exception_ptr take();
  /// Throws the first error that was kept, but for those of writing the log.
  void rethrow();
  /// Throws those of writing the log too.
  void rethrow_all();

  std::int64_t count() const { return count_; }

 private:
  void handle(const std::exception& error);
  std::exception_ptr taken(std::exception_ptr& kept);

  Handler handler_;
  std::mutex handler_mutex_;
  std::atomic<std::int64_t> count_ = 0;
  std::mutex mutex_;  ///< of what follows
  std::exception_ptr error_;
  std::exception_ptr log_error_;
  std::set<std::string> unwritable_;  ///< what IoErrors said
};

}  // namespace dds
