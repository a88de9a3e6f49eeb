// A load in a test, from directory to weights.

#pragma once

#include <filesystem>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "kernels/block_quantize_ref.h"
#include "kernels/check.h"
#include "loader/checkpoint.h"
#include "loader/load_plan.h"
#include "loader/quantizing_loader.h"
#include "loader/vram_budget.h"
#include "loader/weights.h"

namespace nibble {

class NullObserver : public LoadObserver {
 public:
  void OnProgress(const LoadProgress&) override {}
  bool cancelled() const override { return false; }
};

inline absl::StatusOr<Checkpoint> OpenForTest(const std::filesystem::path& path) {
  absl::StatusOr<std::shared_ptr<const CheckpointDirectory>> directory =
      OpenCheckpointDirectory(path.string(), path.string());
  return directory.ok() ? OpenCheckpoint(*std::move(directory)) : directory.status();
}

// Plans what the test has just written. Requires: that works.
inline std::shared_ptr<const LoadPlan> PlanForTest(const Checkpoint& checkpoint,
                                                   const DeviceTraits& traits,
                                                   const QuantizationSpec& spec = {},
                                                   int64_t staging_bytes = kStagingBytesMin) {
  absl::StatusOr<LoadPlan> plan = MakeLoadPlan(checkpoint, spec, {}, traits, staging_bytes);
  Check(plan.ok(), plan.status().ToString().c_str());
  return std::make_shared<const LoadPlan>(*std::move(plan));
}

// Reserves the plan's peak and loads.
inline absl::StatusOr<std::unique_ptr<Weights>> LoadForTest(Device& device, VramBudget& budget,
                                                            const Checkpoint& checkpoint,
                                                            std::shared_ptr<const LoadPlan> plan,
                                                            LoadObserver& observer,
                                                            int reader_count = 0) {
  absl::StatusOr<VramBudget::Reservation> reservation = budget.Reserve("model", plan->peak());
  if (!reservation.ok()) {
    return reservation.status();
  }
  LoaderOptions options;
  options.reader_count = reader_count;
  return LoadWeights(device, checkpoint, std::move(plan), *std::move(reservation), options,
                     observer);
}

// What a part of a loaded tensor should hold: codes or elements, and scales, by the reference.
struct PartBytes {
  std::vector<std::byte> data;
  std::vector<std::byte> scales;

  friend bool operator==(const PartBytes&, const PartBytes&) = default;
};

// `elements` are those of the part, as the test wrote them.
inline PartBytes ExpectedPart(const PlannedTensor& tensor, std::span<const std::byte> elements) {
  PartBytes expected;
  if (tensor.format == Format::kAsStored) {
    expected.data.assign(elements.begin(), elements.end());
    return expected;
  }
  const FloatType type = *AsFloatType(tensor.source_dtype);
  const int64_t count = std::ssize(elements) / BytesPerElement(type);
  const int64_t block_size = tensor.block_size;
  expected.data.resize(static_cast<size_t>((count + 1) / 2));
  expected.scales.resize(static_cast<size_t>((count + block_size - 1) / block_size * 4));
  QuantizeRef(tensor.format == Format::kFp4 ? Codebook::kFp4 : Codebook::kNf4, block_size, type,
              elements.data(), count, reinterpret_cast<uint8_t*>(expected.data.data()),
              reinterpret_cast<float*>(expected.scales.data()));
  return expected;
}

// A plane of a loaded part, as standard bytes.
inline std::vector<std::byte> LoadedPlane(Device& device, const Weights& weights,
                                          const PlannedTensor& tensor, const PlannedPart& part,
                                          Plane plane) {
  absl::StatusOr<std::unique_ptr<Queue>> queue = device.NewQueue();
  Check(queue.ok(), "a queue");
  std::vector<std::byte> bytes(static_cast<size_t>(PlaneBytes(tensor, part, plane)));
  const absl::Status status =
      bytes.empty() ? absl::OkStatus()
                    : weights.CopyStandardBytes(**queue, tensor, part, plane, 0, bytes);
  Check(status.ok(), status.ToString().c_str());
  return bytes;
}

inline PartBytes LoadedPart(Device& device, const Weights& weights, const PlannedTensor& tensor,
                            const PlannedPart& part) {
  return {LoadedPlane(device, weights, tensor, part, Plane::kData),
          LoadedPlane(device, weights, tensor, part, Plane::kScales)};
}

}  // namespace nibble
