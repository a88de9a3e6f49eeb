#include "server/openai_errors.h"

#include <nlohmann/json.hpp>
#include <string>
#include <utility>

#include "gtest/gtest.h"
#include "kernels/error_details.h"

namespace nibble {
namespace {

using Code = absl::StatusCode;

TEST(OpenAiErrorsTest, GivesEachCodeItsHttpStatusAndType) {
  const std::pair<Code, std::pair<int, const char*>> cases[] = {
      {Code::kInvalidArgument, {400, "invalid_request_error"}},
      {Code::kFailedPrecondition, {400, "invalid_request_error"}},
      {Code::kNotFound, {404, "invalid_request_error"}},
      {Code::kResourceExhausted, {429, "rate_limit_error"}},
      {Code::kInternal, {500, "server_error"}},
      {Code::kDataLoss, {500, "server_error"}},
      {Code::kUnimplemented, {501, "server_error"}},
      {Code::kUnavailable, {503, "server_error"}},
      {Code::kDeadlineExceeded, {504, "server_error"}},
  };
  for (const auto& [code, expected] : cases) {
    const HttpAnswer answer = OpenAiError(absl::Status(code, "why"));
    const nlohmann::json error = nlohmann::json::parse(answer.body).at("error");
    EXPECT_EQ(answer.status, expected.first) << code;
    EXPECT_EQ(answer.content_type, "application/json");
    EXPECT_EQ(error.at("type"), expected.second) << code;
    EXPECT_EQ(error.at("message"), "why");
    EXPECT_TRUE(error.at("param").is_null());
    EXPECT_TRUE(error.at("code").is_null());
    // Clients come again after what they are told, and only where it helps.
    EXPECT_EQ(answer.retry_after > absl::ZeroDuration(),
              answer.status == 429 || answer.status == 503)
        << code;
  }
}

TEST(OpenAiErrorsTest, NamesTheFieldAndTheReason) {
  ErrorDetails details;
  details.field = "stop";
  details.reason = "REQUEST_QUEUE_FULL";
  const HttpAnswer answer = OpenAiError(WithDetails(absl::ResourceExhaustedError("full"), details));
  const nlohmann::json error = nlohmann::json::parse(answer.body).at("error");
  EXPECT_EQ(error.at("param"), "stop");
  EXPECT_EQ(error.at("code"), "request_queue_full");
}

TEST(OpenAiErrorsTest, AsksToComeAgainWhenAModelIsLoading) {
  ErrorDetails details;
  details.reason = "MODEL_LOADING";
  const HttpAnswer answer =
      OpenAiError(WithDetails(absl::FailedPreconditionError("it is LOADING"), details));
  EXPECT_EQ(answer.status, 503);
  EXPECT_GT(answer.retry_after, absl::ZeroDuration());
}

TEST(OpenAiErrorsTest, WritesJsonWhateverTheMessageHolds) {
  const HttpAnswer answer = OpenAiError(
      absl::InvalidArgumentError(std::string("\xff\"\n\0", 4) + std::string(5000, 'x')));
  EXPECT_TRUE(nlohmann::json::accept(answer.body));
  EXPECT_LT(answer.body.size(), 1500u);
}

}  // namespace
}  // namespace nibble
