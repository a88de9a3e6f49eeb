// The case files of tests/data/chat_templates.

#pragma once

#include <fstream>
#include <sstream>
#include <string>

#include "server/engine/chat/chat_template.h"

namespace nibble {

inline std::string ReadChatFile(const std::string& name) {
  std::ifstream file(std::string(NIBBLE_TEST_DATA "/chat_templates/") + name, std::ios::binary);
  std::ostringstream text;
  text << file.rdbuf();
  return text.str();
}

// The moment that strftime_now shows in language_cases.json.
inline RenderOptions CaseOptions() {
  RenderOptions options;
  options.zone = absl::UTCTimeZone();
  options.now = absl::FromCivil(absl::CivilSecond(2024, 7, 5, 9, 3, 8), options.zone) +
                absl::Milliseconds(120);
  return options;
}

// What `source` prints, or its error.
inline absl::StatusOr<std::string> RenderSource(const std::string& source,
                                                const TemplateJson& variables) {
  const absl::StatusOr<ChatTemplate> parsed = ChatTemplate::Parse(source);
  return parsed.ok() ? parsed->Render(variables, CaseOptions()) : parsed.status();
}

}  // namespace nibble
