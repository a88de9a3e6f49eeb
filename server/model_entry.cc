#include "server/model_entry.h"

#include <algorithm>
#include <array>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "kernels/error_details.h"
#include "loader/printable.h"

namespace nibble {
namespace {

constexpr size_t kNameCharactersMax = 128;
constexpr size_t kRequestIdCharactersMax = 128;

// The ledger's owner of what belongs to no model.
constexpr absl::string_view kRuntimeOwner = "runtime";

bool IsNameCharacter(char c) {
  return absl::ascii_isalnum(static_cast<unsigned char>(c)) ||
         absl::string_view("._:/-").find(c) != absl::string_view::npos;
}

absl::Status ValidateRequestId(const std::string& id) {
  const bool printable = std::all_of(id.begin(), id.end(), [](char c) {
    return absl::ascii_isprint(static_cast<unsigned char>(c));
  });
  if (id.size() > kRequestIdCharactersMax || !printable) {
    return BadField("request_id", absl::StrCat("expected at most ", kRequestIdCharactersMax,
                                               " printable characters, found ", Printable(id)));
  }
  return absl::OkStatus();
}

}  // namespace

absl::string_view ModelStateName(ModelState state) {
  constexpr std::array<absl::string_view, kModelStateCount> kNames = {
      "QUEUED", "LOADING", "READY", "DRAINING", "UNLOADED", "FAILED"};
  return kNames[static_cast<size_t>(state)];
}

ModelEntry::ModelEntry(const LoadRequest& load_request,
                       std::shared_ptr<const CheckpointDirectory> checkpoint)
    : request(load_request),
      canonical_source(checkpoint->canonical_name()),
      directory(std::move(checkpoint)),
      pinned(load_request.pinned),
      detached(load_request.detach) {}

ModelInfo Describe(const ModelEntry& entry) {
  ModelInfo info;
  info.name = entry.request.model;
  info.source = entry.request.source;
  info.state = entry.state;
  info.quantization = entry.request.quantization;
  info.serving = entry.request.serving;
  info.plan = entry.plan == nullptr ? nullptr : entry.plan->plan;
  info.formats = entry.plan == nullptr ? "" : entry.plan->formats;
  info.errors = entry.state == ModelState::kReady ? entry.errors : nullptr;
  info.peak_bytes = entry.peak_bytes;
  info.from_cache = entry.from_cache;
  info.cache_fallback = entry.cache_fallback;
  info.read_bytes = entry.meter.total_read_bytes();
  info.load_duration = entry.load_duration;
  if (entry.state == ModelState::kFailed) {
    info.failure = entry.failure;
  }
  info.pinned = entry.pinned;
  info.last_used = entry.last_used;
  info.request_id = entry.request.request_id;
  return info;
}

bool IsSameSpec(const ModelEntry& entry, const LoadRequest& request,
                const std::string* canonical_source) {
  const bool same_source = canonical_source == nullptr
                               ? entry.request.source == request.source
                               : entry.canonical_source == *canonical_source;
  return same_source && entry.request.quantization == request.quantization &&
         entry.request.serving == request.serving;
}

bool IsOrphan(const ModelEntry& entry) {
  return !entry.load_finished && entry.state != ModelState::kDraining && !entry.detached &&
         entry.callers.empty();
}

absl::Status ValidateModelName(absl::string_view name) {
  if (name.empty() || name.size() > kNameCharactersMax) {
    return BadField("model", absl::StrCat("expected 1 to ", kNameCharactersMax,
                                          " characters, found ", name.size()));
  }
  if (!absl::ascii_isalnum(static_cast<unsigned char>(name.front())) ||
      !std::all_of(name.begin(), name.end(), IsNameCharacter)) {
    return BadField("model", absl::StrCat("expected letters, digits and ._:/- after a first letter "
                                          "or digit, found ",
                                          Printable(name)));
  }
  if (name == kRuntimeOwner) {
    return BadField("model", absl::StrCat("\"", name, "\" names the daemon's own share of memory"));
  }
  return absl::OkStatus();
}

absl::Status Validate(const LoadRequest& request) {
  for (absl::Status status :
       {ValidateModelName(request.model), ValidateRequestId(request.request_id),
        Validate(request.quantization), Validate(request.serving)}) {
    if (!status.ok()) {
      return status;
    }
  }
  return absl::OkStatus();
}

}  // namespace nibble
