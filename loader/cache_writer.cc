#include "loader/cache_writer.h"

#include <algorithm>
#include <cstddef>
#include <utility>
#include <vector>

#include "loader/checksum.h"
#include "loader/file_rest.h"
#include "loader/name_map.h"
#include "loader/piece_index.h"

namespace nibble {
namespace {

// Of a tensor's name and of each part in the manifest, amply.
constexpr int64_t kTensorTextBytes = 64;
constexpr int64_t kPartTextBytes = 256;

// Of the manifest that will be written.
int64_t ManifestBytesMax(const LoadPlan& plan, const CacheKey& key, int64_t file_count) {
  int64_t bytes = std::ssize(key.text) + file_count * kPartTextBytes +
                  (PieceIndex(plan).size() + 1) * int64_t{sizeof(uint64_t)};
  for (const PlannedTensor& tensor : plan.tensors) {
    bytes +=
        2 * std::ssize(tensor.name) + kTensorTextBytes + std::ssize(tensor.parts) * kPartTextBytes;
  }
  return bytes;
}

// Notes where planes go while an export writes them, and the checksums of their pieces. Parts that
// follow each other in one exported tensor have pieces of their own, each counted from its start.
class PlaneRecorder final : public ExportObserver {
 public:
  // `manifest` has its shards and tensors, and room for every checksum.
  PlaneRecorder(const LoadPlan& plan, absl::FunctionRef<bool()> cancelled, CacheManifest& manifest)
      : plan_(plan), pieces_(plan), cancelled_(cancelled), manifest_(manifest) {
    for (size_t index = 0; index < manifest.files.size(); ++index) {
      file_indices_[manifest.files[index].name] = static_cast<int>(index);
    }
    size_t loaded_count = 0;
    for (const PlannedTensor& tensor : plan.tensors) {
      manifest_indices_.push_back(loaded_count);
      loaded_count += tensor.loaded ? 1 : 0;
    }
    pending_.reserve(kCopyTileAlignmentBytes);
  }

  void OnProgress(int64_t, int64_t) override {}
  bool cancelled() const override { return cancelled_(); }

  void OnPiece(const ExportedPiece& piece) override {
    if (piece.tensor->content != ExportedTensor::Content::kPlane) {
      return;
    }
    if (piece.tensor_offset == 0) {
      Start(piece);
    }
    std::span<const std::byte> bytes = piece.bytes;
    while (!bytes.empty()) {
      while (part_left_ == 0) {
        NextPart();
      }
      const size_t count =
          std::min({bytes.size(), static_cast<size_t>(kCopyTileAlignmentBytes) - pending_.size(),
                    static_cast<size_t>(part_left_)});
      Add(bytes.first(count));
      bytes = bytes.subspan(count);
    }
  }

 private:
  void Start(const ExportedPiece& piece) {
    unit_ = piece.tensor->unit;
    plane_ = piece.tensor->plane;
    tensor_index_ = static_cast<size_t>(unit_.tensor - plan_.tensors.data());
    part_index_ = unit_.first_part - 1;
    part_left_ = 0;
    place_ = {file_indices_.at(std::string(piece.file_name)), piece.file_offset, 0};
  }

  void NextPart() {
    ++part_index_;
    Check(part_index_ < unit_.first_part + unit_.part_count, "a tensor has the bytes of its parts");
    const auto part_index = static_cast<size_t>(part_index_);
    place_.offset += place_.bytes;
    place_.bytes = PlaneBytes(*unit_.tensor, unit_.tensor->parts[part_index], plane_);
    part_left_ = place_.bytes;
    next_piece_ = pieces_.first(tensor_index_, part_index, plane_);
    manifest_.tensors[manifest_indices_[tensor_index_]]
        .parts[part_index]
        .planes[static_cast<size_t>(plane_)] = place_;
  }

  void Add(std::span<const std::byte> bytes) {
    part_left_ -= std::ssize(bytes);
    const bool fresh = pending_.empty();
    if (!fresh || (std::ssize(bytes) < kCopyTileAlignmentBytes && part_left_ > 0)) {
      pending_.insert(pending_.end(), bytes.begin(), bytes.end());
      bytes = pending_;
    }
    if (std::ssize(bytes) == kCopyTileAlignmentBytes || part_left_ == 0) {
      manifest_.checksums[static_cast<size_t>(next_piece_++)] = Checksum(bytes);
      pending_.clear();
    }
  }

  const LoadPlan& plan_;
  const PieceIndex pieces_;
  const absl::FunctionRef<bool()> cancelled_;
  CacheManifest& manifest_;
  NameMap<int> file_indices_;
  std::vector<size_t> manifest_indices_;  // Of each tensor of the plan.

