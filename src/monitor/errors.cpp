#include "src/monitor/errors.hpp"

#include <fmt/format.h>

#include "src/base/logger.hpp"

namespace dds {

void MonitorErrors::guard(const std::function<void()>& work) noexcept {
  try {
    try {
      work();
    } catch (const std::exception& error) {
      ++count_;
      if (!handler_) throw;
      handle(error);
    }
  } catch (...) {
    const std::lock_guard lock(mutex_);
    if (!error_) error_ = std::current_exception();
  }
}

void MonitorErrors::guard_write(const std::function<void()>& write) {
  try {
    write();
  } catch (const IoError& error) {
    ++count_;
    {
      const std::lock_guard lock(mutex_);
      if (!unwritable_.insert(error.what()).second) return;
      if (!handler_ && !log_error_) log_error_ = std::make_exception_ptr(error);
    }
    if (handler_) return handle(error);
    log::tell(Level::Error, fmt::format("Monitor: {}; the training goes on", error.what()));
  }
}

void MonitorErrors::handle(const std::exception& error) {
  const std::lock_guard lock(handler_mutex_);
  handler_(error);
}

std::exception_ptr MonitorErrors::taken(std::exception_ptr& kept) {
  const std::lock_guard lock(mutex_);
  return std::exchange(kept, nullptr);
}

std::exception_ptr MonitorErrors::take() { return taken(error_); }

void MonitorErrors::rethrow() {
  if (const std::exception_ptr error = take()) std::rethrow_exception(error);
}

void MonitorErrors::rethrow_all() {
  rethrow();
  if (const std::exception_ptr error = taken(log_error_)) std::rethrow_exception(error);
}

}  // namespace dds
