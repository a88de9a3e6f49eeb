// The flags of `generate` and `chat` that say how answers are drawn.

#pragma once

#include <nibble/v1/generation.pb.h>

#include <string>
#include <vector>

#include "server/command_line/command.h"

namespace nibble {

// What is not given is left to the model's own defaults.
struct SamplingFlags {
  v1::GenerateRequest request;  // Its sampling fields.
  std::vector<std::string> stop;
};

// `flags` must outlive them.
SettingGroup SamplingSettings(SamplingFlags* flags);

// A request with these flags for `model`.
v1::GenerateRequest RequestOf(const SamplingFlags& flags, const std::string& model);

}  // namespace nibble
