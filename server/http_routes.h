// What each HTTP path answers: a pure function of the request line and the Host header.

#pragma once

#include <functional>
#include <string>

#include "absl/strings/string_view.h"

namespace nibble {

struct HttpAnswer {
  int status = 200;
  std::string content_type;
  std::string body;
  std::string allow;  // The Allow header of a 405.
};

struct HttpRequestLine {
  absl::string_view method;  // "GET".
  absl::string_view target;  // "/metrics?x=1".
  absl::string_view host;    // The Host header; empty if there is none.
};

// Whether a browser may have meant this server by `host`: an IP address, localhost, or
// `listen_host`, each with or without a port. Names that anybody could point at us are refused.
bool IsTrustedHost(absl::string_view host, absl::string_view listen_host);

// An error in the form that OpenAI's clients read.
HttpAnswer HttpError(int status, absl::string_view type, absl::string_view message);

HttpAnswer Route(const HttpRequestLine& request, absl::string_view listen_host, bool ready,
                 const std::function<std::string()>& render_metrics);

}  // namespace nibble
