// Ranks that are threads of one process: the transport of the tests.
#pragma once

#include <torch/torch.h>

#include <chrono>
#include <condition_variable>
#include <dds/ranks.hpp>
#include <deque>
#include <exception>
#include <functional>
#include <map>
#include <mutex>
#include <stdexcept>
#include <string>
#include <thread>
#include <utility>
#include <vector>

namespace dds::test {

/// Where messages wait, and their senders with them, as Gloo's do. A rank that has left is noticed at once by who waits
/// for it.
class Post {
 public:
  void put(int from, int to, const at::Tensor& bytes) {
    std::unique_lock lock(mutex_);
    std::deque<at::Tensor>& waiting = messages_[{from, to}];
    waiting.push_back(bytes.clone());
    ++sent_[from];
    changed_.notify_all();
    wait(lock, [&] { return waiting.empty() || gone_.contains(to); });
    if (!waiting.empty()) throw std::runtime_error("connection closed by peer");
  }
  void take(int from, int to, const at::Tensor& bytes) {
    std::unique_lock lock(mutex_);
    std::deque<at::Tensor>& waiting = messages_[{from, to}];
    wait(lock, [&] { return !waiting.empty() || gone_.contains(from); });
    if (waiting.empty()) throw std::runtime_error("connection closed by peer");
    if (waiting.front().sizes() != bytes.sizes()) throw std::logic_error("a message of another length");
    bytes.copy_(waiting.front());
    waiting.pop_front();
    changed_.notify_all();
  }
  void leave(int rank) {
    const std::lock_guard lock(mutex_);
    gone_[rank] = true;
    changed_.notify_all();
  }
  int sent(int rank) {
    const std::lock_guard lock(mutex_);
    return sent_[rank];
  }

 private:
  template <class Condition>
  void wait(std::unique_lock<std::mutex>& lock, const Condition& holds) {
    if (!changed_.wait_for(lock, std::chrono::seconds(60), holds)) throw std::runtime_error("timed out");
  }

  std::mutex mutex_;
  std::condition_variable changed_;
  std::map<std::pair<int, int>, std::deque<at::Tensor>> messages_;
  std::map<int, int> sent_;
  std::map<int, bool> gone_;
};

class ThreadRanks final : public Ranks {
 public:
  ThreadRanks(Post& post, int rank, int size) : post_(post), rank_(rank), size_(size) {}
  int rank() const override { return rank_; }
  int size() const override { return size_; }
  void send(const at::Tensor& bytes, int to) override { post_.put(rank_, to, bytes); }
  void receive(const at::Tensor& bytes, int from) override { post_.take(from, rank_, bytes); }

 private:
  Post& post_;
  int rank_, size_;
};

/// Runs `work` on `size` ranks, and returns what each of them threw; empty: nothing. A rank that is through has left.
inline std::vector<std::string> on_ranks(int size, const std::function<void(const RanksPtr&)>& work) {
  Post post;
  std::vector<std::string> thrown(static_cast<std::size_t>(size));
  {
    std::vector<std::jthread> threads;
    threads.reserve(static_cast<std::size_t>(size));
    for (int rank = 0; rank < size; ++rank) {
      threads.emplace_back([&, rank] {
        torch::set_num_threads(1);
        try {
          work(std::make_shared<ThreadRanks>(post, rank, size));
        } catch (const std::exception& error) {
          thrown[static_cast<std::size_t>(rank)] = error.what();
        }
        post.leave(rank);
      });
    }
  }
  return thrown;
}

}  // namespace dds::test
