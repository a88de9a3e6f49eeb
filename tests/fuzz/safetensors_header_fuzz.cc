// Any bytes as a safetensors file. What is accepted must be consistent, and must survive being
// written and read again.

#include <cstdint>
#include <string>

#include "absl/strings/str_cat.h"
#include "kernels/check.h"
#include "loader/printable.h"
#include "loader/safetensors.h"
#include "tests/fuzz/same_verdict.h"
#include "tests/support/memory_file.h"

namespace nibble {
namespace {

void CheckConsistent(const SafetensorsHeader& header, int64_t file_bytes) {
  int64_t end = header.entries.empty() ? file_bytes : header.entries.front().begin_bytes;
  for (const SafetensorsEntry& entry : header.entries) {
    Check(entry.begin_bytes == end && entry.bytes >= 0, "tensors lie back to back");
    int64_t bits = entry.bytes == 0 ? 0 : DtypeBits(entry.dtype);
    for (const int64_t dimension : entry.shape) {
      Check(dimension >= 0, "dimensions are not negative");
      bits = entry.bytes == 0 ? 0 : bits * dimension;
    }
    Check(bits == entry.bytes * 8, "shape and size agree");
    end += entry.bytes;
  }
  Check(end == file_bytes, "the tensors fill the file");
}

void CheckRoundTrip(const SafetensorsHeader& header, const std::string& data) {
  const std::string written = WriteSafetensorsHeader(header.entries, header.metadata);
  const auto again = ReadSafetensorsHeader("again", MemoryFile("again", written + data));
  Check(again.ok(), "what is written can be read");
  Check(again->metadata == header.metadata, "metadata survives");
  Check(again->entries.size() == header.entries.size(), "tensors survive");
  for (size_t i = 0; i < header.entries.size(); ++i) {
    Check(again->entries[i].name == header.entries[i].name, "names survive");
    Check(again->entries[i].shape == header.entries[i].shape, "shapes survive");
    Check(again->entries[i].bytes == header.entries[i].bytes, "sizes survive");
  }
}

void CheckFile(const std::string& content) {
  CheckSameVerdict(content.size() > 8 ? content.substr(8) : content);
  const auto file_bytes = static_cast<int64_t>(content.size());
  const auto header = ReadSafetensorsHeader("fuzz", MemoryFile("fuzz", content));
  if (!header.ok()) {
    const absl::string_view message = header.status().message();
    Check(IsUtf8(message) && !HasControlCharacters(message), "messages are printable");
    return;
  }
  CheckConsistent(*header, file_bytes);
  const int64_t begin = header->entries.empty() ? file_bytes : header->entries.front().begin_bytes;
  CheckRoundTrip(*header, content.substr(static_cast<size_t>(begin)));
}

}  // namespace
}  // namespace nibble

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* bytes, size_t size) {
  nibble::CheckFile(std::string(reinterpret_cast<const char*>(bytes), size));
  return 0;
}
