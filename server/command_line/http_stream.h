// One HTTP request over a connection of its own, for benchmarks: no more than that takes.

#pragma once

#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "server/listen_address.h"

namespace nibble {

// Posts JSON and reads until the server closes. Returns: all that came, head and chunks included.
//
// Errors: UNAVAILABLE if the connection fails.
absl::StatusOr<std::string> PostAndRead(const ListenAddress& address, absl::string_view path,
                                        absl::string_view json);

}  // namespace nibble
