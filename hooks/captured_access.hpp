// What the recorder writes into the calls and losses that it hands out.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstddef>
#include <dds/recorder.hpp>
#include <memory>
#include <utility>

#include "hooks/gradient_slot.hpp"
#include "hooks/memory.hpp"

namespace dds::hooks {

struct CapturedAccess {
  static void set_output(CapturedCall& call, at::Tensor output) {
    call.output = std::move(output);
    call.output_version_ = version_of(call.output);
  }
  static void set_input(CapturedCall& call, std::size_t i, at::Tensor input) {
    call.inputs[i] = std::move(input);
    if (i == 0) call.input_version_ = version_of(call.inputs[0]);
  }
  static void set_gradient(CapturedCall& call, std::shared_ptr<GradientSlot> slot) { call.slot_ = std::move(slot); }
  static void set_operator(CapturedCall& call, std::shared_ptr<CapturedOperator> op) { call.operator_ = std::move(op); }
  using TrainedPtr = std::shared_ptr<const hooks::Trained>;
  static void set_logits(CapturedLoss& loss, const at::Tensor& logits, const TrainedPtr& trained) {
    loss.logits = logits.detach();
    loss.version_ = version_of(loss.logits);
    loss.at_logits_ = GradientSlot::of(logits, trained);
  }
  static void set_result(CapturedLoss& loss, const at::Tensor& result, const TrainedPtr& trained) {
    loss.at_result_ = GradientSlot::of(result, trained);
  }
};

}  // namespace dds::hooks
