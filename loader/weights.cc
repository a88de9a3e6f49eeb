#include "loader/weights.h"

#include <utility>

#include "absl/strings/str_cat.h"

namespace nibble {

Weights::Weights(std::shared_ptr<const LoadPlan> plan,
                 std::unique_ptr<VramBudget::Reservation> reservation, ResidentMemory memory)
    : plan_(std::move(plan)), reservation_(std::move(reservation)), memory_(std::move(memory)) {}

int64_t Weights::allocated_bytes() const { return reservation_->allocated().total(); }

DeviceSpan Weights::plane(const PlannedTensor& tensor, const PlannedPart& part, Plane plane) const {
  const int64_t bytes = PlaneBytes(tensor, part, plane);
  return bytes == 0 ? DeviceSpan() : memory_.slab.span().Slice(part[plane].slab_offset, bytes);
}

DeviceSpan Weights::scale_mean(const PlannedPart& part) const {
  return memory_.slab.span().Slice(part.scale_mean_offset, sizeof(float));
}

DeviceSpan Weights::scale_map(const PlannedTensor& tensor) const {
  return memory_.slab.span().Slice(
      plan_->scale_maps_offset + tensor.scale_map_index * int64_t{sizeof(ScaleMap)},
      sizeof(ScaleMap));
}

absl::Status Weights::CopyStandardBytes(Queue& queue, const PlannedTensor& tensor,
                                        const PlannedPart& part, Plane plane, int64_t offset_bytes,
                                        std::span<std::byte> target) const {
  if (tensor.layout != WeightLayout::kPlain) {
    return absl::UnimplementedError(absl::StrCat(tensor.name, ": no way back from its layout"));
  }
  absl::Status status = queue.CopyToHost(
      this->plane(tensor, part, plane).Slice(offset_bytes, std::ssize(target)), target);
  // Always waits: what was queued still writes to the caller's memory.
  status.Update(queue.Synchronize());
  return status;
}

absl::StatusOr<float> Weights::CopyScaleMean(Queue& queue, const PlannedPart& part) const {
  float mean = 0;
  absl::Status status =
      queue.CopyToHost(scale_mean(part), std::as_writable_bytes(std::span(&mean, 1)));
  status.Update(queue.Synchronize());
  if (!status.ok()) {
    return status;
  }
  return mean;
}

}  // namespace nibble
