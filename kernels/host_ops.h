// The operations of ops.h on the host device, done within the call.

#pragma once

#include <bit>
#include <cstddef>

#include "kernels/device.h"
#include "kernels/ops.h"

namespace nibble {

// Memory of the host device is the process's own.
template <typename T = std::byte>
T* HostPointer(DeviceSpan span) {
  return std::bit_cast<T*>(span.address());
}

// Checks shapes and calls the kernels of this processor on the calling thread. Thread-safe.
class HostOps final : public Ops {
 public:
  absl::Status Quantize(Queue& queue, const QuantizeArgs& args) override;
  absl::Status Dequantize(Queue& queue, const DequantizeArgs& args) override;
  absl::Status FindNonFinite(Queue& queue, const FindNonFiniteArgs& args) override;
  absl::Status ExpandF8(Queue& queue, const ExpandF8Args& args) override;
  absl::Status MeasureError(Queue& queue, const MeasureErrorArgs& args) override;
  absl::Status MeanScale(Queue& queue, const MeanScaleArgs& args) override;
  absl::Status QuantizeScales(Queue& queue, const QuantizeScalesArgs& args) override;
  absl::Status DequantizeScales(Queue& queue, const DequantizeScalesArgs& args) override;
};

}  // namespace nibble
