// What each HTTP path answers: a pure function of the request line and the Host header.

#pragma once

#include <functional>
#include <string>

#include "absl/strings/string_view.h"
#include "absl/time/time.h"

namespace nibble {

struct HttpAnswer {
  int status = 200;
  std::string content_type = {};
  std::string body = {};
  std::string allow = {};           // The Allow header of a 405.
  absl::Duration retry_after = {};  // The Retry-After header; zero: none.
};

struct HttpRequestLine {
  absl::string_view method;  // "GET".
  absl::string_view target;  // "/metrics?x=1".
  absl::string_view host;    // The Host header; empty if there is none.
};

// Whether `host` is an IP address or localhost, with or without a port. Any other name can be
// pointed at us by whoever owns it, so that a web page of theirs reaches a server that listens for
// this machine alone (DNS rebinding).
bool IsTrustedHost(absl::string_view host);

// Whether the path of `target` begins with /v1/.
bool IsApiPath(absl::string_view target);

// An error in the form that OpenAI's clients read.
HttpAnswer HttpError(int status, absl::string_view type, absl::string_view message);

// `check_host`: refuse a Host that is not trusted.
HttpAnswer Route(const HttpRequestLine& request, bool check_host, bool ready,
                 const std::function<std::string()>& render_metrics);

}  // namespace nibble
