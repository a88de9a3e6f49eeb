// A load in a test, from directory to weights.

#pragma once

#include <array>
#include <filesystem>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "kernels/check.h"
#include "kernels/scale_quantize_ref.h"
#include "kernels/scale_search_ref.h"
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
  const LoadSource source{&checkpoint, std::move(plan)};
  return LoadWeights(device, std::span(&source, 1), *std::move(reservation), options, observer);
}

// What a part of a loaded tensor should hold, by the reference: its planes, and the mean of its
// scales if they are in 8 bits.
struct PartBytes {
  std::array<std::vector<std::byte>, kPlaneCount> planes;
  float scale_mean = 0;

  std::vector<std::byte>& operator[](Plane plane) { return planes[static_cast<size_t>(plane)]; }

  friend bool operator==(const PartBytes&, const PartBytes&) = default;
};

// `elements` are those of the part, as the test wrote them.
inline PartBytes ExpectedPart(const PlannedTensor& tensor, std::span<const std::byte> elements,
                              ScaleSearch search = ScaleSearch::kNone) {
  PartBytes expected;
  if (!tensor.quantized()) {
    expected[Plane::kData].assign(elements.begin(), elements.end());
    return expected;
  }
  const FloatType type = *AsFloatType(tensor.source_dtype);
  const int64_t count = std::ssize(elements) / BytesPerElement(type);
  const int64_t block_count = (count + tensor.block_size - 1) / tensor.block_size;
  const auto size = [](int64_t bytes) { return static_cast<size_t>(bytes); };
  expected[Plane::kData].resize(size((count + 1) / 2));
  std::vector<float> scales(size(block_count));
  ScaleSearchRef(search, CodebookOf(tensor.format), tensor.block_size, type, elements.data(), count,
                 reinterpret_cast<uint8_t*>(expected[Plane::kData].data()), scales.data());
  if (!tensor.double_quantized) {
    const auto bytes = std::as_bytes(std::span(scales));
    expected[Plane::kScales].assign(bytes.begin(), bytes.end());
    return expected;
  }
  expected[Plane::kScales].resize(size(block_count));
  expected[Plane::kScaleMaxima].resize(size((block_count + 255) / 256 * 4));
  expected.scale_mean = MeanScaleRef(scales.data(), block_count);
  QuantizeScalesRef(scales.data(), block_count, expected.scale_mean,
                    reinterpret_cast<uint8_t*>(expected[Plane::kScales].data()),
                    reinterpret_cast<float*>(expected[Plane::kScaleMaxima].data()));
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
  PartBytes loaded;
  for (const Plane plane : kPlanes) {
    loaded[plane] = LoadedPlane(device, weights, tensor, part, plane);
  }
  if (tensor.double_quantized) {
    absl::StatusOr<std::unique_ptr<Queue>> queue = device.NewQueue();
    Check(queue.ok(), "a queue");
    const absl::StatusOr<float> mean = weights.CopyScaleMean(**queue, part);
    Check(mean.ok(), "the mean comes back");
    loaded.scale_mean = *mean;
  }
  return loaded;
}

}  // namespace nibble
