#include "loader/cache_entry.h"

#include <algorithm>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "loader/file_rest.h"
#include "loader/printable.h"

namespace nibble {
namespace {

absl::Status ManifestFailure(absl::string_view message) {
  return CacheFailure(kCacheManifestBroken, absl::StrCat(kManifestFileName, ": ", message));
}

// Errors: NOT_FOUND; DATA_LOSS.
absl::StatusOr<CacheManifest> ReadManifest(const CheckpointDirectory& directory) {
  const absl::StatusOr<std::unique_ptr<ReadOnlyFile>> file = directory.Open(kManifestFileName);
  if (!file.ok()) {
    return absl::IsNotFound(file.status()) ? file.status() : AsCacheFailure(file.status());
  }
  const absl::StatusOr<FileIdentity> identity = (*file)->Identify();
  if (!identity.ok()) {
    return AsCacheFailure(identity.status());
  }
  if (identity->bytes > kManifestBytesMax) {
    return ManifestFailure(
        absl::StrCat("expected at most ", kManifestBytesMax, " bytes, found ", identity->bytes));
  }
  std::string bytes(static_cast<size_t>(identity->bytes), '\0');
  if (absl::Status status = (*file)->Read(0, std::as_writable_bytes(std::span(bytes)));
      !status.ok()) {
    return AsCacheFailure(status);
  }
  absl::StatusOr<CacheManifest> manifest = ParseCacheManifest(bytes);
  if (!manifest.ok()) {
    return ManifestFailure(manifest.status().message());
  }
  return manifest;
}

// Checks size and digest of a file; `ranges` are the planes in it.
absl::StatusOr<Shard> OpenFile(const CheckpointDirectory& directory,
                               const CacheManifest::File& expected,
                               const std::vector<FileRange>& ranges) {
  const absl::StatusOr<std::unique_ptr<ReadOnlyFile>> file = directory.Open(expected.name);
  if (!file.ok()) {
    return AsCacheFailure(file.status());
  }
  const absl::StatusOr<FileIdentity> identity = (*file)->Identify();
  if (!identity.ok()) {
    return AsCacheFailure(identity.status());
  }
  if (identity->bytes != expected.bytes) {
    return CacheFailure(kCacheFileSize, absl::StrCat(expected.name, ": expected ", expected.bytes,
                                                     " bytes, found ", identity->bytes));
  }
  const absl::StatusOr<std::string> found = DigestRest(**file, expected.bytes, ranges);
  if (!found.ok()) {
    return AsCacheFailure(found.status());
  }
  if (*found != expected.rest_digest) {
    return CacheFailure(kCacheChecksum,
                        absl::StrCat(expected.name, ": expected the digest ", expected.rest_digest,
                                     " of what is beside its planes, found ", *found));
  }
  return Shard{.file_name = expected.name, .identity = *identity};
}

// Makes `tensor` one that is read as it will be in device memory.
absl::Status RetargetTensor(const CacheManifest::Tensor& cached, PlannedTensor& tensor) {
  if (cached.name != tensor.name || cached.parts.size() != tensor.parts.size()) {
    return ManifestFailure(absl::StrCat("expected ", tensor.parts.size(), " parts of ", tensor.name,
                                        ", found ", cached.parts.size(), " of ",
                                        Printable(cached.name)));
  }
  if (tensor.form != SourceForm::kFourBit) {
    tensor.source_dtype = DtypeOf(ElementType(tensor));
  }
  tensor.form = tensor.quantized() ? SourceForm::kFourBit : SourceForm::kElements;
  tensor.f8_scale.reset();
  tensor.source_bytes = 0;
  for (size_t index = 0; index < tensor.parts.size(); ++index) {
    PlannedPart& part = tensor.parts[index];
    for (const Plane plane : kPlanes) {
      const FileRange& range = cached.parts[index].planes[static_cast<size_t>(plane)];
      if (const int64_t bytes = PlaneBytes(tensor, part, plane); range.bytes != bytes) {
        return ManifestFailure(absl::StrCat(tensor.name, ": expected ", bytes, " bytes of plane ",
                                            static_cast<int>(plane), " of part ", index, ", found ",
                                            range.bytes));
      }
      part[plane].file_offset = range.offset;
      part[plane].shard_index = range.bytes > 0 ? range.shard_index : -1;
      tensor.source_bytes += range.bytes;
    }
    part.scale_mean = cached.parts[index].scale_mean;
  }
  if (!tensor.parts.empty()) {
    const PlanePlace& first = tensor.parts.front()[Plane::kData];
    tensor.shard_index = std::max(first.shard_index, 0);
    tensor.file_offset = first.file_offset;
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<LoadPlan> RetargetPlan(const LoadPlan& plan, const CacheManifest& manifest) {
  LoadPlan retargeted = plan;
  retargeted.source_bytes = 0;
  size_t next = 0;
  for (PlannedTensor& tensor : retargeted.tensors) {
    if (!tensor.loaded) {
      continue;
    }
    if (next == manifest.tensors.size()) {
      return ManifestFailure(absl::StrCat("expected ", tensor.name, ", found no more tensors"));
    }
    if (absl::Status status = RetargetTensor(manifest.tensors[next++], tensor); !status.ok()) {
      return status;
    }
    retargeted.source_bytes += tensor.source_bytes;
  }
  if (next != manifest.tensors.size()) {
    return ManifestFailure(
        absl::StrCat("expected ", next, " tensors, found ", manifest.tensors.size()));
  }
  return retargeted;
}

absl::StatusOr<CacheEntry> OpenCacheEntry(std::shared_ptr<const CheckpointDirectory> directory,
                                          const CacheKey& key, const LoadPlan& plan) {
  absl::StatusOr<CacheManifest> manifest = ReadManifest(*directory);
  if (!manifest.ok()) {
    return manifest.status();
  }
  if (manifest->key != key.text) {
    return ManifestFailure("is that of another load");
  }
  CacheEntry entry;
  const std::vector<std::vector<FileRange>> ranges = RangesByFile(*manifest);
  for (size_t index = 0; index < manifest->files.size(); ++index) {
    absl::StatusOr<Shard> shard = OpenFile(*directory, manifest->files[index], ranges[index]);
    if (!shard.ok()) {
      return shard.status();
    }
    entry.checkpoint.shards.push_back(*std::move(shard));
  }
  absl::StatusOr<LoadPlan> retargeted = RetargetPlan(plan, *manifest);
  if (!retargeted.ok()) {
    return retargeted.status();
  }
  entry.checkpoint.directory = std::move(directory);
  entry.plan = std::make_shared<const LoadPlan>(*std::move(retargeted));
  entry.checksums =
      std::make_unique<const TileChecksums>(*entry.plan, std::move(manifest->checksums));
  return entry;
}

}  // namespace nibble
