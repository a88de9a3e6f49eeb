// One HTTP connection. Internal to http_server.

#pragma once

#include <atomic>
#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/post.hpp>
#include <boost/beast/core.hpp>
#include <boost/beast/http.hpp>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <unordered_set>
#include <utility>

#include "absl/base/thread_annotations.h"
#include "kernels/mutex.h"
#include "server/http_exchange.h"
#include "server/http_server.h"

namespace nibble {

// The server's thread as others reach it, also when it is gone. Thread-safe.
class HttpLoop {
 public:
  explicit HttpLoop(boost::asio::io_context& context) : context_(&context) {}

  // Runs `task` on the thread, unless it has ended.
  void Post(std::function<void()> task) {
    MutexLock lock(mutex_);
    if (context_ != nullptr) {
      boost::asio::post(*context_, std::move(task));
    }
  }

  // Nothing is posted any more.
  void End() {
    MutexLock lock(mutex_);
    context_ = nullptr;
  }

 private:
  Mutex mutex_;
  boost::asio::io_context* context_ ABSL_GUARDED_BY(mutex_);
};

class HttpSession;

// What sessions share. All but `ready` and `loop` belongs to the server's thread.
struct HttpSessionContext {
  HttpOptions options;
  HttpServer::RenderMetrics render_metrics;
  HttpApi* api = nullptr;  // Null: no /v1.
  const std::atomic<bool>& ready;
  std::shared_ptr<HttpLoop> loop;
  std::unordered_set<HttpSession*> sessions;
};

// Reads a request, answers it, and so on, until the client closes, is too slow, or sends something
// that is no request. Lives by the handlers that hold it, and by itself while an exchange runs.
//
// While an exchange runs the connection is read on, into the buffer that the next request is parsed
// from: so the end of a client that waits is noticed. A client that closes its sending side is
// taken for gone.
class HttpSession : public std::enable_shared_from_this<HttpSession> {
 public:
  HttpSession(boost::asio::ip::tcp::socket socket, HttpSessionContext& context);
  ~HttpSession() { context_.sessions.erase(this); }

  void Read();

  // Cancels what it waits for, and the exchange.
  void Close();

 private:
  using Request = boost::beast::http::request<boost::beast::http::string_body>;
  using Response = boost::beast::http::response<boost::beast::http::string_body>;
  using Error = boost::beast::error_code;

  void OnRead(Error error);
  void Answer(Request request);
  void StartExchange(Request request);
  std::function<void()> MakeWake();
  void Advance();
  void Watch();
  void OnWatched(Error error, size_t bytes);
  void WritePart(HttpPart part);
  void Refuse(int status, absl::string_view message);
  Response MakeHead(const HttpAnswer& answer) const;
  void WriteWhole(HttpAnswer answer);
  void WriteRaw(std::string text, bool last);
  void OnWritten(Error error, bool last);
  void FinishAnswer();
  void Linger();

  boost::beast::tcp_stream stream_;
  HttpSessionContext& context_;
  boost::beast::flat_buffer buffer_;
  std::optional<boost::beast::http::request_parser<boost::beast::http::string_body>> parser_;

  // Of the request that is being answered.
  unsigned version_ = 11;
  bool keep_alive_ = false;
  bool is_head_ = false;
  bool refused_ = false;  // Before it was read.

  std::shared_ptr<HttpExchange> exchange_;
  std::shared_ptr<HttpSession> self_;  // While exchange_ is there.
  bool writing_ = false;
  bool streaming_ = false;  // The head is written, more parts come.
  bool watching_ = false;
  bool read_next_ = false;  // When the watch has ended.
  Response response_;
  std::string text_;  // On its way while streaming.
};

}  // namespace nibble
