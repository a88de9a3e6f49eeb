#include "server/engine/sampling_options.h"

#include <random>
#include <set>

#include "absl/strings/str_cat.h"
#include "kernels/error_details.h"
#include "kernels/sample_ops.h"

namespace nibble {
namespace {

// False for NaN.
bool IsWithin(float value, float least, float most) { return value >= least && value <= most; }

absl::Status Refuse(const char* field, absl::string_view expected, const absl::AlphaNum& found) {
  return BadField(field, absl::StrCat("expected ", expected, ", found ", found));
}

absl::Status CheckBiases(const SamplingOptions& options, int64_t vocabulary_size) {
  if (std::ssize(options.logit_biases) > kLogitBiasesMax) {
    return Refuse("logit_bias", absl::StrCat("at most ", kLogitBiasesMax, " tokens"),
                  options.logit_biases.size());
  }
  std::set<int32_t> seen;
  for (const auto& [id, bias] : options.logit_biases) {
    if (id < 0 || id >= vocabulary_size) {
      return Refuse("logit_bias", absl::StrCat("token ids from 0 to ", vocabulary_size - 1), id);
    }
    if (!IsWithin(bias, -100, 100)) {
      return Refuse("logit_bias", "-100 to 100", double{bias});
    }
    if (!seen.insert(id).second) {
      return Refuse("logit_bias", "each token once", id);
    }
  }
  return absl::OkStatus();
}

}  // namespace

uint64_t DrawSeed() {
  std::random_device device;
  return uint64_t{device()} << 32 | uint64_t{device()};
}

absl::Status Validate(const SamplingOptions& options, int64_t vocabulary_size) {
  constexpr float kTemperatureMax = 100;
  if (!IsWithin(options.temperature, 0, kTemperatureMax)) {
    return Refuse("temperature", "0 to 100", double{options.temperature});
  }
  if (options.top_k < 0) {
    return Refuse("top_k", "0 or more", static_cast<double>(options.top_k));
  }
  if (!IsWithin(options.top_p, 0, 1) || options.top_p == 0) {
    return Refuse("top_p", "more than 0, at most 1", double{options.top_p});
  }
  if (!IsWithin(options.min_p, 0, 1)) {
    return Refuse("min_p", "0 to 1", double{options.min_p});
  }
  if (!IsWithin(options.repetition_penalty, 0, 10) || options.repetition_penalty == 0) {
    return Refuse("repetition_penalty", "more than 0, at most 10",
                  double{options.repetition_penalty});
  }
  if (!IsWithin(options.frequency_penalty, -2, 2)) {
    return Refuse("frequency_penalty", "-2 to 2", double{options.frequency_penalty});
  }
  if (!IsWithin(options.presence_penalty, -2, 2)) {
    return Refuse("presence_penalty", "-2 to 2", double{options.presence_penalty});
  }
  if (options.top_log_probabilities < -1 ||
      options.top_log_probabilities > kTopLogProbabilitiesMax) {
    return Refuse("logprobs", absl::StrCat("0 to ", kTopLogProbabilitiesMax),
                  static_cast<double>(options.top_log_probabilities));
  }
  return CheckBiases(options, vocabulary_size);
}

}  // namespace nibble
