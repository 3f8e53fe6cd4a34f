// Hears of the operators of a program before the recorder does.
#pragma once

#include <ATen/core/Tensor.h>

#include <atomic>
#include <cstddef>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "hooks/observer.hpp"

namespace dds::attach {

/// What it tells of operators in grad mode, on all threads.
struct Heard {
  /// An operator is about to take these leaves that want a gradient. `looked_at`: it takes nothing else. `bytes`: of
  /// the other tensors that it takes.
  std::function<void(const std::vector<at::Tensor>& leaves, bool looked_at, std::size_t bytes)> parameters;
  /// An operator is about to run; told after `parameters`.
  std::function<void(std::string_view name, c10::ArrayRef<const c10::IValue> args)> operator_starts;
  /// An error in one of these.
  std::function<void(const std::string& what)> failed;
};

class Ear : public hooks::Listener {
 public:
  explicit Ear(Heard heard) : heard_(std::move(heard)) {}
  void listen(bool on) { listening_ = on; }

  bool all_threads() const override { return true; }
  bool exclusive() const override { return false; }
  bool listening() const override { return listening_; }
  std::unique_ptr<hooks::OperatorNote> operator_starts(std::string_view name, c10::ArrayRef<const c10::IValue> args,
                                                       bool grad_mode, hooks::Nesting& nesting) override;
  void operator_ends(std::string_view, hooks::OperatorNote&, const std::vector<c10::IValue>&,
                     hooks::Nesting&) override {}
  void tapped(std::string_view, const at::Tensor&) override {}
  void failed(std::string_view where, std::string_view what) override;

 private:
  const Heard heard_;
  std::atomic<bool> listening_ = false;
};

}  // namespace dds::attach
