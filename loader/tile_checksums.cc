#include "loader/tile_checksums.h"

#include <algorithm>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "kernels/check.h"
#include "kernels/error_details.h"
#include "loader/checksum.h"

namespace nibble {

absl::Status CacheFailure(absl::string_view reason, absl::string_view message) {
  ErrorDetails details;
  details.reason = std::string(reason);
  return WithDetails(absl::DataLossError(message), details);
}

absl::Status AsCacheFailure(const absl::Status& error) {
  const std::string reason = DetailsOf(error).reason;
  if (absl::IsDataLoss(error) && !reason.empty()) {
    return error;
  }
  return CacheFailure(absl::IsNotFound(error) ? kCacheFileMissing : kCacheUnreadable,
                      error.message());
}

TileChecksums::TileChecksums(const LoadPlan& plan, std::vector<uint64_t> checksums)
    : plan_(&plan), pieces_(plan), checksums_(std::move(checksums)) {
  for (const PlannedTensor& tensor : plan.tensors) {
    Check(!tensor.loaded || IsCopied(tensor), "a cached tensor is copied");
  }
  Check(pieces_.size() == std::ssize(checksums_), "each piece has its checksum");
}

absl::Status TileChecksums::Verify(const Tile& tile, std::span<const std::byte> bytes) const {
  const auto tensor_index = static_cast<size_t>(tile.tensor_index);
  const PlannedTensor& tensor = plan_->tensors[tensor_index];
  const int64_t begin = tile.first * FileUnitBytes(tensor, tile.plane);
  Check(begin % kCopyTileAlignmentBytes == 0, "tiles begin with a piece");
  const auto first = static_cast<size_t>(
      pieces_.first(tensor_index, static_cast<size_t>(tile.part_index), tile.plane) +
      begin / kCopyTileAlignmentBytes);
  for (size_t piece = 0; !bytes.empty(); ++piece) {
    const size_t size = std::min(bytes.size(), static_cast<size_t>(kCopyTileAlignmentBytes));
    const uint64_t expected = checksums_[first + piece];
    if (const uint64_t found = Checksum(bytes.first(size)); found != expected) {
      return CacheFailure(
          kCacheChecksum,
          absl::StrCat("bytes ", begin + static_cast<int64_t>(piece) * kCopyTileAlignmentBytes,
                       " and on of plane ", static_cast<int>(tile.plane), " of part ",
                       tile.part_index, ": expected the checksum ",
                       absl::Hex(expected, absl::kZeroPad16), ", found ",
                       absl::Hex(found, absl::kZeroPad16)));
    }
    bytes = bytes.subspan(size);
  }
  return absl::OkStatus();
}

}  // namespace nibble
