// Between HTTP's server and what answers in its own time: a request is handed over whole, its
// answer comes in parts, each asked for when the one before is on its way.

#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>

#include "server/http_routes.h"

namespace nibble {

struct HttpRequest {
  std::string method;        // "POST".
  std::string target;        // "/v1/models?x=1".
  std::string content_type;  // Empty if there is none.
  std::string body;
};

struct HttpPart {
  HttpAnswer answer = {};  // The body alone counts, except in the first part.
  bool last = true;        // A first part that is not the last begins an answer of unknown length.
};

// One request that is being answered. Called by the server's thread alone; destroyed by it, or by
// whoever still works for it, when the answer is written or the client is gone. Destroying it
// cancels what it waits for.
class HttpExchange {
 public:
  virtual ~HttpExchange() = default;

  // The next part of the answer, if it is there; must return at once. Asked for after each wake and
  // after each part that was written, and never again after the last.
  virtual std::optional<HttpPart> Next() = 0;
};

class HttpApi {
 public:
  virtual ~HttpApi() = default;

  // Begins to answer; called by the server's thread, must return at once. `wake` says that Next()
  // may have something; any thread may call it at any time, even when the server is gone.
  virtual std::shared_ptr<HttpExchange> Start(HttpRequest request, std::function<void()> wake) = 0;
};

}  // namespace nibble
