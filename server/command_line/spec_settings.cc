#include "server/command_line/spec_settings.h"

#include <array>
#include <limits>

#include "absl/strings/str_cat.h"

namespace nibble {
namespace {

constexpr int64_t kAnyCount = std::numeric_limits<int64_t>::max();

// In the order of the choices below.
constexpr std::array<Format, 3> kFormats = {Format::kNf4, Format::kFp4, Format::kAsStored};
constexpr std::array<KvCacheType, 3> kKvCacheTypes = {KvCacheType::kF16, KvCacheType::kBf16,
                                                      KvCacheType::kF32};

Setting Count(std::string name, std::string help, std::string default_text, int64_t* target) {
  return CountSetting(std::move(name), std::move(help), std::move(default_text), 0, kAnyCount,
                      [target](int64_t count) { *target = count; });
}

}  // namespace

std::vector<Setting> QuantizationSettings(QuantizationSpec* spec) {
  return {
      ChoiceSetting("format",
                    "What weights are stored as: bitsandbytes' NormalFloat or its FP4, 4 bits "
                    "each, or the checkpoint's own type.",
                    {"NF4", "FP4", "AS_STORED"}, 0,
                    [spec](size_t index) { spec->format = kFormats[index]; }),
      Count(
          "block-size",
          "Weights that share a scale: a power of two from 32 to 4096. Small blocks are nearer to "
          "the original and take more memory: 4 + 32 / N bits a weight.",
          absl::StrCat(spec->block_size), &spec->block_size),
      SwitchSetting("double-quantization",
                    "Stores the scales in 8 bits: about 0.37 bits a weight less at a block size of "
                    "64.",
                    &spec->double_quantization),
      ListSetting("keep", "GLOB",
                  "Tensors whose name matches stay in the checkpoint's own type (* any run, ? any "
                  "character, [...] a set). Wins over --quantize.",
                  &spec->keep),
      ListSetting("quantize", "GLOB",
                  "Tensors whose name matches are quantized, though they are kept by default "
                  "(as the output head).",
                  &spec->quantize),
      SwitchSetting("keep-unquantized-rest",
                    "Keeps the 16-bit rest of a checkpoint that is 4-bit only in part.",
                    &spec->keep_unquantized_rest),
      SwitchSetting("scale-search",
                    "Looks for the scale of least squared error in place of the largest magnitude: "
                    "a smaller error, a slower load; any reader of bitsandbytes' format reads it.",
                    &spec->scale_search),
      SwitchSetting("positive-scales",
                    "With --scale-search: no negative scales, for readers that take a scale for a "
                    "magnitude.",
                    &spec->positive_scales),
      RatioSetting("min-quantized-ratio",
                   "Refuses the load if a smaller share of its weights would be quantized.",
                   &spec->min_quantized_ratio),
      SwitchSetting(
          "allow-non-finite",
          "Loads NaN and Inf as bitsandbytes' CUDA kernels do, in place of refusing them.",
          &spec->allow_non_finite),
      SwitchSetting("error-stats", "Measures each quantized tensor's error for the load report.",
                    &spec->error_stats),
  };
}

std::vector<Setting> ServingSettings(ServingSpec* spec) {
  return {
      Count("max-context-tokens", "Longest prompt and answer together, in tokens.",
            "the model's, at most 8192", &spec->max_context_tokens),
      Count("max-sequences", "Requests that are answered at the same time.", "16",
            &spec->max_sequences),
      SizeSetting("kv-cache-bytes", "Device memory for the keys and values of running requests.",
                  "two full contexts", [spec](int64_t bytes) { spec->kv_cache_bytes = bytes; }),
      ChoiceSetting("kv-cache-dtype", "What keys and values are stored as.", {"F16", "BF16", "F32"},
                    0, [spec](size_t index) { spec->kv_cache_type = kKvCacheTypes[index]; }),
      Count("prefill-chunk-tokens", "Tokens of a prompt that are computed in one step.", "512",
            &spec->prefill_chunk_tokens),
      Count("state-snapshots",
            "States of linear attention that are kept for prompts that begin alike (Qwen3.5).", "0",
            &spec->state_snapshots),
      SwitchSetting("weights-only",
                    "Loads weights alone: no KV cache, no workspace, no generation.",
                    &spec->weights_only),
  };
}

}  // namespace nibble
