#include "loader/checksum.h"

#include <xxhash.h>

#include <algorithm>

#include "absl/strings/escaping.h"
#include "kernels/check.h"

namespace nibble {
namespace {

std::string Hex(const XXH128_hash_t& hash) {
  XXH128_canonical_t canonical;
  XXH128_canonicalFromHash(&canonical, hash);
  return absl::BytesToHexString(
      absl::string_view(reinterpret_cast<const char*>(canonical.digest), sizeof(canonical.digest)));
}

}  // namespace

struct DigestStream::State {
  struct Deleter {
    void operator()(XXH3_state_t* state) const { XXH3_freeState(state); }
  };

  // The library's own allocation, because its state wants 64-byte alignment.
  const std::unique_ptr<XXH3_state_t, Deleter> library{XXH3_createState()};
};

uint64_t Checksum(std::span<const std::byte> bytes) {
  return XXH3_64bits(bytes.data(), bytes.size());
}

DigestStream::DigestStream() : state_(std::make_unique<State>()) {
  Check(state_->library != nullptr, "memory for a checksum's state");
  XXH3_128bits_reset(state_->library.get());
}
DigestStream::DigestStream(DigestStream&&) noexcept = default;
DigestStream& DigestStream::operator=(DigestStream&&) noexcept = default;
DigestStream::~DigestStream() = default;

void DigestStream::Add(std::span<const std::byte> bytes) {
  XXH3_128bits_update(state_->library.get(), bytes.data(), bytes.size());
}

void DigestStream::Add(absl::string_view text) {
  Add(std::as_bytes(std::span<const char>(text.data(), text.size())));
}

std::string DigestStream::hex() const { return Hex(XXH3_128bits_digest(state_->library.get())); }

std::string Digest(absl::string_view text) { return Hex(XXH3_128bits(text.data(), text.size())); }

bool IsDigest(absl::string_view text) {
  return text.size() == kDigestCharacters && std::all_of(text.begin(), text.end(), [](char c) {
           return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f');
         });
}

}  // namespace nibble
