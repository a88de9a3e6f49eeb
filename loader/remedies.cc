// What to change so that a refused load fits. Each remedy is a plan that was made and compared.

#include <algorithm>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/strings/str_cat.h"
#include "loader/glob.h"
#include "loader/load_plan.h"
#include "loader/quantization_policy.h"
#include "loader/slab_layout.h"

namespace nibble {
namespace {

using Cancelled = absl::FunctionRef<bool()>;

// `plan` with other options, laid out anew. What the options cannot do leaves no plan; nor does it
// once nobody wants one.
std::optional<LoadPlan> Replan(const LoadPlan& plan, const QuantizationSpec& quantization,
                               Cancelled cancelled) {
  if (!Validate(quantization).ok()) {
    return std::nullopt;
  }
  LoadPlan changed = plan;
  changed.quantization = quantization;
  TensorGlobs globs(changed.quantization);
  for (PlannedTensor& tensor : changed.tensors) {
    if (cancelled()) {
      return std::nullopt;
    }
    if (tensor.loaded &&
        !DecideFormat(changed.quantization, globs.Match(tensor.name), plan.partly_quantized, tensor)
             .ok()) {
      return std::nullopt;
    }
  }
  LayOutSlab(changed);
  SizeStaging(changed);
  return changed;
}

// Staging is asked for in whole MiB: shorter to type, and a multiple of every granularity we have.
int64_t StagingStep(const LoadPlan& plan) {
  return std::max(int64_t{1_MiB}, plan.traits.granularity_bytes);
}

int64_t PeakWithStaging(const LoadPlan& plan, int64_t staging_bytes) {
  return plan.resident_bytes() +
         RoundUp(staging_bytes + plan.scale_scratch_bytes, plan.traits.granularity_bytes);
}

// The largest staging, at most the plan's, with which it fits; 0 if the smallest is too large.
int64_t StagingThatFits(const LoadPlan& plan, int64_t available_bytes) {
  const int64_t step = StagingStep(plan);
  const int64_t room_bytes = available_bytes - PeakWithStaging(plan, 0);
  const int64_t staging_bytes = std::min(plan.configured_staging_bytes, room_bytes) / step * step;
  return staging_bytes >= kStagingBytesMin ? staging_bytes : 0;
}

// Embeddings and output heads that are kept by default.
std::vector<std::string> KeptLookupTables(const LoadPlan& plan) {
  TensorGlobs globs(plan.quantization);
  std::vector<std::string> names;
  for (const PlannedTensor& tensor : plan.tensors) {
    const bool table =
        tensor.weight.role == Role::kEmbedding || tensor.weight.role == Role::kOutputHead;
    if (table && tensor.loaded && !tensor.quantized() &&
        globs.Match(tensor.name) != TensorGlobs::Choice::kKeep && IsGlob(tensor.name) &&
        GlobMatches(tensor.name, tensor.name)) {
      names.push_back(tensor.name);
    }
  }
  return names;
}

// A change of the options, as a user would type it.
struct Change {
  std::string flags;
  QuantizationSpec quantization;
};

bool Fits(const LoadPlan& plan, const QuantizationSpec& quantization, int64_t available_bytes,
          Cancelled cancelled) {
  const std::optional<LoadPlan> changed = Replan(plan, quantization, cancelled);
  return changed.has_value() && changed->peak_bytes() <= available_bytes;
}

// The smallest larger block size with which `change` fits, or the largest there is: more elements a
// scale cost accuracy, so not more than needed.
Change WithLargerBlocks(const LoadPlan& plan, Change change, int64_t available_bytes,
                        Cancelled cancelled) {
  int64_t& block_size = change.quantization.block_size;
  if (block_size == kBlockSizeMax) {
    return change;
  }
  do {
    block_size *= 2;
  } while (block_size < kBlockSizeMax &&
           !Fits(plan, change.quantization, available_bytes, cancelled));
  absl::StrAppend(&change.flags, change.flags.empty() ? "" : " ", "--block-size ", block_size);
  return change;
}

Change WithQuantizedTables(const LoadPlan& plan) {
  Change change{"", plan.quantization};
  for (std::string& name : KeptLookupTables(plan)) {
    absl::StrAppend(&change.flags, change.flags.empty() ? "" : " ", "--quantize '", name, "'");
    change.quantization.quantize.push_back(std::move(name));
  }
  return change;
}

// Ways to a smaller slab: one option at a time, and both if neither is enough.
std::vector<Change> SmallerSlabs(const LoadPlan& plan, int64_t available_bytes,
                                 Cancelled cancelled) {
  if (plan.quantization.format == Format::kAsStored) {
    Change change{"--format nf4", plan.quantization};
    change.quantization.format = Format::kNf4;
    return {std::move(change)};
  }
  const Change tables = WithQuantizedTables(plan);
  const Change blocks = WithLargerBlocks(plan, {"", plan.quantization}, available_bytes, cancelled);
  std::vector<Change> changes;
  bool enough = false;
  for (const Change& change : {tables, blocks}) {
    if (!change.flags.empty()) {
      changes.push_back(change);
      enough = enough || Fits(plan, change.quantization, available_bytes, cancelled);
    }
  }
  if (!enough && changes.size() == 2) {
    changes.push_back(WithLargerBlocks(plan, tables, available_bytes, cancelled));
  }
  return changes;
}

}  // namespace

std::vector<std::string> Remedies(const LoadPlan& plan, int64_t limit_bytes,
                                  int64_t available_bytes, Cancelled cancelled) {
  std::vector<std::string> remedies;
  if (plan.peak_bytes() <= available_bytes) {
    return remedies;
  }
  if (plan.peak_bytes() <= limit_bytes) {
    remedies.push_back(
        absl::StrCat("unload other models, which hold ", limit_bytes - available_bytes, " bytes"));
  }
  const int64_t staging_bytes = StagingThatFits(plan, available_bytes);
  if (staging_bytes > 0) {
    remedies.push_back(absl::StrCat("start the daemon with --staging ", staging_bytes / 1_MiB,
                                    "MiB (peak ", PeakWithStaging(plan, staging_bytes), " bytes)"));
  }
  const size_t without_options = remedies.size();
  for (const Change& change : SmallerSlabs(plan, available_bytes, cancelled)) {
    const std::optional<LoadPlan> changed = Replan(plan, change.quantization, cancelled);
    if (!changed.has_value()) {
      continue;
    }
    if (changed->peak_bytes() <= available_bytes) {
      remedies.push_back(
          absl::StrCat("load with ", change.flags, " (peak ", changed->peak_bytes(), " bytes)"));
    } else if (const int64_t staging = StagingThatFits(*changed, available_bytes);
               staging > 0 && remedies.size() == without_options) {
      remedies.push_back(absl::StrCat("load with ", change.flags,
                                      " and start the daemon with --staging ", staging / 1_MiB,
                                      "MiB (peak ", PeakWithStaging(*changed, staging), " bytes)"));
    }
  }
  remedies.push_back(
      absl::StrCat("raise --vram-budget by ", plan.peak_bytes() - available_bytes, " bytes"));
  return remedies;
}

}  // namespace nibble
