#include "server/engine/chat/template_set.h"

#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "loader/json_reader.h"
#include "loader/printable.h"

namespace nibble {
namespace {

constexpr absl::string_view kConfigName = "tokenizer_config.json";
constexpr absl::string_view kDefault = "default";
constexpr absl::string_view kToolUse = "tool_use";

// As added_tokens_decoder has hundreds of entries and nobody else's file should cost more.
constexpr int64_t kConfigBytesMax = 16 << 20;
constexpr int kTemplatesMax = 64;
constexpr int64_t kTokenBytesMax = 1024;

using Sources = std::map<std::string, std::string, std::less<>>;

absl::Status Broken(absl::string_view message) {
  return absl::DataLossError(absl::StrCat(kConfigName, ": ", message));
}

// Reads the members of tokenizer_config.json that have to do with templates.
class ConfigReader {
 public:
  explicit ConfigReader(absl::string_view json) : reader_(json, {.allow_nan_and_infinity = true}) {}

  absl::Status Read(Sources& sources, TemplateJson& tokens) {
    std::string key;
    reader_.EnterObject();
    while (reader_.NextMember(key)) {
      if (key == "chat_template") {
        ReadTemplates(sources);
      } else if (absl::EndsWith(key, "_token") && !absl::StartsWith(key, "add_")) {
        ReadToken(key, tokens);
      } else {
        reader_.SkipValue();
      }
    }
    reader_.Finish();
    return reader_.status().ok() ? absl::OkStatus() : Broken(reader_.status().message());
  }

 private:
  void ReadTemplates(Sources& sources) {
    using Kind = JsonReader::Kind;
    switch (reader_.Peek()) {
      case Kind::kString:
        reader_.ReadString(sources[std::string(kDefault)]);
        return;
      case Kind::kArray:
        reader_.EnterArray();
        while (reader_.NextElement()) {
          ReadNamed(sources);
        }
        return;
      case Kind::kNull:
        reader_.SkipValue();
        return;
      default:
        reader_.Refuse("chat_template: expected a string or a list of {name, template}");
    }
  }

  void ReadNamed(Sources& sources) {
    std::string key;
    std::string name;
    std::string source;
    bool has_source = false;
    reader_.EnterObject();
    while (reader_.NextMember(key)) {
      if (key == "name") {
        reader_.ReadString(name);
      } else if (key == "template") {
        has_source = reader_.ReadString(source);
      } else {
        reader_.SkipValue();
      }
    }
    if (name.empty() || !has_source) {
      reader_.Refuse("chat_template: expected a name and a template in each item");
    } else if (static_cast<int>(sources.size()) >= kTemplatesMax) {
      reader_.Refuse(absl::StrCat("chat_template: has more than ", kTemplatesMax, " templates"));
    } else {
      sources[name] = std::move(source);
    }
  }

  // A string, or an object of an added token, whose `content` it is. Others are no token: null is
  // that of a model which has none.
  void ReadToken(const std::string& name, TemplateJson& tokens) {
    using Kind = JsonReader::Kind;
    std::string content;
    bool is_token = false;
    if (reader_.Peek() == Kind::kString) {
      is_token = reader_.ReadString(content);
    } else if (reader_.Peek() == Kind::kObject) {
      std::string key;
      reader_.EnterObject();
      while (reader_.NextMember(key)) {
        if (key == "content" && reader_.Peek() == Kind::kString) {
          is_token = reader_.ReadString(content);
        } else {
          reader_.SkipValue();
        }
      }
    } else {
      reader_.SkipValue();
    }
    if (is_token && static_cast<int64_t>(content.size()) > kTokenBytesMax) {
      reader_.Refuse(absl::StrCat(name, ": has more than ", kTokenBytesMax, " bytes"));
    } else if (is_token) {
      tokens[name] = content;
    }
  }

  JsonReader reader_;
};

}  // namespace

absl::StatusOr<TemplateSet> TemplateSet::Parse(const TemplateFiles& files) {
  TemplateSet set;
  Sources sources;
  if (static_cast<int64_t>(files.tokenizer_config.size()) > kConfigBytesMax) {
    return Broken(absl::StrCat("has ", files.tokenizer_config.size(), " bytes, allowed are ",
                               kConfigBytesMax));
  }
  if (!files.tokenizer_config.empty()) {
    const absl::Status read =
        ConfigReader(files.tokenizer_config).Read(sources, set.special_tokens_);
    if (!read.ok()) {
      return read;
    }
  }
  if (!files.chat_template.empty()) {
    // Newer than a member of the config, whose templates then all are outdated.
    sources.clear();
    sources[std::string(kDefault)] = std::string(files.chat_template);
  }
  for (const auto& [name, source] : files.additional) {
    sources[name] = std::string(source);
  }
  for (const auto& [name, source] : sources) {
    absl::StatusOr<ChatTemplate> parsed = ChatTemplate::Parse(source);
    if (!parsed.ok()) {
      return absl::Status(parsed.status().code(), absl::StrCat("template ", Printable(name), ": ",
                                                               parsed.status().message()));
    }
    set.templates_.emplace(name, *std::move(parsed));
  }
  return set;
}

const ChatTemplate* TemplateSet::FindByName(absl::string_view name) const {
  const auto found = templates_.find(name);
  return found == templates_.end() ? nullptr : &found->second;
}

const ChatTemplate* TemplateSet::Find(bool has_tools) const {
  const ChatTemplate* const tool_use = FindByName(kToolUse);
  if (has_tools && tool_use != nullptr) {
    return tool_use;
  }
  const ChatTemplate* const plain = FindByName(kDefault);
  return plain == nullptr && templates_.size() == 1 ? &templates_.begin()->second : plain;
}

}  // namespace nibble
