#include "server/engine/tokenizer/byte_level.h"

#include <array>
#include <cstdint>

#include "loader/printable.h"
#include "server/engine/tokenizer/utf8_text.h"

namespace nibble {
namespace {

constexpr uint32_t kCodesEnd = 0x100 + 68;

constexpr bool StandsForItself(uint32_t byte) {
  return (byte >= 0x21 && byte <= 0x7E) || (byte >= 0xA1 && byte <= 0xAC) || byte >= 0xAE;
}

struct Alphabet {
  std::array<uint16_t, 256> codes{};
  std::array<int16_t, kCodesEnd> bytes{};  // -1: the character stands for no byte.
};

constexpr Alphabet MakeAlphabet() {
  Alphabet alphabet;
  alphabet.bytes.fill(-1);
  uint32_t next = 0x100;
  for (uint32_t byte = 0; byte < 256; ++byte) {
    const uint32_t code = StandsForItself(byte) ? byte : next++;
    alphabet.codes[byte] = static_cast<uint16_t>(code);
    alphabet.bytes[code] = static_cast<int16_t>(byte);
  }
  return alphabet;
}

constexpr Alphabet kAlphabet = MakeAlphabet();
static_assert(kAlphabet.codes[' '] == 0x120 && kAlphabet.codes['\n'] == 0x10A);

}  // namespace

void AppendByteLevel(absl::string_view bytes, std::string& text) {
  for (const char byte : bytes) {
    AppendUtf8(kAlphabet.codes[static_cast<unsigned char>(byte)], text);
  }
}

void AppendByteLevelBytes(absl::string_view text, std::string& bytes) {
  const size_t begin = bytes.size();
  for (size_t position = 0; position < text.size(); position += Utf8Length(text[position])) {
    const uint32_t code = CodeAt(text, position);
    if (code >= kCodesEnd || kAlphabet.bytes[code] < 0) {
      bytes.resize(begin);
      bytes.append(text.data(), text.size());
      return;
    }
    bytes += static_cast<char>(kAlphabet.bytes[code]);
  }
}

}  // namespace nibble
