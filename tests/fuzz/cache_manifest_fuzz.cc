// Any bytes as the manifest of a cache entry, with a right checksum of itself behind them, without
// which nothing would come further. What is accepted is what would be written, and leads nowhere
// out of its files.

#include <cstdint>
#include <string>
#include <vector>

#include "kernels/check.h"
#include "loader/cache_manifest.h"
#include "loader/checksum.h"
#include "loader/printable.h"

namespace nibble {
namespace {

void CheckManifest(absl::string_view bytes) {
  std::string whole(bytes);
  const uint64_t checksum = Checksum(std::as_bytes(std::span<const char>(whole)));
  whole.append(reinterpret_cast<const char*>(&checksum), sizeof(checksum));
  const absl::StatusOr<CacheManifest> manifest = ParseCacheManifest(whole);
  if (!manifest.ok()) {
    const absl::string_view message = manifest.status().message();
    Check(absl::IsDataLoss(manifest.status()), "a manifest is sound or broken");
    Check(IsUtf8(message) && !HasControlCharacters(message), "messages are printable");
    return;
  }
  for (const CacheManifest::File& file : manifest->files) {
    Check(IsPlainFileName(file.name), "files are plain files");
  }
  const std::vector<std::vector<FileRange>> ranges = RangesByFile(*manifest);
  int64_t piece_count = 0;
  for (size_t index = 0; index < ranges.size(); ++index) {
    int64_t end = 0;
    for (const FileRange& range : ranges[index]) {
      Check(range.bytes > 0 && range.offset >= end, "planes lie side by side");
      end = range.offset + range.bytes;
      piece_count += PieceCount(range.bytes);
    }
    Check(end <= manifest->files[index].bytes, "planes lie in their files");
  }
  Check(piece_count == std::ssize(manifest->checksums), "each piece has its checksum");
  const absl::StatusOr<CacheManifest> again = ParseCacheManifest(WriteCacheManifest(*manifest));
  Check(again.ok() && WriteCacheManifest(*again) == WriteCacheManifest(*manifest),
        "what is written is read the same");
}

}  // namespace
}  // namespace nibble

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* bytes, size_t size) {
  const absl::string_view text(reinterpret_cast<const char*>(bytes), size);
  nibble::CheckManifest(text);
  static_cast<void>(nibble::ParseCacheManifest(text).ok());
  return 0;
}
