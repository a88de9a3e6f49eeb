#include "loader/weights.h"

#include <utility>

#include "absl/strings/str_cat.h"

namespace nibble {

Weights::Weights(std::shared_ptr<const LoadPlan> plan,
                 std::unique_ptr<VramBudget::Reservation> reservation, DeviceBuffer slab)
    : plan_(std::move(plan)), reservation_(std::move(reservation)), slab_(std::move(slab)) {}

int64_t Weights::allocated_bytes() const { return reservation_->allocated().total(); }

DeviceSpan Weights::data(const PlannedTensor& tensor, const PlannedPart& part) const {
  return slab_.span().Slice(part.data_offset, plan_->data_bytes(tensor, part));
}

DeviceSpan Weights::scales(const PlannedTensor& tensor, const PlannedPart& part) const {
  return slab_.span().Slice(part.scales_offset, plan_->scales_bytes(tensor, part));
}

absl::Status Weights::CopyStandardBytes(Queue& queue, const PlannedTensor& tensor,
                                        const PlannedPart& part, std::span<std::byte> data,
                                        std::span<std::byte> scales) const {
  if (tensor.layout != WeightLayout::kPlain) {
    return absl::UnimplementedError(absl::StrCat(tensor.name, ": no way back from its layout"));
  }
  absl::Status status = queue.CopyToHost(this->data(tensor, part), data);
  if (status.ok() && !scales.empty()) {
    status = queue.CopyToHost(this->scales(tensor, part), scales);
  }
  // Always waits: what was queued still writes to the caller's memory.
  status.Update(queue.Synchronize());
  return status;
}

}  // namespace nibble
