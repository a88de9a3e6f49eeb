#include "server/command_line/sampling_settings.h"

#include <cstdint>
#include <functional>
#include <limits>
#include <utility>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"

namespace nibble {
namespace {

// A number with a fraction. Whether it is within bounds is for the daemon to say.
Setting NumberSetting(std::string name, std::string help, std::function<void(float)> apply) {
  return {std::move(name),
          "NUMBER",
          std::move(help),
          "the model's",
          false,
          [apply = std::move(apply)](const std::vector<std::string>& values) {
            float number = 0;
            if (!absl::SimpleAtof(values.back(), &number)) {
              return absl::InvalidArgumentError(
                  absl::StrCat("expected a number, found \"", values.back(), "\""));
            }
            apply(number);
            return absl::OkStatus();
          }};
}

}  // namespace

SettingGroup SamplingSettings(SamplingFlags* flags) {
  v1::GenerateRequest* const request = &flags->request;
  constexpr int64_t kMax = std::numeric_limits<int64_t>::max();
  return {
      "How answers are drawn",
      {CountSetting(
           "max-tokens", "Tokens of an answer at most.", "to the end of the context", 1, kMax,
           [request](int64_t count) { request->set_max_tokens(static_cast<uint64_t>(count)); }),
       NumberSetting("temperature",
                     "0 takes the most likely token each time; higher numbers are bolder.",
                     [request](float number) { request->set_temperature(number); }),
       CountSetting("top-k", "Draws from so many of the most likely tokens; 0 from all.",
                    "the model's", 0, kMax,
                    [request](int64_t count) { request->set_top_k(static_cast<uint64_t>(count)); }),
       NumberSetting("top-p", "Draws from the fewest tokens whose likelihoods reach this sum.",
                     [request](float number) { request->set_top_p(number); }),
       NumberSetting("min-p",
                     "Leaves out tokens less likely than this share of the most likely one.",
                     [request](float number) { request->set_min_p(number); }),
       NumberSetting("repetition-penalty", "Above 1, tokens that were there come less often.",
                     [request](float number) { request->set_repetition_penalty(number); }),
       CountSetting("seed", "The same seed draws the same answer.", "another each time", 0, kMax,
                    [request](int64_t count) { request->set_seed(static_cast<uint64_t>(count)); }),
       ListSetting("stop", "TEXT", "Ends the answer before this text.", &flags->stop)}};
}

v1::GenerateRequest RequestOf(const SamplingFlags& flags, const std::string& model) {
  v1::GenerateRequest request = flags.request;
  request.set_model(model);
  for (const std::string& stop : flags.stop) {
    request.add_stop(stop);
  }
  return request;
}

}  // namespace nibble
