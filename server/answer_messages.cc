#include "server/answer_messages.h"

#include <algorithm>
#include <map>

#include "server/grpc_status.h"

namespace nibble {
namespace {

constexpr size_t kFailureBytesMax = 4000;  // A failed model's reason, in lists of models.
constexpr size_t kWarningBytesMax = 4000;

uint64_t Wire(int64_t value) { return static_cast<uint64_t>(std::max<int64_t>(value, 0)); }

v1::WeightFormat FormatMessage(Format format) {
  switch (format) {
    case Format::kNf4:
      return v1::NF4;
    case Format::kFp4:
      return v1::FP4;
    case Format::kAsStored:
      return v1::AS_STORED;
  }
  return v1::WEIGHT_FORMAT_UNSPECIFIED;
}

v1::WeightLayout LayoutMessage(WeightLayout layout) {
  return layout == WeightLayout::kPacked ? v1::PACKED : v1::PLAIN;
}

v1::KvCacheDtype KvCacheMessage(KvCacheType type) {
  switch (type) {
    case KvCacheType::kF16:
      return v1::F16;
    case KvCacheType::kBf16:
      return v1::BF16;
    case KvCacheType::kF32:
      return v1::F32;
  }
  return v1::KV_CACHE_DTYPE_UNSPECIFIED;
}

v1::ModelState StateMessage(ModelState state) {
  switch (state) {
    case ModelState::kQueued:
      return v1::QUEUED;
    case ModelState::kLoading:
      return v1::LOADING;
    case ModelState::kReady:
      return v1::READY;
    case ModelState::kDraining:
      return v1::DRAINING;
    case ModelState::kUnloaded:
      return v1::UNLOADED;
    case ModelState::kFailed:
      return v1::FAILED;
  }
  return v1::MODEL_STATE_UNSPECIFIED;
}

v1::LoadedFrom LoadedFromMessage(const ModelInfo& info) {
  if (info.state != ModelState::kReady && info.state != ModelState::kDraining) {
    return v1::LOADED_FROM_UNSPECIFIED;
  }
  return info.from_cache ? v1::LOADED_FROM_CACHE : v1::LOADED_FROM_SOURCE;
}

std::string FailureText(const absl::Status& failure) {
  return failure.ok() ? ""
                      : PrintableText(failure.ToString(absl::StatusToStringMode::kWithNoExtraData),
                                      kFailureBytesMax);
}

v1::PlannedTensor TensorMessage(const PlannedTensor& tensor) {
  v1::PlannedTensor message;
  message.set_name(tensor.name);
  message.set_role(std::string(RoleName(tensor.weight.role)));
  message.set_source_dtype(std::string(DtypeName(tensor.source_dtype)));
  for (const int64_t size : tensor.shape) {
    message.add_shape(Wire(size));
  }
  if (tensor.loaded) {
    message.set_format(FormatMessage(tensor.format));
    message.set_layout(LayoutMessage(tensor.layout));
  }
  message.set_reason(tensor.reason);
  message.set_source_bytes(Wire(tensor.source_bytes));
  message.set_device_bytes(Wire(tensor.device_bytes));
  if (tensor.loaded && tensor.quantized()) {
    message.set_block_size(Wire(tensor.block_size));
    message.set_double_quantized(tensor.double_quantized);
    message.set_stored_quantized(tensor.form == SourceForm::kFourBit);
  }
  return message;
}

v1::QuantizationError ErrorMessage(const ErrorSums& sums) {
  v1::QuantizationError message;
  message.set_relative_mean_squared_error(sums.squared == 0 ? 0
                                                            : sums.squared_error / sums.squared);
  message.set_largest_error(sums.error_max);
  return message;
}

void AddTotals(const LoadPlan& plan, v1::LoadReport& message) {
  std::map<v1::WeightFormat, v1::FormatTotal> totals;
  for (const PlannedTensor& tensor : plan.tensors) {
    const v1::WeightFormat format =
        tensor.loaded ? FormatMessage(tensor.format) : v1::WEIGHT_FORMAT_UNSPECIFIED;
    v1::FormatTotal& total = totals[format];
    total.set_format(format);
    total.set_tensors(total.tensors() + 1);
    for (const PlannedPart& part : tensor.parts) {
      total.set_elements(total.elements() + Wire(part.element_count));
    }
    total.set_source_bytes(total.source_bytes() + Wire(tensor.source_bytes));
    total.set_device_bytes(total.device_bytes() + Wire(tensor.device_bytes));
  }
  for (const auto& [format, total] : totals) {
    *message.add_totals() = total;
  }
}

v1::Plan TotalsMessage(const LoadPlan& plan) {
  v1::Plan message;
  message.set_source_bytes(Wire(plan.source_bytes));
  message.set_weights_bytes(Wire(plan.weights_bytes));
  message.set_kv_cache_bytes(Wire(plan.kv_cache_bytes));
  message.set_workspace_bytes(Wire(plan.workspace_bytes));
  message.set_staging_bytes(Wire(plan.staging_bytes));
  message.set_resident_bytes(Wire(plan.resident_bytes()));
  message.set_peak_bytes(Wire(plan.peak_bytes()));
  message.set_quantized_ratio(plan.quantized_ratio());
  return message;
}

void AddPurposes(const LedgerSnapshot& ledger, v1::DeviceMemory& message) {
  for (const Purpose purpose : kPurposes) {
    v1::PurposeMemory& entry = *message.add_purposes();
    entry.set_purpose(std::string(PurposeName(purpose)));
    entry.set_reserved_bytes(Wire(ledger.reserved[purpose]));
    entry.set_allocated_bytes(Wire(ledger.allocated[purpose]));
  }
}

void AddModels(const LedgerSnapshot& ledger, v1::DeviceMemory& message) {
  for (const LedgerSnapshot::Owner& owner : ledger.owners) {
    if (!IsModel(owner)) {
      continue;
    }
    v1::ModelMemory& entry = *message.add_models();
    entry.set_model(owner.name);
    entry.set_weights_bytes(Wire(owner.reserved[Purpose::kWeights]));
    entry.set_kv_cache_bytes(Wire(owner.reserved[Purpose::kKvCache]));
    entry.set_workspace_bytes(Wire(owner.reserved[Purpose::kWorkspace]));
    entry.set_staging_bytes(Wire(owner.reserved[Purpose::kStaging]));
    entry.set_allocated_bytes(Wire(owner.allocated.total()));
  }
}

}  // namespace

v1::Quantization QuantizationMessage(const QuantizationSpec& spec) {
  v1::Quantization message;
  message.set_format(FormatMessage(spec.format));
  message.set_block_size(Wire(spec.block_size));
  message.set_double_quantization(spec.double_quantization);
  message.mutable_keep()->Add(spec.keep.begin(), spec.keep.end());
  message.mutable_quantize()->Add(spec.quantize.begin(), spec.quantize.end());
  message.set_keep_unquantized_rest(spec.keep_unquantized_rest);
  message.set_scale_search(spec.scale_search);
  message.set_positive_scales(spec.positive_scales);
  message.set_min_quantized_ratio(spec.min_quantized_ratio);
  message.set_allow_non_finite(spec.allow_non_finite);
  message.set_error_stats(spec.error_stats);
  return message;
}

v1::Serving ServingMessage(const ServingSpec& spec) {
  v1::Serving message;
  message.set_max_context_tokens(Wire(spec.max_context_tokens));
  message.set_max_sequences(Wire(spec.max_sequences));
  message.set_kv_cache_bytes(Wire(spec.kv_cache_bytes));
  message.set_kv_cache_dtype(KvCacheMessage(spec.kv_cache_type));
  message.set_prefill_chunk_tokens(Wire(spec.prefill_chunk_tokens));
  message.set_weights_only(spec.weights_only);
  message.set_state_snapshots(Wire(spec.state_snapshots));
  return message;
}

v1::Plan PlanMessage(const PlanAnswer& answer, PlanDetail detail) {
  const LoadPlan& plan = *answer.plan;
  v1::Plan message = TotalsMessage(plan);
  message.set_budget_bytes(Wire(answer.limit_bytes));
  message.set_available_bytes(Wire(answer.available_bytes));
  message.set_fits(answer.fits());
  message.set_shortfall_bytes(Wire(plan.peak_bytes() - answer.available_bytes));
  message.mutable_remedies()->Add(answer.remedies.begin(), answer.remedies.end());
  message.mutable_warnings()->Add(plan.warnings.begin(), plan.warnings.end());
  if (detail == PlanDetail::kTensors) {
    message.mutable_tensors()->Reserve(static_cast<int>(plan.tensors.size()));
    for (const PlannedTensor& tensor : plan.tensors) {
      *message.add_tensors() = TensorMessage(tensor);
    }
  }
  return message;
}

v1::LoadProgress ProgressMessage(const LoadProgress& progress) {
  v1::LoadProgress message;
  message.set_read_bytes(Wire(progress.read_bytes));
  message.set_source_bytes(Wire(progress.source_bytes));
  message.set_tensors_done(Wire(progress.tensors_done));
  message.set_tensors_total(Wire(progress.tensors_total));
  return message;
}

v1::Model ModelMessage(const ModelInfo& info, absl::string_view device) {
  v1::Model message;
  message.set_model(info.name);
  message.set_source(info.source);
  message.set_state(StateMessage(info.state));
  message.set_device(std::string(device));
  *message.mutable_quantization() = QuantizationMessage(info.quantization);
  *message.mutable_serving() = ServingMessage(info.serving);
  if (info.plan != nullptr) {
    *message.mutable_plan() = TotalsMessage(*info.plan);
  }
  message.set_formats(info.formats);
  message.set_peak_bytes(Wire(info.peak_bytes));
  message.set_load_seconds(absl::ToDoubleSeconds(info.load_duration));
  message.set_failure(FailureText(info.failure));
  message.set_loaded_from(LoadedFromMessage(info));
  message.set_cache_fallback(FailureText(info.cache_fallback));
  message.set_read_bytes(Wire(info.read_bytes));
  if (info.last_used > absl::UnixEpoch() && info.last_used < absl::InfiniteFuture()) {
    message.mutable_last_used()->set_seconds(absl::ToUnixSeconds(info.last_used));
    message.mutable_last_used()->set_nanos(
        static_cast<int32_t>(absl::ToUnixNanos(info.last_used) % 1'000'000'000));
  }
  message.set_pinned(info.pinned);
  return message;
}

v1::LoadReport ReportMessage(const ModelInfo& info) {
  v1::LoadReport message;
  if (info.plan == nullptr) {
    return message;
  }
  message.mutable_tensors()->Reserve(static_cast<int>(info.plan->tensors.size()));
  for (size_t index = 0; index < info.plan->tensors.size(); ++index) {
    v1::PlannedTensor& tensor = *message.add_tensors();
    tensor = TensorMessage(info.plan->tensors[index]);
    if (info.errors != nullptr && (*info.errors)[index].has_value()) {
      *tensor.mutable_error() = ErrorMessage(*(*info.errors)[index]);
    }
  }
  AddTotals(*info.plan, message);
  message.set_quantized_ratio(info.plan->quantized_ratio());
  message.mutable_warnings()->Add(info.plan->warnings.begin(), info.plan->warnings.end());
  message.set_loaded_from(LoadedFromMessage(info));
  message.set_cache_fallback(FailureText(info.cache_fallback));
  return message;
}

v1::ExportSummary ExportMessage(const ExportSummary& summary, absl::string_view directory) {
  v1::ExportSummary message;
  message.set_directory(directory.data(), directory.size());
  message.set_bytes(static_cast<uint64_t>(summary.bytes));
  for (const std::string& file : summary.files) {
    message.add_files(file);
  }
  for (const std::string& warning : summary.warnings) {
    message.add_warnings(PrintableText(warning, kWarningBytesMax));
  }
  return message;
}

v1::GetMemoryResponse MemoryMessage(const StateSnapshot& snapshot, const MemorySample& sample) {
  const LedgerSnapshot& ledger = snapshot.ledger;
  v1::GetMemoryResponse message;
  message.set_sequence(ledger.sequence);
  v1::DeviceMemory& device = *message.add_devices();
  device.set_device(sample.device);
  device.set_kind(sample.kind);
  device.set_budget_bytes(Wire(ledger.limit_bytes));
  device.set_reserved_bytes(Wire(ledger.reserved.total()));
  device.set_allocated_bytes(Wire(ledger.allocated.total()));
  device.set_available_bytes(Wire(ledger.available_bytes()));
  device.set_peak_reserved_bytes(Wire(ledger.reserved_peak_bytes));
  device.set_peak_allocated_bytes(Wire(ledger.allocated_peak_bytes));
  device.set_total_bytes(Wire(sample.memory.total_bytes));
  device.set_free_bytes(Wire(sample.memory.free_bytes));
  if (sample.memory.process_bytes.has_value()) {
    device.set_process_bytes(Wire(*sample.memory.process_bytes));
  }
  AddPurposes(ledger, device);
  AddModels(ledger, device);
  message.mutable_host()->set_rss_bytes(Wire(sample.rss_bytes));
  message.mutable_host()->set_pinned_bytes(Wire(sample.pinned_bytes));
  return message;
}

}  // namespace nibble
