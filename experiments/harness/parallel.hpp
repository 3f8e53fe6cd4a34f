// Independent pieces of work on all cores, one LibTorch thread each.
#pragma once

#include <ATen/Parallel.h>

#include <algorithm>
#include <atomic>
#include <cstddef>
#include <exception>
#include <mutex>
#include <thread>
#include <vector>

namespace dds::experiments {

/// {work(0), ..., work(n - 1)}. They run in that order as threads get free, so the longest should come first; `done`
/// hears how many are finished, one call at a time. The first exception is thrown once all threads have stopped.
template <class Work, class Done>
auto in_parallel(std::size_t n, const Work& work, const Done& done) {
  std::vector<decltype(work(n))> results(n);
  std::atomic<std::size_t> next = 0;
  std::size_t finished = 0;
  std::exception_ptr error;
  std::mutex mutex;
  {
    std::vector<std::jthread> threads;
    for (std::size_t t = 0; t < std::min<std::size_t>(n, std::max(1u, std::thread::hardware_concurrency())); ++t) {
      threads.emplace_back([&] {
        at::set_num_threads(1);  // new threads begin with one per core
        for (std::size_t i = next++; i < n; i = next++) {
          try {
            results[i] = work(i);
            const std::lock_guard lock(mutex);
            done(++finished);
          } catch (...) {
            const std::lock_guard lock(mutex);
            if (!error) error = std::current_exception();
            next = n;
          }
        }
      });
    }
  }
  if (error) std::rethrow_exception(error);
  return results;
}

}  // namespace dds::experiments
