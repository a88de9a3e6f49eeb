#include "server/command_line/failure.h"

#include <gtest/gtest.h>

#include "kernels/error_details.h"
#include "server/grpc_status.h"

namespace nibble {
namespace {

absl::Status Refusal() {
  ErrorDetails details;
  details.reason = "BUDGET_EXCEEDED";
  details.resource = "demo";
  details.needed_bytes = 3000;
  details.available_bytes = 1976;
  details.remedies = {"unload other", "raise --vram-budget by 1024 bytes"};
  return WithDetails(absl::ResourceExhaustedError("demo does not fit"), details);
}

TEST(FailureTest, ShowsFiguresAndRemedies) {
  EXPECT_EQ(RenderFailure(Refusal()),
            "RESOURCE_EXHAUSTED: demo does not fit\n"
            "  needed     2.93 KiB  3,000 bytes\n"
            "  available  1.93 KiB  1,976 bytes\n"
            "  short      1.00 KiB  1,024 bytes\n"
            "  what would help:\n"
            "    * unload other\n"
            "    * raise --vram-budget by 1024 bytes\n");
}

TEST(FailureTest, IsOneLineWithoutDetails) {
  EXPECT_EQ(RenderFailure(absl::NotFoundError("no model demo")), "NOT_FOUND: no model demo\n");
}

TEST(FailureTest, WhatTheDaemonSendsComesBack) {
  const absl::Status refusal = Refusal();
  const absl::Status received = FromGrpcStatus(ToGrpcStatus(refusal));
  EXPECT_EQ(received.code(), refusal.code());
  EXPECT_EQ(received.message(), refusal.message());
  EXPECT_EQ(DetailsOf(received), DetailsOf(refusal));
  const absl::Status field = BadField("quantization.block_size", "expected a power of two");
  EXPECT_EQ(DetailsOf(FromGrpcStatus(ToGrpcStatus(field))).field, "quantization.block_size");
  EXPECT_TRUE(FromGrpcStatus(grpc::Status::OK).ok());
}

TEST(FailureTest, DetailsThatDoNotDecodeAreLeftOut) {
  const absl::Status received =
      FromGrpcStatus(grpc::Status(grpc::StatusCode::INTERNAL, "odd", "\xff\xff\xff"));
  EXPECT_EQ(RenderFailure(received), "INTERNAL: odd\n");
}

}  // namespace
}  // namespace nibble
