#include "kernels/error_details.h"

#include "absl/strings/cord.h"
#include "gtest/gtest.h"

namespace nibble {
namespace {

TEST(ErrorDetailsTest, ComeBackAsTheyWereAttached) {
  ErrorDetails details;
  details.reason = "BUDGET_EXCEEDED";
  details.field = "quantization.block_size";
  details.resource = "a=b\n\"c\"";  // What separates fields and lines.
  details.needed_bytes = int64_t{1} << 40;
  details.available_bytes = 0;
  details.remedies = {"unload other models", "raise --vram-budget"};
  EXPECT_EQ(DetailsOf(WithDetails(absl::ResourceExhaustedError("full"), details)), details);
}

TEST(ErrorDetailsTest, AreEmptyWhereNoneWereAttached) {
  EXPECT_EQ(DetailsOf(absl::ResourceExhaustedError("full")), ErrorDetails());
  EXPECT_EQ(DetailsOf(absl::OkStatus()), ErrorDetails());
}

TEST(ErrorDetailsTest, StayWhenTheSubjectIsPutBeforeTheMessage) {
  ErrorDetails details;
  details.reason = "DEVICE_MEMORY_TAKEN";
  details.needed_bytes = 1000;
  details.available_bytes = 600;
  absl::Status status = WithDetails(absl::ResourceExhaustedError("needs 1000 bytes"), details);
  status.SetPayload("other", absl::Cord("kept too"));
  const absl::Status named = WithSubject(status, "llama");
  EXPECT_EQ(named.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(named.message(), "llama: needs 1000 bytes");
  EXPECT_EQ(DetailsOf(named), details);
  EXPECT_EQ(named.GetPayload("other"), absl::Cord("kept too"));
}

TEST(ErrorDetailsTest, NameTheFieldOfABadRequest) {
  const absl::Status status = BadField("staging_bytes", "expected 1, found 2");
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(status.message(), "staging_bytes: expected 1, found 2");
  EXPECT_EQ(DetailsOf(status).reason, "INVALID_FIELD");
  EXPECT_EQ(DetailsOf(status).field, "staging_bytes");
}

}  // namespace
}  // namespace nibble
