// Names from files and requests, made fit for messages, logs and terminals.

#pragma once

#include <cstdint>
#include <string>

#include "absl/strings/string_view.h"

namespace nibble {

// Whether `text` is UTF-8: no overlong forms, no surrogates, nothing above U+10FFFF.
bool IsUtf8(absl::string_view text);

// Appends a character.
//
// Requires: `code` is a Unicode scalar value.
void AppendUtf8(uint32_t code, std::string& text);

// Whether `text` holds a control character: U+0000..001F, U+007F..009F.
//
// Requires: IsUtf8(text).
bool HasControlCharacters(absl::string_view text);

// Whether `name` names an entry of one directory and nothing else: UTF-8, 1 to 255 bytes, no
// slash, no control character, neither "." nor "..".
bool IsPlainFileName(absl::string_view name);

// `text` in double quotes, for messages: control characters and bytes that are not UTF-8 escaped,
// long ones cut.
std::string Printable(absl::string_view text);

}  // namespace nibble
