// An export in a test: load a checkpoint, write it out, read what was written.

#pragma once

#include <fcntl.h>

#include <filesystem>
#include <memory>
#include <nlohmann/json.hpp>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "kernels/check.h"
#include "loader/export_checkpoint.h"
#include "tests/support/golden_tensors.h"
#include "tests/support/loading.h"
#include "tests/support/tiny_checkpoint.h"

namespace nibble {

class NullExportObserver : public ExportObserver {
 public:
  void OnProgress(int64_t, int64_t) override {}
  bool cancelled() const override { return false; }
};

// A model on a host device of its own, of exactly its plan's size.
class LoadedModel {
 public:
  explicit LoadedModel(const std::filesystem::path& source, const QuantizationSpec& spec = {}) {
    absl::StatusOr<Checkpoint> checkpoint = OpenForTest(source);
    Check(checkpoint.ok(), checkpoint.status().ToString().c_str());
    plan_ = PlanForTest(*checkpoint, kHostTraits, spec);
    device_ = OpenHostDevice(plan_->peak_bytes());
    budget_ = std::make_unique<VramBudget>(plan_->peak_bytes());
    NullObserver observer;
    auto weights = LoadForTest(*device_, *budget_, *checkpoint, plan_, observer);
    Check(weights.ok(), weights.status().ToString().c_str());
    weights_ = *std::move(weights);
    origin_ = {checkpoint->directory, checkpoint->config, checkpoint->config_json};
  }

  Device& device() { return *device_; }
  const Weights& weights() const { return *weights_; }
  const LoadPlan& plan() const { return *plan_; }
  const CheckpointOrigin& origin() const { return origin_; }

  // Exports to `directory`, whose parent exists.
  absl::StatusOr<ExportSummary> Export(const std::filesystem::path& directory,
                                       ExportObserver& observer) {
    auto target = ResolveExportDirectory({directory.parent_path().string()}, directory.string());
    return target.ok() ? ExportCheckpoint(*device_, *weights_, origin_, **target, observer)
                       : target.status();
  }
  ExportSummary Export(const std::filesystem::path& directory) {
    NullExportObserver observer;
    absl::StatusOr<ExportSummary> summary = Export(directory, observer);
    Check(summary.ok(), summary.status().ToString().c_str());
    return *std::move(summary);
  }

 private:
  std::shared_ptr<const LoadPlan> plan_;
  std::unique_ptr<Device> device_;
  std::unique_ptr<VramBudget> budget_;
  std::unique_ptr<Weights> weights_;
  CheckpointOrigin origin_;
};

inline std::vector<std::string> FileNames(const std::filesystem::path& directory) {
  std::set<std::string> names;
  for (const auto& entry : std::filesystem::directory_iterator(directory)) {
    names.insert(entry.path().filename().string());
  }
  return {names.begin(), names.end()};
}

// The tensors of every shard in a directory, with the file that each is in.
class CheckpointTensors {
 public:
  explicit CheckpointTensors(const std::filesystem::path& directory) {
    for (const std::string& name : FileNames(directory)) {
      if (std::filesystem::path(name).extension() != ".safetensors") {
        continue;
      }
      files_.push_back(std::make_unique<GoldenTensors>((directory / name).string()));
      for (const auto& [tensor, content] : files_.back()->all()) {
        Check(tensors_.emplace(tensor, content).second, "a tensor is in one shard");
        shards_[tensor] = name;
      }
    }
  }

  const std::map<std::string, GoldenTensors::Tensor>& all() const { return tensors_; }
  const std::map<std::string, std::string>& shards() const { return shards_; }
  const GoldenTensors::Tensor& at(const std::string& name) const {
    Check(tensors_.count(name) != 0, name.c_str());
    return tensors_.at(name);
  }
  std::string Text(const std::string& name) const {
    const auto bytes = at(name).As<char>();
    return {bytes.begin(), bytes.end()};
  }

 private:
  std::vector<std::unique_ptr<GoldenTensors>> files_;
  std::map<std::string, GoldenTensors::Tensor> tensors_;
  std::map<std::string, std::string> shards_;
};

inline nlohmann::json ReadJson(const std::filesystem::path& path) {
  return nlohmann::json::parse(ReadFile(path));
}

}  // namespace nibble
