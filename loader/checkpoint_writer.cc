#include "loader/checkpoint_writer.h"

#include <algorithm>
#include <memory>
#include <utility>

#include "absl/cleanup/cleanup.h"
#include "absl/strings/str_cat.h"
#include "loader/checkpoint_index.h"
#include "loader/exported_tensor.h"
#include "loader/python_json.h"
#include "loader/safetensors.h"

namespace nibble {
namespace {

// Lines of the index that are gathered before they are written.
constexpr size_t kIndexBufferBytes = 64 << 10;

// Whether a tensor is a few bytes that say how another one is to be read.
bool IsSide(const ExportedTensor& tensor) {
  return tensor.content != ExportedTensor::Content::kPlane;
}

// As the official writer sorts: the widest types first, which aligns all of them, then by name; but
// side tensors lie together, those of F32 before all others and texts behind them, so that whoever
// wants them alone finds them in two runs, not in one after each tensor.
void SortForFile(std::vector<ExportedTensor>& tensors) {
  std::sort(tensors.begin(), tensors.end(), [](const ExportedTensor& a, const ExportedTensor& b) {
    if (a.entry.dtype != b.entry.dtype) {
      return a.entry.dtype > b.entry.dtype;
    }
    if (IsSide(a) != IsSide(b)) {
      return IsSide(a) == (a.entry.dtype == Dtype::kF32);
    }
    return a.entry.name < b.entry.name;
  });
}

// Writes one checkpoint. Belongs to one call.
class Writer {
 public:
  Writer(const Weights& weights, const ModelConfig& config, const ExportPlan& plan,
         NewDirectory& target, ExportObserver& observer, ExportSummary& summary, Queue& queue,
         std::span<std::byte> buffer)
      : weights_(weights),
        config_(config),
        plan_(plan),
        target_(target),
        observer_(observer),
        summary_(summary),
        queue_(queue),
        buffer_(buffer) {}

  absl::Status Write() {
    absl::Status status = WriteText("config.json", plan_.config_json);
    for (const ExportShard& shard : plan_.shards) {
      if (!status.ok()) {
        return status;
      }
      status = WriteShard(shard);
    }
    if (status.ok() && plan_.shards.size() > 1) {
      status = WriteIndex();
    }
    return status;
  }

 private:
  void Count(absl::string_view file_name, int64_t bytes) {
    summary_.files.emplace_back(file_name);
    summary_.bytes += bytes;
  }

  absl::Status WriteText(const std::string& file_name, absl::string_view text) {
    absl::Status status = target_.WriteText(file_name, text);
    if (status.ok()) {
      Count(file_name, std::ssize(text));
    }
    return status;
  }

  // The tensors of a shard in the order of its file, offsets filled in but for the header's length.
  absl::StatusOr<std::vector<ExportedTensor>> TensorsOfShard(const ExportShard& shard) const {
    std::vector<ExportedTensor> tensors;
    for (size_t index = shard.first_unit; index < shard.first_unit + shard.unit_count; ++index) {
      const ExportUnit& unit = plan_.units[index];
      float scale_mean = 0;
      if (unit.tensor->quantized() && unit.tensor->double_quantized && unit.part_count > 0) {
        const absl::StatusOr<float> mean = weights_.CopyScaleMean(
            queue_, unit.tensor->parts[static_cast<size_t>(unit.first_part)]);
        if (!mean.ok()) {
          return mean.status();
        }
        scale_mean = *mean;
      }
      for (ExportedTensor& tensor : TensorsOf(config_, unit, scale_mean)) {
        tensors.push_back(std::move(tensor));
      }
    }
    SortForFile(tensors);
    return tensors;
  }

  absl::Status WriteShard(const ExportShard& shard) {
    if (absl::Status status = CheckCancelled(); !status.ok()) {
      return status;
    }
    absl::StatusOr<std::vector<ExportedTensor>> tensors = TensorsOfShard(shard);
    if (!tensors.ok()) {
      return tensors.status();
    }
    absl::StatusOr<NewFile> file = target_.Create(shard.file_name);
    if (!file.ok()) {
      return file.status();
    }
    int64_t offset = 0;
    {
      std::vector<SafetensorsEntry> entries;
      entries.reserve(tensors->size());
      for (const ExportedTensor& tensor : *tensors) {
        entries.push_back(tensor.entry);
      }
      const std::string header = WriteSafetensorsHeader(entries, {{"format", "pt"}});
      if (absl::Status status = file->Append(header); !status.ok()) {
        return status;
      }
      offset = std::ssize(header);
    }
    for (const ExportedTensor& tensor : *tensors) {
      if (absl::Status status = WriteTensor(shard.file_name, tensor, offset, *file); !status.ok()) {
        return status;
      }
      offset += tensor.entry.bytes;
      data_bytes_ += tensor.entry.bytes;
    }
    Count(shard.file_name, offset);
    return file->Close();
  }

  absl::Status CheckCancelled() const {
    return observer_.cancelled() ? absl::CancelledError("the export was cancelled")
                                 : absl::OkStatus();
  }

