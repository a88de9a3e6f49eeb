// What went wrong, as a person reads it: the sentence, the figures, and what to do.

#pragma once

#include <grpcpp/support/status.h>

#include <string>

#include "absl/status/status.h"

namespace nibble {

// The other direction of ToGrpcStatus (server/grpc_status.h): code, message and ErrorDetails.
// Details that do not decode are left out.
absl::Status FromGrpcStatus(const grpc::Status& status);

// A few lines: code and message, then needed, available and short, then remedies.
//
// Requires: !failure.ok().
std::string RenderFailure(const absl::Status& failure);

// Prints RenderFailure to stderr. Returns: kExitFailed.
int ReportFailure(const absl::Status& failure);

}  // namespace nibble
