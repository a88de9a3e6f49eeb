#include "server/http_server.h"

#include <boost/asio/executor_work_guard.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/post.hpp>
#include <boost/beast/core.hpp>
#include <boost/beast/http.hpp>
#include <optional>
#include <thread>
#include <unordered_set>
#include <utility>

#include "server/http_routes.h"

namespace nibble {
namespace {

namespace asio = boost::asio;
namespace beast = boost::beast;
namespace http = boost::beast::http;

using Request = http::request<http::string_body>;
using Response = http::response<http::string_body>;

absl::string_view View(beast::string_view text) { return {text.data(), text.size()}; }

// What a session needs of its server.
struct SessionContext {
  HttpOptions options;
  HttpServer::RenderMetrics render_metrics;
  const std::atomic<bool>& ready;
};

// One connection: reads a request, answers it, and so on, until the client closes, is too slow, or
// sends something that is no request. Lives by the handlers that hold it.
class Session : public std::enable_shared_from_this<Session> {
 public:
  Session(asio::ip::tcp::socket socket, const SessionContext& context,
          std::unordered_set<Session*>& sessions)
      : stream_(std::move(socket)),
        context_(context),
        sessions_(sessions),
        // The buffer's limit ends a header that never ends.
        buffer_(context.options.header_bytes_max + context.options.body_bytes_max) {
    sessions_.insert(this);
  }

  ~Session() { sessions_.erase(this); }

  void Read() {
    parser_.emplace();
    parser_->header_limit(context_.options.header_bytes_max);
    parser_->body_limit(context_.options.body_bytes_max);
    stream_.expires_after(absl::ToChronoMilliseconds(context_.options.read_timeout));
    http::async_read(
        stream_, buffer_, *parser_,
        [self = shared_from_this()](beast::error_code error, size_t) { self->OnRead(error); });
  }

  // Cancels what it waits for.
  void Close() {
    beast::error_code ignored;
    stream_.socket().close(ignored);
  }

 private:
  void OnRead(beast::error_code error) {
    if (!error) {
      Answer(parser_->release());
    } else if (error == http::error::header_limit) {
      Refuse(431, "the header is too large");
    } else if (error == http::error::body_limit) {
      Refuse(413, "the body is too large");
    } else if (error.category() == http::make_error_code(http::error::bad_method).category() &&
               error != http::error::end_of_stream && error != http::error::partial_message) {
      Refuse(400, "malformed HTTP");
    }
    // Otherwise the client is gone or too slow; the last reference closes the socket.
  }

  void Answer(const Request& request) {
    const auto host = request.find(http::field::host);
    const HttpRequestLine line = {
        View(request.method_string()), View(request.target()),
        host == request.end() ? absl::string_view() : View(host->value())};
    Write(Route(line, context_.options.check_host, context_.ready, context_.render_metrics),
          request.version(), request.keep_alive(), request.method() == http::verb::head);
  }

  void Refuse(int status, absl::string_view message) {
    Write(HttpError(status, "invalid_request_error", message), 11, false, false);
  }

  void Write(HttpAnswer answer, unsigned version, bool keep_alive, bool head) {
    response_ = Response(static_cast<http::status>(answer.status), version);
    response_.set(http::field::content_type, answer.content_type);
    response_.set(http::field::cache_control, "no-store");
    response_.set("X-Content-Type-Options", "nosniff");
    if (!answer.allow.empty()) {
      response_.set(http::field::allow, answer.allow);
    }
    const size_t bytes = answer.body.size();
    if (!head) {
      response_.body() = std::move(answer.body);
    }
    response_.content_length(bytes);
    response_.keep_alive(keep_alive);
    stream_.expires_after(absl::ToChronoMilliseconds(context_.options.write_timeout));
    http::async_write(stream_, response_,
                      [self = shared_from_this(), keep_alive](beast::error_code error, size_t) {
                        self->OnWritten(error, keep_alive);
                      });
  }

  void OnWritten(beast::error_code error, bool keep_alive) {
    if (error) {
      return;
    }
    if (keep_alive) {
      Read();
      return;
    }
    stream_.socket().shutdown(asio::ip::tcp::socket::shutdown_send, error);
  }

  beast::tcp_stream stream_;
  const SessionContext& context_;
  std::unordered_set<Session*>& sessions_;
  beast::flat_buffer buffer_;
  std::optional<http::request_parser<http::string_body>> parser_;
  Response response_;
};

}  // namespace

// The thread and everything that runs on it. `sessions_` belongs to the thread.
class HttpServer::Core {
 public:
  explicit Core(SessionContext context)
      : context_(std::move(context)), work_(context_io_.get_executor()) {
    thread_ = std::thread([this] { context_io_.run(); });
  }

  // Without memory to post, the process ends here: the thread could not be told to.
  // NOLINTNEXTLINE(bugprone-exception-escape)
  ~Core() {
    asio::post(context_io_, [this] {
      closed_ = true;
      for (Session* const session : sessions_) {
        session->Close();
      }
    });
    work_.reset();
    thread_.join();  // Every session has ended then: nothing is left to run.
  }

  void Serve(Descriptor connection) {
    asio::post(context_io_, [this, owned = std::move(connection)]() mutable {
      if (!closed_) {
        Begin(std::move(owned));
      }
    });
  }

 private:
  void Begin(Descriptor connection) {
    asio::ip::tcp::socket socket(context_io_);
    beast::error_code error;
    // The family matters only for later calls of bind and connect, of which there are none.
    socket.assign(asio::ip::tcp::v6(), connection.get(), error);
    if (error) {
      return;
    }
    connection.Release();
    std::make_shared<Session>(std::move(socket), context_, sessions_)->Read();
  }

  const SessionContext context_;
  std::unordered_set<Session*> sessions_;
  bool closed_ = false;
  asio::io_context context_io_{1};
  asio::executor_work_guard<asio::io_context::executor_type> work_;
  std::thread thread_;
};

HttpServer::HttpServer(HttpOptions options, RenderMetrics render_metrics)
    : core_(std::make_unique<Core>(SessionContext{options, std::move(render_metrics), ready_})) {}

HttpServer::~HttpServer() = default;

void HttpServer::Serve(Descriptor connection) { core_->Serve(std::move(connection)); }

}  // namespace nibble