  absl::Status WriteTensor(absl::string_view file_name, const ExportedTensor& tensor,
                           int64_t file_offset, NewFile& file) {
    ExportedPiece place;
    place.tensor = &tensor;
    place.file_name = file_name;
    place.tensor_name = tensor.entry.name;
    place.file_offset = file_offset;
    if (tensor.content != ExportedTensor::Content::kPlane) {
      return Emit(BytesOf(weights_.plan(), tensor), place, file);
    }
    // Parts follow each other without a seam, so that pieces are counted over all of them.
    int64_t filled = 0;
    for (int64_t index = 0; index < tensor.unit.part_count; ++index) {
      const PlannedTensor& source = *tensor.unit.tensor;
      const PlannedPart& part = source.parts[static_cast<size_t>(tensor.unit.first_part + index)];
      const int64_t bytes = PlaneBytes(source, part, tensor.plane);
      for (int64_t done = 0; done < bytes;) {
        const int64_t count = std::min(bytes - done, std::ssize(buffer_) - filled);
        absl::Status status = CheckCancelled();
        if (status.ok()) {
          status = weights_.CopyStandardBytes(
              queue_, source, part, tensor.plane, done,
              buffer_.subspan(static_cast<size_t>(filled), static_cast<size_t>(count)));
        }
        filled += count;
        done += count;
        if (status.ok() && filled == std::ssize(buffer_)) {
          status = Flush(std::exchange(filled, 0), place, file);
        }
        if (!status.ok()) {
          return status;
        }
      }
    }
    return Flush(filled, place, file);
  }

  absl::Status Flush(int64_t filled, ExportedPiece& place, NewFile& file) {
    absl::Status status = Emit(buffer_.first(static_cast<size_t>(filled)), place, file);
    written_plane_bytes_ += filled;
    observer_.OnProgress(written_plane_bytes_, plan_.plane_bytes);
    return status;
  }

  // Shows `bytes` to the observer piece by piece, writes them, and moves `place` behind them.
  absl::Status Emit(std::span<const std::byte> bytes, ExportedPiece& place, NewFile& file) {
    const std::span<const std::byte> all = bytes;
    while (!bytes.empty()) {
      const size_t count = std::min(bytes.size(), size_t{kExportPieceBytes});
      place.bytes = bytes.first(count);
      observer_.OnPiece(place);
      place.file_offset += static_cast<int64_t>(count);
      place.tensor_offset += static_cast<int64_t>(count);
      bytes = bytes.subspan(count);
    }
    return file.Append(all);
  }

  absl::Status WriteIndex() {
    absl::StatusOr<NewFile> file = target_.Create(std::string(kIndexFileName));
    if (!file.ok()) {
      return file.status();
    }
    int64_t bytes = 0;
    std::string lines = absl::StrCat("{\n  \"metadata\": {\n    \"total_size\": ", data_bytes_,
                                     "\n  },\n  \"weight_map\": {");
    const auto append = [&]() -> absl::Status {
      bytes += std::ssize(lines);
      absl::Status status = file->Append(lines);
      lines.clear();
      return status;
    };
    absl::string_view separator = "\n    ";
    for (const ExportShard& shard : plan_.shards) {
      for (size_t index = shard.first_unit; index < shard.first_unit + shard.unit_count; ++index) {
        for (const ExportedTensor& tensor : TensorsOf(config_, plan_.units[index], 0)) {
          absl::StrAppend(&lines, separator);
          AppendJsonString(lines, tensor.entry.name);
          absl::StrAppend(&lines, ": \"", shard.file_name, "\"");
          separator = ",\n    ";
        }
        if (lines.size() >= kIndexBufferBytes) {
          if (absl::Status status = append(); !status.ok()) {
            return status;
          }
        }
      }
    }
    lines += "\n  }\n}\n";
    absl::Status status = append();
    Count(kIndexFileName, bytes);
    return status.ok() ? file->Close() : status;
  }

  const Weights& weights_;
  const ModelConfig& config_;
  const ExportPlan& plan_;
  NewDirectory& target_;
  ExportObserver& observer_;
  ExportSummary& summary_;
  Queue& queue_;
  const std::span<std::byte> buffer_;
  int64_t data_bytes_ = 0;  // Of all tensors.
  int64_t written_plane_bytes_ = 0;
};

}  // namespace

absl::Status WriteCheckpoint(Device& device, const Weights& weights, const ModelConfig& config,
                             const ExportPlan& plan, NewDirectory& target, ExportObserver& observer,
                             ExportSummary& summary) {
  absl::StatusOr<std::unique_ptr<Queue>> queue = device.NewQueue();
  if (!queue.ok()) {
    return queue.status();
  }
  const absl::StatusOr<std::span<std::byte>> buffer = device.AllocateHost(kExportBufferBytes);
  if (!buffer.ok()) {
    return buffer.status();
  }
  const auto free_buffer = absl::MakeCleanup([&] { device.FreeHost(*buffer); });
  return Writer(weights, config, plan, target, observer, summary, **queue, *buffer).Write();
}

}  // namespace nibble
