// Several processes that read together, over the training's own c10d process group or over any other transport.
//
//   auto group = c10::make_intrusive<c10d::ProcessGroupGloo>(store, rank, size, options);
//   const dds::RanksPtr ranks = dds::ranks_of(group);
//   dds::Monitor monitor(*model, dds::MonitorOptions().signatures(dds::SignatureOptions().ranks(ranks)),
//                        ranks->rank() == 0 ? dds::log::directory("runs/a") : nullptr);
//
// Every rank attaches to its own copy of the model and captures its own rows. On a due step each layer's triangular
// factor goes up a binomial tree to rank 0. Rank 0 reads the spectrum of all rows together and logs it. For the bytes
// and rounds see src/docs/several_processes.md.
#pragma once

#include <ATen/core/Tensor.h>
#include <c10/core/Device.h>
#include <c10/util/intrusive_ptr.h>

#include <dds/export.hpp>
#include <memory>
#include <utility>
#include <vector>

namespace DDS_EXPORT dds {

/// The processes that take part, numbered from 0, and a way to send bytes from one to another. The library needs no
/// more of a transport. An exception of the transport reaches the caller as a RankError.
class Ranks {
 public:
  virtual ~Ranks() = default;
  /// Number of this process: 0 <= rank() < size().
  virtual int rank() const = 0;
  /// Number of processes.
  virtual int size() const = 0;
  /// Sends `bytes` (1-d, Byte, CPU, contiguous) to rank `to`. Returns when the caller may overwrite `bytes`.
  virtual void send(const at::Tensor& bytes, int to) = 0;
  /// Waits for the next message from rank `from`, and fills `bytes` (1-d, Byte, CPU, contiguous) with it. The message
  /// has the length of `bytes`. Messages of one rank arrive in the order in which it sent them.
  /// Throws if none comes within the transport's time-out.
  virtual void receive(const at::Tensor& bytes, int from) = 0;
};
using RanksPtr = std::shared_ptr<Ranks>;

/// Ranks over `group`: a c10d::ProcessGroup or, since LibTorch 2, a c10d::Backend (Gloo, NCCL, MPI, ...). Any class
/// with c10d's getRank, getSize, send and recv will do. As a template, the function keeps c10d out of the library.
///
/// Messages go through memory on `device`. NCCL needs the rank's GPU there. A rank that dies or hangs is noticed after
/// the group's time-out at the latest.
///
/// While a reading is under way, nothing else may send between two ranks over the group. With Worker::Wait readings run
/// beside the training: give them a group of their own.
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
