#include "server/grpc_status.h"

#include <google/rpc/error_details.pb.h>
#include <google/rpc/status.pb.h>

#include <optional>
#include <string>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "kernels/error_details.h"

namespace nibble {
namespace {

google::rpc::Status Decode(const grpc::Status& status) {
  google::rpc::Status decoded;
  EXPECT_TRUE(decoded.ParseFromString(status.error_details()));
  return decoded;
}

template <typename Detail>
std::optional<Detail> Find(const grpc::Status& status) {
  const google::rpc::Status decoded = Decode(status);
  for (const google::protobuf::Any& any : decoded.details()) {
    Detail detail;
    if (any.UnpackTo(&detail)) {
      return detail;
    }
  }
  return std::nullopt;
}

absl::Status Refusal() {
  ErrorDetails details;
  details.reason = "BUDGET_EXCEEDED";
  details.resource = "llama";
  details.needed_bytes = 1000;
  details.available_bytes = 600;
  details.remedies = {"unload other models", "raise --vram-budget"};
  return WithDetails(absl::ResourceExhaustedError("llama: needs 1000 bytes"), details);
}

TEST(GrpcStatusTest, KeepsCodeAndMessage) {
  const grpc::Status status = ToGrpcStatus(absl::NotFoundError("no such model"));
  EXPECT_EQ(status.error_code(), grpc::StatusCode::NOT_FOUND);
  EXPECT_EQ(status.error_message(), "no such model");
  EXPECT_EQ(Decode(status).code(), 5);  // google.rpc.Code.NOT_FOUND
  EXPECT_EQ(Decode(status).message(), "no such model");
  EXPECT_TRUE(ToGrpcStatus(absl::OkStatus()).ok());
}

TEST(GrpcStatusTest, SaysBothFiguresOfARefusal) {
  const grpc::Status status = ToGrpcStatus(Refusal());
  const auto failure = Find<google::rpc::QuotaFailure>(status);
  ASSERT_TRUE(failure.has_value());
  ASSERT_EQ(failure->violations_size(), 1);
  EXPECT_EQ(failure->violations(0).description(),
            "needs 1000 bytes, 600 are available; unload other models");
  const auto info = Find<google::rpc::ErrorInfo>(status);
  ASSERT_TRUE(info.has_value());
  EXPECT_EQ(info->reason(), "BUDGET_EXCEEDED");
  EXPECT_EQ(info->domain(), "nibble");
  EXPECT_EQ(info->metadata().at("needed_bytes"), "1000");
  EXPECT_EQ(info->metadata().at("available_bytes"), "600");
  EXPECT_EQ(info->metadata().at("remedy_1"), "unload other models");
  EXPECT_EQ(info->metadata().at("remedy_2"), "raise --vram-budget");
  EXPECT_EQ(Find<google::rpc::ResourceInfo>(status)->resource_name(), "llama");
  EXPECT_FALSE(Find<google::rpc::BadRequest>(status).has_value());
}

TEST(GrpcStatusTest, NamesTheBadField) {
  const grpc::Status status = ToGrpcStatus(BadField("quantization.block_size", "found 48"));
  EXPECT_EQ(status.error_code(), grpc::StatusCode::INVALID_ARGUMENT);
  const auto request = Find<google::rpc::BadRequest>(status);
  ASSERT_TRUE(request.has_value());
  EXPECT_EQ(request->field_violations(0).field(), "quantization.block_size");
  EXPECT_FALSE(Find<google::rpc::QuotaFailure>(status).has_value());
}

TEST(GrpcStatusTest, GivesTheCodeAsReasonWhereThereIsNoOther) {
  const auto info = Find<google::rpc::ErrorInfo>(ToGrpcStatus(absl::DataLossError("truncated")));
  EXPECT_EQ(info->reason(), "DATA_LOSS");
}

TEST(GrpcStatusTest, StaysBelowAClientsMetadataLimit) {
  ErrorDetails details;
  details.reason = std::string(100'000, 'R');
  details.field = std::string(100'000, 'f');
  details.resource = std::string(100'000, '\n');
  details.needed_bytes = details.available_bytes = INT64_MAX;
  details.remedies.assign(100, std::string(10'000, 'r'));
  const std::string message(100'000, '\xff');
  const grpc::Status status =
      ToGrpcStatus(WithDetails(absl::InvalidArgumentError(message), details));
  // Percent encoding triples the message at most, base64 adds a third to the details.
  EXPECT_LT(3 * status.error_message().size() + status.error_details().size() * 4 / 3, 8000u);
}

TEST(PrintableTextTest, ReplacesWhatIsNoTextOrForgesLines) {
  EXPECT_EQ(PrintableText("caf\xc3\xa9 \xe2\x82\xac \xf0\x9f\x98\x80", 99),
            "caf\xc3\xa9 \xe2\x82\xac \xf0\x9f\x98\x80");
  EXPECT_EQ(PrintableText("a\nb\x1b[0m\x7f", 99), "a?b?[0m?");
  EXPECT_EQ(PrintableText("\xc0\xaf", 99), "??") << "overlong";
  EXPECT_EQ(PrintableText("\xed\xa0\x80", 99), "???") << "a surrogate";
  EXPECT_EQ(PrintableText("\xf4\x90\x80\x80", 99), "????") << "beyond U+10FFFF";
  EXPECT_EQ(PrintableText("\xe2\x82", 99), "??") << "cut short";
  EXPECT_EQ(PrintableText("\xc2\x85", 99), "??") << "next line, U+0085";
}

TEST(PrintableTextTest, CutsBetweenCharacters) {
  EXPECT_EQ(PrintableText("0123456789", 10), "0123456789");
  EXPECT_EQ(PrintableText("0123456789x", 10), "0123456...");
  EXPECT_EQ(PrintableText("01234\xe2\x82\xac\xe2\x82\xac", 10), "01234...");
}

}  // namespace
}  // namespace nibble
