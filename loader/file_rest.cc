#include "loader/file_rest.h"

#include <algorithm>
#include <cstddef>
#include <span>

#include "kernels/bytes.h"
#include "loader/checksum.h"

namespace nibble {
namespace {

constexpr int64_t kReadBytes = 1_MiB;

// Adds the file's bytes from `begin` to `end`.
absl::Status Add(const ReadOnlyFile& file, int64_t begin, int64_t end, DigestStream& digest) {
  std::vector<std::byte> buffer(static_cast<size_t>(std::min(end - begin, kReadBytes)));
  while (begin < end) {
    const auto bytes =
        std::span(buffer).first(static_cast<size_t>(std::min(end - begin, kReadBytes)));
    if (absl::Status status = file.Read(begin, bytes); !status.ok()) {
      return status;
    }
    digest.Add(bytes);
    begin += std::ssize(bytes);
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<std::string> DigestRest(const ReadOnlyFile& file, int64_t file_bytes,
                                       const std::vector<FileRange>& planes) {
  DigestStream digest;
  int64_t begin = 0;
  for (const FileRange& plane : planes) {
    if (absl::Status status = Add(file, begin, plane.offset, digest); !status.ok()) {
      return status;
    }
    begin = plane.offset + plane.bytes;
  }
  if (absl::Status status = Add(file, begin, file_bytes, digest); !status.ok()) {
    return status;
  }
  return digest.hex();
}

}  // namespace nibble
