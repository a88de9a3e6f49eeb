#include "loader/printable.h"

#include <cstdint>
#include <cstring>

#include "absl/strings/str_cat.h"

namespace nibble {
namespace {

constexpr size_t kPrintedBytesMax = 256;   // Longer than any name of a real tensor.
constexpr size_t kFileNameBytesMax = 255;  // NAME_MAX of Linux.

// The bytes of the character that `text` begins with; 0 if they are not UTF-8.
size_t CharacterBytes(absl::string_view text) {
  const auto byte = [text](size_t i) -> unsigned {
    return i < text.size() ? static_cast<unsigned char>(text[i]) : 0;
  };
  const auto continues = [&byte](size_t i) { return (byte(i) & 0xC0) == 0x80; };
  const unsigned lead = byte(0);
  if (lead < 0x80) {
    return 1;
  }
  if (lead >= 0xC2 && lead <= 0xDF) {
    return continues(1) ? 2 : 0;
  }
  if ((lead & 0xF0) == 0xE0) {
    const unsigned second_min = lead == 0xE0 ? 0xA0 : 0x80;  // No overlong forms.
    const unsigned second_max = lead == 0xED ? 0x9F : 0xBF;  // No surrogates.
    return byte(1) >= second_min && byte(1) <= second_max && continues(2) ? 3 : 0;
  }
  if (lead >= 0xF0 && lead <= 0xF4) {
    const unsigned second_min = lead == 0xF0 ? 0x90 : 0x80;
    const unsigned second_max = lead == 0xF4 ? 0x8F : 0xBF;  // At most U+10FFFF.
    return byte(1) >= second_min && byte(1) <= second_max && continues(2) && continues(3) ? 4 : 0;
  }
  return 0;
}

bool IsControl(absl::string_view character) {
  const auto lead = static_cast<unsigned char>(character[0]);
  return lead < 0x20 || lead == 0x7F ||
         (lead == 0xC2 && static_cast<unsigned char>(character[1]) < 0xA0);
}

}  // namespace

bool IsUtf8(absl::string_view text) {
  while (!text.empty()) {
    uint64_t eight = 0x80;
    if (text.size() >= sizeof(eight)) {
      std::memcpy(&eight, text.data(), sizeof(eight));
    }
    // Nearly all text is ASCII: eight bytes at a time, a large header takes milliseconds.
    const size_t bytes = (eight & 0x8080808080808080u) == 0 ? sizeof(eight) : CharacterBytes(text);
    if (bytes == 0) {
      return false;
    }
    text.remove_prefix(bytes);
  }
  return true;
}

void AppendUtf8(uint32_t code, std::string& text) {
  const auto append = [&text](uint32_t byte) { text += static_cast<char>(byte); };
  if (code < 0x80) {
    append(code);
  } else if (code < 0x800) {
    append(0xC0 | code >> 6);
    append(0x80 | (code & 0x3F));
  } else if (code < 0x10000) {
    append(0xE0 | code >> 12);
    append(0x80 | (code >> 6 & 0x3F));
    append(0x80 | (code & 0x3F));
  } else {
    append(0xF0 | code >> 18);
    append(0x80 | (code >> 12 & 0x3F));
    append(0x80 | (code >> 6 & 0x3F));
    append(0x80 | (code & 0x3F));
  }
}

bool HasControlCharacters(absl::string_view text) {
  for (size_t i = 0; i < text.size(); ++i) {
    const auto byte = static_cast<unsigned char>(text[i]);
    const bool c1 =
        byte == 0xC2 && i + 1 < text.size() && static_cast<unsigned char>(text[i + 1]) < 0xA0;
    if (byte < 0x20 || byte == 0x7F || c1) {
      return true;
    }
  }
  return false;
}

bool IsPlainFileName(absl::string_view name) {
  return !name.empty() && name.size() <= kFileNameBytesMax && name != "." && name != ".." &&
         name.find('/') == absl::string_view::npos && IsUtf8(name) && !HasControlCharacters(name);
}

std::string Printable(absl::string_view text) {
  std::string printed = "\"";
  while (!text.empty()) {
    if (printed.size() > kPrintedBytesMax) {
      absl::StrAppend(&printed, "...");
      break;
    }
    const size_t bytes = CharacterBytes(text);
    const absl::string_view character = text.substr(0, bytes == 0 ? 1 : bytes);
    if (bytes == 0 || IsControl(character)) {
      for (const char byte : character) {
        absl::StrAppend(&printed, "\\x",
                        absl::Hex(static_cast<unsigned char>(byte), absl::kZeroPad2));
      }
    } else {
      if (character == "\"" || character == "\\") {
        printed += '\\';
      }
      absl::StrAppend(&printed, character);
    }
    text.remove_prefix(character.size());
  }
  printed += '"';
  return printed;
}

}  // namespace nibble
