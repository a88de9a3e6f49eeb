#include "server/engine/rope_frequencies.h"

#include <algorithm>
#include <cmath>
#include <numbers>

#include "absl/strings/str_cat.h"

namespace nibble {
namespace {

using std::numbers::pi;

absl::Status Missing(const RopeScaling& scaling, const char* key) {
  return absl::DataLossError(absl::StrCat("config.json: rope scaling \"", scaling.type,
                                          "\" needs a positive \"", key, "\""));
}

std::vector<float> PlainFrequencies(double base, int64_t rotary_size) {
  std::vector<float> frequencies;
  for (int64_t i = 0; i < rotary_size; i += 2) {
    const float exponent = static_cast<float>(i) / static_cast<float>(rotary_size);
    frequencies.push_back(1.0f / std::pow(static_cast<float>(base), exponent));
  }
  return frequencies;
}

// Long wavelengths are stretched by the factor, short ones stay, and those between are blended.
void ScaleAsLlama3(const RopeScaling& scaling, std::vector<float>& frequencies) {
  const double original = static_cast<double>(scaling.original_context_tokens);
  const double low = scaling.low_frequency_factor;
  const double high = scaling.high_frequency_factor;
  for (float& frequency : frequencies) {
    const double plain = double{frequency};
    const double wavelength = 2 * pi / plain;
    if (wavelength > original / low) {
      frequency = static_cast<float>(plain / scaling.factor);
    } else if (wavelength >= original / high) {
      const double smooth = (original / wavelength - low) / (high - low);
      frequency = static_cast<float>((1 - smooth) * plain / scaling.factor + smooth * plain);
    }
  }
}

double YarnMagnitude(double factor, double mscale) {
  return factor <= 1 ? 1.0 : 0.1 * mscale * std::log(factor) + 1;
}

RopeFrequencies MakeYarn(const RopeScaling& scaling, double factor, double base,
                         int64_t rotary_size, int64_t original) {
  RopeFrequencies rope;
  rope.frequencies = PlainFrequencies(base, rotary_size);
  if (scaling.attention_factor > 0) {
    rope.magnitude = static_cast<float>(scaling.attention_factor);
  } else if (scaling.mscale > 0 && scaling.mscale_all_dim > 0) {
    rope.magnitude = static_cast<float>(YarnMagnitude(factor, scaling.mscale) /
                                        YarnMagnitude(factor, scaling.mscale_all_dim));
  } else {
    rope.magnitude = static_cast<float>(YarnMagnitude(factor, 1));
  }
  const double size = static_cast<double>(rotary_size);
  // The pair that turns `rotations` times over the original context.
  const auto pair_of = [&](double rotations) {
    return size * std::log(static_cast<double>(original) / (rotations * 2 * pi)) /
           (2 * std::log(base));
  };
  double low = pair_of(scaling.beta_fast);
  double high = pair_of(scaling.beta_slow);
  if (scaling.truncate) {
    low = std::floor(low);
    high = std::ceil(high);
  }
  low = std::max(low, 0.0);
  high = std::min(high, size - 1);
  if (low == high) {
    high += 0.001;  // As there: no division by zero.
  }
  for (size_t i = 0; i < rope.frequencies.size(); ++i) {
    const double plain = double{rope.frequencies[i]};
    const double ramp = std::clamp((static_cast<double>(i) - low) / (high - low), 0.0, 1.0);
    rope.frequencies[i] = static_cast<float>(plain / factor * ramp + plain * (1 - ramp));
  }
  return rope;
}

absl::StatusOr<RopeFrequencies> MakeDynamic(const RopeScaling& scaling, double base,
                                            int64_t rotary_size, int64_t model_context_tokens,
                                            int64_t context_tokens) {
  const double trained = static_cast<double>(
      scaling.original_context_tokens > 0 ? scaling.original_context_tokens : model_context_tokens);
  const double served = static_cast<double>(context_tokens);
  if (trained <= 0) {
    return Missing(scaling, "max_position_embeddings");
  }
  if (served > trained && rotary_size > 2) {
    const double size = static_cast<double>(rotary_size);
    base *= std::pow(scaling.factor * served / trained - (scaling.factor - 1), size / (size - 2));
  }
  return RopeFrequencies{PlainFrequencies(base, rotary_size), 1};
}

}  // namespace

absl::StatusOr<RopeFrequencies> MakeRopeFrequencies(const RopeScaling& scaling, double base,
                                                    int64_t rotary_size,
                                                    int64_t model_context_tokens,
                                                    int64_t context_tokens) {
  if (scaling.type == "default" || scaling.type.empty()) {
    return RopeFrequencies{PlainFrequencies(base, rotary_size), 1};
  }
  if (scaling.type == "yarn") {
    const int64_t original = scaling.original_context_tokens > 0 ? scaling.original_context_tokens
                                                                 : model_context_tokens;
    if (original <= 0) {
      return Missing(scaling, "original_max_position_embeddings");
    }
    const double factor = scaling.factor > 0 ? scaling.factor
                                             : static_cast<double>(model_context_tokens) /
                                                   static_cast<double>(original);
    return MakeYarn(scaling, factor, base, rotary_size, original);
  }
  if (scaling.type != "linear" && scaling.type != "dynamic" && scaling.type != "llama3") {
    return absl::UnimplementedError(
        absl::StrCat("config.json: rope scaling: expected default, linear, dynamic, llama3 or "
                     "yarn, found \"",
                     scaling.type, "\""));
  }
  if (!(scaling.factor > 0)) {
    return Missing(scaling, "factor");
  }
  if (scaling.type == "dynamic") {
    return MakeDynamic(scaling, base, rotary_size, model_context_tokens, context_tokens);
  }
  RopeFrequencies rope = {PlainFrequencies(base, rotary_size), 1};
  if (scaling.type == "linear") {
    for (float& frequency : rope.frequencies) {
      frequency /= static_cast<float>(scaling.factor);
    }
    return rope;
  }
  if (!(scaling.low_frequency_factor > 0) ||
      !(scaling.high_frequency_factor > scaling.low_frequency_factor)) {
    return Missing(scaling, "low_freq_factor\" below a \"high_freq_factor");
  }
  if (scaling.original_context_tokens <= 0) {
    return Missing(scaling, "original_max_position_embeddings");
  }
  ScaleAsLlama3(scaling, rope.frequencies);
  return rope;
}

}  // namespace nibble
