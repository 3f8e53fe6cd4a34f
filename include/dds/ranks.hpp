// Several processes that read together: over the process group of c10d that the training has already, or over any other
// transport.
//
//   auto group = c10::make_intrusive<c10d::ProcessGroupGloo>(store, rank, size, options);
//   const dds::RanksPtr ranks = dds::ranks_of(group);
//   dds::Monitor monitor(*model, dds::MonitorOptions().signatures(dds::SignatureOptions().ranks(ranks)),
//                        ranks->rank() == 0 ? dds::log::directory("runs/a") : nullptr);
//
// Every rank attaches to its own copy of the model and captures its own rows. On a due step each layer's triangular
// factor goes up a binomial tree to rank 0, which reads the spectrum of all rows together and logs it:
// src/docs/several_processes.md has the bytes and rounds.
#pragma once

#include <ATen/core/Tensor.h>
#include <c10/core/Device.h>
#include <c10/util/intrusive_ptr.h>

#include <dds/export.hpp>
#include <memory>
#include <utility>
#include <vector>

namespace DDS_EXPORT dds {

/// The processes that take part, numbered from 0, and a way of sending bytes from one to another. That is all that the
/// library asks of a transport. What a transport throws reaches the caller as a RankError.
class Ranks {
 public:
  virtual ~Ranks() = default;
  /// Number of this process, at least 0 and less than size().
  virtual int rank() const = 0;
  virtual int size() const = 0;
  /// Sends `bytes` (1-d, Byte, CPU, contiguous) to rank `to`, and returns when they may be written to again.
  virtual void send(const at::Tensor& bytes, int to) = 0;
  /// Fills `bytes` (of the same kind) with the next message from rank `from`, which has that length, and returns when
  /// it is there. Messages of one rank arrive in the order in which it sent them. Throws if none comes within the
  /// transport's time-out.
  virtual void receive(const at::Tensor& bytes, int from) = 0;
};
using RanksPtr = std::shared_ptr<Ranks>;

/// Ranks over `group`: a c10d::ProcessGroup or, since LibTorch 2, one of its backends (Gloo, NCCL, MPI, ...), anything
/// with c10d's getRank, getSize, send and recv. Messages go through memory on `device`, which NCCL wants to be the
/// rank's GPU. A rank that dies or hangs is noticed after the group's own time-out at the latest.
///
/// While readings are under way, nothing else may use the group to send between two ranks. A Worker reads beside the
/// training: give it a group of its own.
/// The function is a template, so that the library itself needs nothing of c10d.
template <class Group>
RanksPtr ranks_of(c10::intrusive_ptr<Group> group, at::Device device = at::kCPU) {
  class OverGroup final : public Ranks {
   public:
    OverGroup(c10::intrusive_ptr<Group> group, at::Device device) : group_(std::move(group)), device_(device) {}
    int rank() const override { return group_->getRank(); }
    int size() const override { return group_->getSize(); }
    void send(const at::Tensor& bytes, int to) override {
      std::vector<at::Tensor> tensors{bytes.to(device_)};
      group_->send(tensors, to, kTag)->wait();
    }
    void receive(const at::Tensor& bytes, int from) override {
      std::vector<at::Tensor> tensors{bytes.new_empty(bytes.sizes(), bytes.options().device(device_))};
      group_->recv(tensors, from, kTag)->wait();
      bytes.copy_(tensors.front());
    }

   private:
    enum { kTag = 0xdd5 };
    c10::intrusive_ptr<Group> group_;
    at::Device device_;
  };
  return std::make_shared<OverGroup>(std::move(group), device);
}

}  // namespace dds
