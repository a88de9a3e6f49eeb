// Checksums of the quantized cache (XXH3). They find accidents: a flipped bit, a torn write,
// another file of the same name. They are no defence against somebody who writes into the cache on
// purpose, who could as well write other weights and the checksums that go with them.

#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>

#include "absl/strings/string_view.h"

namespace nibble {

// XXH3 of 64 bits.
//
// Cost: as fast as memory gives the bytes.
uint64_t Checksum(std::span<const std::byte> bytes);

// XXH3 of 128 bits over bytes that come in pieces. One thread.
class DigestStream {
 public:
  DigestStream();
  DigestStream(DigestStream&&) noexcept;
  DigestStream& operator=(DigestStream&&) noexcept;
  ~DigestStream();

  void Add(std::span<const std::byte> bytes);
  void Add(absl::string_view text);

  // Of what was added so far: 32 lower-case hexadecimal digits.
  std::string hex() const;

 private:
  struct State;  // Of the library.
  std::unique_ptr<State> state_;
};

inline constexpr size_t kDigestCharacters = 32;

// The same of one text.
std::string Digest(absl::string_view text);

// Whether `text` could be a digest.
bool IsDigest(absl::string_view text);

}  // namespace nibble
