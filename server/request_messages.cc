#include "server/request_messages.h"

#include <limits>

#include "absl/strings/str_cat.h"
#include "kernels/error_details.h"

namespace nibble {
namespace {

constexpr absl::Duration kDrainTimeoutMax = absl::Hours(24);
constexpr double kWatchRateDefault = 10;
constexpr double kWatchRateMax = 100;

// UNIMPLEMENTED that names the request field.
absl::Status NotYet(absl::string_view field, absl::string_view message) {
  ErrorDetails details;
  details.reason = "UNIMPLEMENTED";
  details.field = std::string(field);
  return WithDetails(absl::UnimplementedError(absl::StrCat(field, ": ", message)), details);
}

absl::Status ToSigned(absl::string_view field, uint64_t value, int64_t& target) {
  if (value > static_cast<uint64_t>(std::numeric_limits<int64_t>::max())) {
    return BadField(std::string(field), absl::StrCat("expected at most 2^63 - 1, found ", value));
  }
  target = static_cast<int64_t>(value);
  return absl::OkStatus();
}

absl::Status CheckDevice(absl::string_view found, absl::string_view device) {
  if (found.empty() || found == device) {
    return absl::OkStatus();
  }
  return BadField("device",
                  absl::StrCat("expected ", device, " or nothing, the one device of this ",
                               "daemon; found \"", found, "\""));
}

absl::Status ParseFormat(v1::WeightFormat message, Format& format) {
  switch (message) {
    case v1::WEIGHT_FORMAT_UNSPECIFIED:
    case v1::NF4:
      format = Format::kNf4;
      return absl::OkStatus();
    case v1::FP4:
      format = Format::kFp4;
      return absl::OkStatus();
    case v1::AS_STORED:
      format = Format::kAsStored;
      return absl::OkStatus();
    default:
      return BadField("quantization.format", absl::StrCat("expected NF4, FP4 or AS_STORED, found ",
                                                          static_cast<int>(message)));
  }
}

absl::Status ParseKvCacheType(v1::KvCacheDtype message, KvCacheType& type) {
  switch (message) {
    case v1::KV_CACHE_DTYPE_UNSPECIFIED:
    case v1::F16:
      type = KvCacheType::kF16;
      return absl::OkStatus();
    case v1::BF16:
      type = KvCacheType::kBf16;
      return absl::OkStatus();
    case v1::F32:
      type = KvCacheType::kF32;
      return absl::OkStatus();
    default:
      return BadField("serving.kv_cache_dtype",
                      absl::StrCat("expected F16, BF16 or F32, found ", static_cast<int>(message)));
  }
}

absl::Status CheckWhenFull(v1::WhenFull when_full) {
  switch (when_full) {
    case v1::WHEN_FULL_UNSPECIFIED:
    case v1::REFUSE:
      return absl::OkStatus();
    case v1::WAIT:
    case v1::EVICT_IDLE:
      return NotYet("when_full",
                    absl::StrCat(v1::WhenFull_Name(when_full), " is not there yet; use REFUSE"));
    default:
      return BadField("when_full",
                      absl::StrCat("expected REFUSE, found ", static_cast<int>(when_full)));
  }
}

}  // namespace

absl::StatusOr<QuantizationSpec> ParseQuantization(const v1::Quantization& message) {
  QuantizationSpec spec;
  absl::Status status = ParseFormat(message.format(), spec.format);
  if (status.ok() && message.block_size() != 0) {
    status = ToSigned("quantization.block_size", message.block_size(), spec.block_size);
  }
  if (!status.ok()) {
    return status;
  }
  spec.double_quantization = message.double_quantization();
  spec.keep.assign(message.keep().begin(), message.keep().end());
  spec.quantize.assign(message.quantize().begin(), message.quantize().end());
  spec.keep_unquantized_rest = message.keep_unquantized_rest();
  spec.scale_search = message.scale_search();
  spec.positive_scales = message.positive_scales();
  spec.min_quantized_ratio = message.min_quantized_ratio();
  spec.allow_non_finite = message.allow_non_finite();
  spec.error_stats = message.error_stats();
  if (status = Validate(spec); !status.ok()) {
    return status;
  }
  return spec;
}

absl::StatusOr<ServingSpec> ParseServing(const v1::Serving& message) {
  ServingSpec spec;
  const struct {
    absl::string_view field;
    uint64_t value;
    int64_t& target;
  } numbers[] = {
      {"serving.max_context_tokens", message.max_context_tokens(), spec.max_context_tokens},
      {"serving.max_sequences", message.max_sequences(), spec.max_sequences},
      {"serving.kv_cache_bytes", message.kv_cache_bytes(), spec.kv_cache_bytes},
      {"serving.prefill_chunk_tokens", message.prefill_chunk_tokens(), spec.prefill_chunk_tokens},
      {"serving.state_snapshots", message.state_snapshots(), spec.state_snapshots},
  };
  for (const auto& number : numbers) {
    if (absl::Status status = ToSigned(number.field, number.value, number.target); !status.ok()) {
      return status;
    }
  }
  if (absl::Status status = ParseKvCacheType(message.kv_cache_dtype(), spec.kv_cache_type);
      !status.ok()) {
    return status;
  }
  spec.weights_only = message.weights_only();
  if (absl::Status status = Validate(spec); !status.ok()) {
    return status;
  }
  return spec;
}

absl::StatusOr<LoadRequest> ParseLoad(const v1::LoadModelRequest& message,
                                      absl::string_view device) {
  absl::Status status = CheckDevice(message.device(), device);
  if (status.ok()) {
    status = CheckWhenFull(message.when_full());
  }
  if (status.ok() && message.has_keep_alive()) {
    status = NotYet("keep_alive", "is not there yet; a model stays until it is unloaded");
  }
  if (!status.ok()) {
    return status;
  }
  absl::StatusOr<QuantizationSpec> quantization = ParseQuantization(message.quantization());
  if (!quantization.ok()) {
    return quantization.status();
  }
  const absl::StatusOr<ServingSpec> serving = ParseServing(message.serving());
  if (!serving.ok()) {
    return serving.status();
  }
  LoadRequest request;
  request.model = message.model();
  request.source = message.source();
  request.quantization = *std::move(quantization);
  request.serving = *serving;
  request.pinned = message.pinned();
  request.detach = message.detach();
  request.request_id = message.request_id();
  return request;
}

absl::StatusOr<PlanRequest> ParsePlan(const v1::PlanModelRequest& message) {
  absl::StatusOr<QuantizationSpec> quantization = ParseQuantization(message.quantization());
  if (!quantization.ok()) {
    return quantization.status();
  }
  const absl::StatusOr<ServingSpec> serving = ParseServing(message.serving());
  if (!serving.ok()) {
    return serving.status();
  }
  return PlanRequest{message.source(), *std::move(quantization), *serving};
}

absl::StatusOr<absl::Duration> ParseDrainTimeout(const v1::UnloadModelRequest& message) {
  if (!message.has_drain_timeout()) {
    return kDrainTimeoutDefault;
  }
  const google::protobuf::Duration& found = message.drain_timeout();
  const absl::Duration timeout = absl::Seconds(found.seconds()) + absl::Nanoseconds(found.nanos());
  if (timeout < absl::ZeroDuration() || timeout > kDrainTimeoutMax) {
    return BadField("drain_timeout",
                    absl::StrCat("expected 0 to ", absl::FormatDuration(kDrainTimeoutMax),
                                 ", found ", absl::FormatDuration(timeout)));
  }
  return timeout;
}

absl::StatusOr<absl::Duration> ParseWatchInterval(const v1::WatchMemoryRequest& message) {
  const double rate = message.max_rate() == 0 ? kWatchRateDefault : message.max_rate();
  // The lower bound keeps the interval finite.
  if (!(rate >= 0.001 && rate <= kWatchRateMax)) {
    return BadField("max_rate", absl::StrCat("expected 0 or 0.001 to ", kWatchRateMax, ", found ",
                                             message.max_rate()));
  }
  return absl::Seconds(1 / rate);
}

absl::StatusOr<int64_t> ParseBudget(const v1::SetBudgetRequest& message, absl::string_view device,
                                    int64_t device_bytes) {
  if (absl::Status status = CheckDevice(message.device(), device); !status.ok()) {
    return status;
  }
  if (message.budget_bytes() == 0 || message.budget_bytes() > static_cast<uint64_t>(device_bytes)) {
    return BadField("budget_bytes",
                    absl::StrCat("expected 1 to ", device_bytes, ", what the device has; found ",
                                 message.budget_bytes()));
  }
  return static_cast<int64_t>(message.budget_bytes());
}

}  // namespace nibble
