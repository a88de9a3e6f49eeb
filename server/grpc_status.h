// Errors as they leave the process: an absl::Status with ErrorDetails becomes a grpc::Status whose
// details are a google.rpc.Status, the error model that clients of every language decode.
//
//   ErrorDetails                  google.rpc
//   reason                        ErrorInfo.reason, domain "nibble" (default: the code's name)
//   needed, available, remedies   QuotaFailure (with the first remedy), and all of it as
//                                 ErrorInfo.metadata for scripts: needed_bytes, remedy_1
//   field                         BadRequest
//   resource                      ResourceInfo
//
// Everything is valid UTF-8 without control characters and short enough for a client's default
// limit on trailing metadata (8 KiB), however long the name of a hostile checkpoint's tensor is.

#pragma once

#include <grpcpp/support/status.h>

#include <cstddef>
#include <string>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"

namespace nibble {

inline constexpr absl::string_view kErrorDomain = "nibble";

grpc::Status ToGrpcStatus(const absl::Status& status);

// Returns `text` cut to at most `bytes_max`, at a character's border, with "..." where something
// was cut; what is not valid UTF-8 and control characters become '?'.
std::string PrintableText(absl::string_view text, size_t bytes_max);

}  // namespace nibble
