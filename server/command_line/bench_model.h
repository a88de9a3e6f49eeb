// A model that is loaded and answers in this process, for benchmarks.

#pragma once

#include <cstdint>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "kernels/device.h"
#include "loader/checkpoint.h"
#include "loader/load_plan.h"
#include "loader/vram_budget.h"
#include "loader/weights.h"
#include "server/command_line/command.h"
#include "server/engine/engine.h"
#include "server/engine/serving_plan.h"

namespace nibble {

struct BenchModelOptions {
  std::string source;
  std::string device = "host";
  QuantizationSpec quantization;
  ProductOptions products = {Arithmetic::kBf16, false};
  int64_t context_tokens = 256;
  int64_t runs = 9;
  bool json = false;
};

// The settings that the benchmarks of a model share. `options` must outlive them.
std::vector<Setting> BenchModelSettings(BenchModelOptions& options);

// How long one answer took.
struct AnswerTimes {
  absl::Duration to_first_token;
  absl::Duration to_last_token;  // From the first.
};

// Belongs to one thread.
class BenchModel {
 public:
  // Loads `options.source` within a budget of exactly its peak.
  //
  // Errors: those of planning and loading.
  static absl::StatusOr<std::unique_ptr<BenchModel>> Load(const BenchModelOptions& options);

  // One sequence of random tokens, never the same twice, and a greedy answer of `tokens` tokens.
  absl::StatusOr<AnswerTimes> Answer(int64_t prompt_tokens, int64_t tokens);

  // Bytes of weights that a step with one row reads: everything but the table of embeddings, and
  // of experts those that a token uses.
  int64_t row_weight_bytes() const { return row_weight_bytes_; }
  const Device& device() const { return *device_; }

 private:
  BenchModel() : random_(1) {}

  Checkpoint checkpoint_;
  std::unique_ptr<Device> device_;
  std::unique_ptr<VramBudget> budget_;
  std::shared_ptr<const ServingPlan> serving_;
  std::unique_ptr<Weights> weights_;
  std::unique_ptr<Engine> engine_;
  int64_t row_weight_bytes_ = 0;
  std::mt19937 random_;
};

}  // namespace nibble
