// Any bytes as model.safetensors.index.json. What is accepted names plain files only.

#include <algorithm>
#include <cstdint>
#include <string>
#include <vector>

#include "kernels/check.h"
#include "loader/checkpoint_index.h"
#include "loader/printable.h"
#include "tests/fuzz/same_verdict.h"

namespace nibble {
namespace {

void CheckIndex(absl::string_view text) {
  CheckSameVerdict(text);
  const auto index = ParseCheckpointIndex("fuzz", text);
  if (!index.ok()) {
    const absl::string_view message = index.status().message();
    Check(IsUtf8(message) && !HasControlCharacters(message), "messages are printable");
    return;
  }
  Check(std::is_sorted(index->shards.begin(), index->shards.end()), "shards are sorted");
  for (const std::string& shard : index->shards) {
    Check(IsPlainFileName(shard), "shards are plain files");
  }
  std::vector<bool> used(index->shards.size());
  for (const auto& [tensor, place] : index->places) {
    Check(!HasControlCharacters(tensor), "names hold no control characters");
    const int shard = place.indexed_shard;
    Check(shard >= 0 && static_cast<size_t>(shard) < used.size(), "a tensor has a shard");
    used[static_cast<size_t>(shard)] = true;
  }
  Check(std::find(used.begin(), used.end(), false) == used.end(), "each shard has a tensor");
}

}  // namespace
}  // namespace nibble

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* bytes, size_t size) {
  nibble::CheckIndex({reinterpret_cast<const char*>(bytes), size});
  return 0;
}
