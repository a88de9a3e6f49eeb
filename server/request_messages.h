// Requests as they come in: messages of the wire contract become what the registry understands.
// Here is checked what only the wire can get wrong (unknown enumerators, numbers beyond 63 bits,
// another device, what is not there yet); names, sources and sizes are checked by those who use
// them.

#pragma once

#include <nibble/v1/memory.pb.h>
#include <nibble/v1/model.pb.h>

#include <cstdint>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "loader/load_spec.h"
#include "server/model_registry.h"

namespace nibble {

inline constexpr absl::Duration kDrainTimeoutDefault = absl::Seconds(30);

// Errors of all of these: INVALID_ARGUMENT that names the field in the words of the .proto file;
//   UNIMPLEMENTED for what this version does not do yet.

absl::StatusOr<QuantizationSpec> ParseQuantization(const v1::Quantization& message);
absl::StatusOr<ServingSpec> ParseServing(const v1::Serving& message);

// `device` is the daemon's own, the only one that a request may name.
absl::StatusOr<LoadRequest> ParseLoad(const v1::LoadModelRequest& message,
                                      absl::string_view device);

struct PlanRequest {
  std::string source;
  QuantizationSpec quantization;
  ServingSpec serving;
};
absl::StatusOr<PlanRequest> ParsePlan(const v1::PlanModelRequest& message);

// The drain timeout; at most a day.
absl::StatusOr<absl::Duration> ParseDrainTimeout(const v1::UnloadModelRequest& message);

// How long to wait between two messages of a watch.
absl::StatusOr<absl::Duration> ParseWatchInterval(const v1::WatchMemoryRequest& message);

// The new budget in bytes; at most `device_bytes`, what the device has in all.
absl::StatusOr<int64_t> ParseBudget(const v1::SetBudgetRequest& message, absl::string_view device,
                                    int64_t device_bytes);

}  // namespace nibble