  // The tensor that is being written.
  ExportUnit unit_;
  Plane plane_ = Plane::kData;
  size_t tensor_index_ = 0;
  int64_t part_index_ = 0;
  int64_t part_left_ = 0;  // Bytes.
  FileRange place_;        // Of the part.
  int64_t next_piece_ = 0;
  std::vector<std::byte> pending_;  // Of a piece that came in two.
};

// A manifest with names alone. Shards come first, as places count files.
CacheManifest DraftManifest(const CacheWrite& write, const ExportPlan& export_plan) {
  CacheManifest manifest;
  manifest.key = write.key.text;
  for (const ExportShard& shard : export_plan.shards) {
    manifest.files.emplace_back().name = shard.file_name;
  }
  for (const PlannedTensor& tensor : write.plan->tensors) {
    if (tensor.loaded) {
      CacheManifest::Tensor& cached = manifest.tensors.emplace_back();
      cached.name = tensor.name;
      cached.parts.resize(tensor.parts.size());
    }
  }
  manifest.checksums.resize(static_cast<size_t>(PieceIndex(*write.plan).size()));
  return manifest;
}

}  // namespace

absl::Status CacheWriter::Begin() {
  absl::StatusOr<ExportPlan> export_plan =
      MakeExportPlan(*write_.plan, write_.config, write_.config_json);
  if (!export_plan.ok()) {
    return export_plan.status();
  }
  export_plan_ = *std::move(export_plan);
  const int64_t file_count = std::ssize(export_plan_.shards) + 2;
  const absl::StatusOr<int64_t> evicted = cache_.MakeRoom(
      lock_, export_plan_.disk_bytes_max + ManifestBytesMax(*write_.plan, write_.key, file_count));
  if (!evicted.ok()) {
    return evicted.status();
  }
  evicted_count_ = *evicted;
  absl::StatusOr<std::unique_ptr<NewDirectory>> target = cache_.NewEntry(lock_, write_.key);
  if (!target.ok()) {
    return target.status();
  }
  target_ = *std::move(target);
  absl::Status status = target_->Make();
  // Before anything else: it says whose the directory is if this process is killed.
  return status.ok() ? target_->WriteText(std::string(kLeftoverFileName), "") : status;
}

absl::Status CacheWriter::Copy(Device& device, const Weights& weights,
                               absl::FunctionRef<bool()> cancelled) {
  manifest_ = DraftManifest(write_, export_plan_);
  PlaneRecorder recorder(*write_.plan, cancelled, manifest_);
  absl::Status status = AddScaleMeans(device, weights, cancelled);
  return status.ok() ? WriteCheckpoint(device, weights, write_.config, export_plan_, *target_,
                                       recorder, summary_)
                     : status;
}

absl::Status CacheWriter::AddScaleMeans(Device& device, const Weights& weights,
                                        absl::FunctionRef<bool()> cancelled) {
  absl::StatusOr<std::unique_ptr<Queue>> queue = device.NewQueue();
  if (!queue.ok()) {
    return queue.status();
  }
  size_t next = 0;
  for (const PlannedTensor& tensor : write_.plan->tensors) {
    if (!tensor.loaded) {
      continue;
    }
    CacheManifest::Tensor& cached = manifest_.tensors[next++];
    for (size_t index = 0; tensor.double_quantized && index < tensor.parts.size(); ++index) {
      if (cancelled()) {
        return absl::CancelledError("the writing of the entry was cancelled");
      }
      const absl::StatusOr<float> mean = weights.CopyScaleMean(**queue, tensor.parts[index]);
      if (!mean.ok()) {
        return mean.status();
      }
      cached.parts[index].scale_mean = *mean;
    }
  }
  return absl::OkStatus();
}

absl::StatusOr<int64_t> CacheWriter::Finish() {
  if (absl::Status status = DescribeFiles(); !status.ok()) {
    return status;
  }
  const std::string text = WriteCacheManifest(manifest_);
  absl::Status status = target_->WriteText(std::string(kManifestFileName), text);
  if (status.ok()) {
    status = target_->Drop(std::string(kLeftoverFileName));
  }
  if (status.ok()) {
    status = target_->Keep();
  }
  if (!status.ok()) {
    return status;
  }
  return summary_.bytes + std::ssize(text);
}

// Reads back what lies in no plane; it is small, and just written.
absl::Status CacheWriter::DescribeFiles() {
  for (const std::string& name : summary_.files) {
    const auto is_it = [&name](const CacheManifest::File& file) { return file.name == name; };
    if (std::none_of(manifest_.files.begin(), manifest_.files.end(), is_it)) {
      manifest_.files.emplace_back().name = name;
    }
  }
  const auto directory = OpenCheckpointDirectory(cache_.path(), target_->partial_name());
  if (!directory.ok()) {
    return directory.status();
  }
  const std::vector<std::vector<FileRange>> planes = RangesByFile(manifest_);
  for (size_t index = 0; index < manifest_.files.size(); ++index) {
    CacheManifest::File& described = manifest_.files[index];
    const absl::StatusOr<std::unique_ptr<ReadOnlyFile>> file = (*directory)->Open(described.name);
    if (!file.ok()) {
      return file.status();
    }
    const absl::StatusOr<FileIdentity> identity = (*file)->Identify();
    if (!identity.ok()) {
      return identity.status();
    }
    described.bytes = identity->bytes;
    absl::StatusOr<std::string> rest = DigestRest(**file, described.bytes, planes[index]);
    if (!rest.ok()) {
      return rest.status();
    }
    described.rest_digest = *std::move(rest);
  }
  return absl::OkStatus();
}

}  // namespace nibble
