#include "server/command_line/local_source.h"

#include <cstdlib>
#include <filesystem>
#include <system_error>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"

namespace nibble {
namespace {

namespace fs = std::filesystem;

std::string Variable(const char* name) {
  const char* value = std::getenv(name);
  return value == nullptr ? "" : value;
}

// Where Hugging Face's own tools keep what they download.
std::string HubCache() {
  if (std::string cache = Variable("HF_HUB_CACHE"); !cache.empty()) {
    return cache;
  }
  if (const std::string home = Variable("HF_HOME"); !home.empty()) {
    return absl::StrCat(home, "/hub");
  }
  return absl::StrCat(Variable("HOME"), "/.cache/huggingface/hub");
}

}  // namespace

std::string AbsoluteIfLocal(const std::string& source) {
  std::error_code error;
  if (!fs::exists(source, error)) {
    return source;
  }
  const fs::path absolute = fs::absolute(source, error);
  return error ? source : absolute.lexically_normal().string();
}

absl::StatusOr<Checkpoint> OpenLocalCheckpoint(const std::string& source) {
  const std::string root = absl::StartsWith(source, "hf:") ? HubCache() : "/";
  std::error_code error;
  const std::string path =
      absl::StartsWith(source, "hf:") ? source : fs::absolute(source, error).string();
  absl::StatusOr<std::shared_ptr<const CheckpointDirectory>> directory =
      ResolveSource({root}, error ? source : path);
  if (!directory.ok()) {
    return directory.status();
  }
  return OpenCheckpoint(*std::move(directory));
}

absl::StatusOr<DeviceTraits> TraitsOf(absl::string_view device) {
  if (device == "host") {
    return kHostTraits;
  }
  int ordinal = 0;
  if (device == "cuda" || (absl::ConsumePrefix(&device, "cuda:") &&
                           absl::SimpleAtoi(device, &ordinal) && ordinal >= 0)) {
    return kCudaTraits;
  }
  return absl::InvalidArgumentError(
      absl::StrCat("expected host, cuda or cuda:N, found '", device, "'"));
}

Setting DeviceSetting(std::string help, std::string* target) {
  Setting setting = TextSetting("device", "DEVICE", std::move(help), target);
  setting.apply = [target](const std::vector<std::string>& values) {
    *target = values.front();
    return TraitsOf(values.front()).status();
  };
  return setting;
}

}  // namespace nibble
