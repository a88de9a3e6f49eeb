// Cache entries written by hand, plane by plane and as oddly as the format allows, so that tests of
// the reader do not rest on the writer.

#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "kernels/check.h"
#include "loader/cache_key.h"
#include "loader/cache_manifest.h"
#include "loader/checksum.h"
#include "tests/support/loading.h"
#include "tests/support/tiny_checkpoint.h"

namespace nibble {

// Two files, the planes dealt out to them last first, with bytes between them that belong to no
// plane.
class HandWrittenEntry {
 public:
  HandWrittenEntry(Device& device, const Weights& weights, const CacheKey& key) {
    manifest_.key = key.text;
    for (size_t index = 0; index < 2; ++index) {
      manifest_.files.emplace_back().name = absl::StrCat("part-", index, ".safetensors");
      Append(index, absl::StrCat("head of file ", index));
    }
    const std::vector<PlannedTensor>& tensors = weights.plan().tensors;
    for (const PlannedTensor& tensor : tensors) {
      if (tensor.loaded) {
        CacheManifest::Tensor& cached = manifest_.tensors.emplace_back();
        cached.name = tensor.name;
        cached.parts.resize(tensor.parts.size());
      }
    }
    size_t next = manifest_.tensors.size();
    for (auto tensor = tensors.rbegin(); tensor != tensors.rend(); ++tensor) {
      if (tensor->loaded) {
        PlaceTensor(device, weights, *tensor, manifest_.tensors[--next]);
      }
    }
    AddChecksums();
  }

  CacheManifest& manifest() { return manifest_; }

  // Writes the files, then the manifest as it is now.
  void Write(const std::filesystem::path& directory) const {
    std::filesystem::create_directories(directory);
    for (size_t index = 0; index < files_.size(); ++index) {
      WriteFile(directory / manifest_.files[index].name, files_[index]);
    }
    WriteManifest(directory);
  }

  void WriteManifest(const std::filesystem::path& directory) const {
    WriteFile(directory / std::string(kManifestFileName), WriteCacheManifest(manifest_));
  }

 private:
  void Append(size_t file_index, const std::string& rest) {
    files_.resize(std::max(files_.size(), file_index + 1));
    rests_.resize(files_.size());
    files_[file_index] += rest;
    rests_[file_index] += rest;
  }

  void PlaceTensor(Device& device, const Weights& weights, const PlannedTensor& tensor,
                   CacheManifest::Tensor& cached) {
    for (size_t part_index = tensor.parts.size(); part_index-- > 0;) {
      const PlannedPart& part = tensor.parts[part_index];
      for (const Plane plane : kPlanes) {
        const std::vector<std::byte> bytes = LoadedPlane(device, weights, tensor, part, plane);
        if (bytes.empty()) {
          continue;
        }
        std::string& file = files_[plane_count_ % 2];
        cached.parts[part_index].planes[static_cast<size_t>(plane)] = {
            static_cast<int>(plane_count_ % 2), std::ssize(file), std::ssize(bytes)};
        file.append(reinterpret_cast<const char*>(bytes.data()), bytes.size());
        // Sometimes planes lie side by side.
        Append(plane_count_ % 2, std::string(plane_count_ % 3, 'x'));
        ++plane_count_;
      }
      if (tensor.double_quantized) {
        absl::StatusOr<std::unique_ptr<Queue>> queue = device.NewQueue();
        cached.parts[part_index].scale_mean = *weights.CopyScaleMean(**queue, part);
      }
    }
  }

  void AddChecksums() {
    for (const CacheManifest::Tensor& tensor : manifest_.tensors) {
      for (const CacheManifest::Part& part : tensor.parts) {
        for (const FileRange& range : part.planes) {
          AddChecksums(range);
        }
      }
    }
    for (size_t index = 0; index < files_.size(); ++index) {
      manifest_.files[index].bytes = std::ssize(files_[index]);
      manifest_.files[index].rest_digest = Digest(rests_[index]);
    }
  }

  void AddChecksums(const FileRange& range) {
    if (range.bytes == 0) {
      return;
    }
    const std::span<const std::byte> plane =
        std::as_bytes(std::span(files_[static_cast<size_t>(range.shard_index)]))
            .subspan(static_cast<size_t>(range.offset), static_cast<size_t>(range.bytes));
    for (size_t begin = 0; begin < plane.size(); begin += 65'536) {
      manifest_.checksums.push_back(
          Checksum(plane.subspan(begin, std::min<size_t>(plane.size() - begin, 65'536))));
    }
  }

  CacheManifest manifest_;
  std::vector<std::string> files_;
  std::vector<std::string> rests_;  // Of each file what lies in no plane.
  size_t plane_count_ = 0;
};

}  // namespace nibble
