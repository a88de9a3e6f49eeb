#include "server/http_session.h"

#include <algorithm>
#include <boost/asio/write.hpp>
#include <sstream>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"

namespace nibble {
namespace {

namespace asio = boost::asio;
namespace beast = boost::beast;
namespace http = boost::beast::http;

constexpr size_t kWatchBytes = 4096;
// A client that is refused before it has sent everything would lose the answer if the connection
// were closed at once: what it still sends is thrown away for this long.
constexpr absl::Duration kLingerTime = absl::Seconds(2);
constexpr size_t kLingerBytes = 64 << 10;  // At a time.

absl::string_view View(beast::string_view text) { return {text.data(), text.size()}; }

template <typename Headers>
absl::string_view Header(const Headers& request, http::field name) {
  const auto found = request.find(name);
  return found == request.end() ? absl::string_view() : View(found->value());
}

}  // namespace

HttpSession::HttpSession(asio::ip::tcp::socket socket, HttpSessionContext& context)
    : stream_(std::move(socket)),
      context_(context),
      // The buffer's limit ends a header that never ends.
      buffer_(context.options.header_bytes_max + context.options.body_bytes_max) {
  context_.sessions.insert(this);
}

void HttpSession::Read() {
  parser_.emplace();
  parser_->header_limit(context_.options.header_bytes_max);
  parser_->body_limit(context_.options.body_bytes_max);
  stream_.expires_after(absl::ToChronoMilliseconds(context_.options.read_timeout));
  http::async_read(stream_, buffer_, *parser_,
                   [self = shared_from_this()](Error error, size_t) { self->OnRead(error); });
}

void HttpSession::Close() {
  Error ignored;
  stream_.socket().close(ignored);
  exchange_.reset();
  self_.reset();  // Last: the caller holds another reference.
}

void HttpSession::OnRead(Error error) {
  if (!error) {
    Answer(parser_->release());
  } else if (error == http::error::header_limit) {
    Refuse(431, "the header is too large");
  } else if (error == http::error::body_limit) {
    Refuse(413, absl::StrCat("the body is too large: expected at most ",
                             context_.options.body_bytes_max, " bytes"));
  } else if (error.category() == http::make_error_code(http::error::bad_method).category() &&
             error != http::error::end_of_stream && error != http::error::partial_message) {
    Refuse(400, "malformed HTTP");
  }
  // Otherwise the client is gone or too slow; the last reference closes the socket.
}

void HttpSession::Answer(Request request) {
  version_ = request.version();
  keep_alive_ = request.keep_alive();
  is_head_ = request.method() == http::verb::head;
  const HttpRequestLine line = {View(request.method_string()), View(request.target()),
                                Header(request, http::field::host)};
  if (context_.api != nullptr && IsApiPath(line.target) &&
      (!context_.options.check_host || IsTrustedHost(line.host))) {
    StartExchange(std::move(request));
    return;
  }
  WriteWhole(Route(line, context_.options.check_host, context_.ready, context_.render_metrics));
}

void HttpSession::StartExchange(Request request) {
  stream_.expires_never();  // An answer takes its time; only reading and writing have limits.
  HttpRequest asked;
  asked.method = std::string(View(request.method_string()));
  asked.target = std::string(View(request.target()));
  asked.content_type = std::string(Header(request, http::field::content_type));
  asked.body = std::move(request.body());
  self_ = shared_from_this();
  exchange_ = context_.api->Start(std::move(asked), MakeWake());
  Advance();
  if (!writing_) {
    Watch();
  }
}

// However often it is called before the thread gets to it, it is one task.
std::function<void()> HttpSession::MakeWake() {
  auto posted = std::make_shared<std::atomic<bool>>(false);
  return [loop = context_.loop, weak = weak_from_this(), posted = std::move(posted)] {
    if (posted->exchange(true)) {
      return;
    }
    loop->Post([weak, posted] {
      *posted = false;
      if (const std::shared_ptr<HttpSession> session = weak.lock()) {
        session->Advance();
      }
    });
  };
}

void HttpSession::Advance() {
  if (exchange_ == nullptr || writing_) {
    return;
  }
  if (std::optional<HttpPart> part = exchange_->Next()) {
    WritePart(*std::move(part));
  }
}

void HttpSession::Watch() {
  const size_t room = buffer_.max_size() - buffer_.size();
  if (room == 0) {
    return;  // It pipelines more than it may; its end is noticed when something is written.
  }
  watching_ = true;
  // Past the stream, whose timeout is that of what is written.
  stream_.socket().async_read_some(
      buffer_.prepare(std::min(room, kWatchBytes)),
      [self = shared_from_this()](Error error, size_t bytes) { self->OnWatched(error, bytes); });
}

void HttpSession::OnWatched(Error error, size_t bytes) {
  watching_ = false;
  buffer_.commit(bytes);
  if (exchange_ != nullptr) {
    if (error) {
      Close();
    } else {
      Watch();
    }
  } else if (read_next_ && (!error || error == asio::error::operation_aborted)) {
    read_next_ = false;
    Read();
  }
}

void HttpSession::WritePart(HttpPart part) {
  if (!streaming_ && part.last) {
    WriteWhole(std::move(part.answer));
    return;
  }
  std::string text;
  // HTTP/1.0 knows no chunks: there the end of the connection is the end of the answer.
  const bool chunked = version_ >= 11;
  if (!streaming_) {
    streaming_ = true;
    keep_alive_ = keep_alive_ && chunked;
    Response head = MakeHead(part.answer);
    head.chunked(chunked);
    std::ostringstream written;
    written << head.base();
    text = written.str();
  }
  const std::string& body = part.answer.body;
  if (!is_head_ && !body.empty()) {
    if (chunked) {
      absl::StrAppend(&text, absl::Hex(body.size()), "\r\n", body, "\r\n");
    } else {
      text += body;
    }
  }
  if (part.last && chunked && !is_head_) {
    text += "0\r\n\r\n";
  }
  WriteRaw(std::move(text), part.last);
}

void HttpSession::Refuse(int status, absl::string_view message) {
  version_ = 11;
  keep_alive_ = false;
  is_head_ = false;
  refused_ = true;
  WriteWhole(HttpError(status, "invalid_request_error", message));
}

HttpSession::Response HttpSession::MakeHead(const HttpAnswer& answer) const {
  Response response(static_cast<http::status>(answer.status), version_);
  response.set(http::field::content_type, answer.content_type);
  response.set(http::field::cache_control, "no-store");
  response.set("X-Content-Type-Options", "nosniff");
  if (!answer.allow.empty()) {
    response.set(http::field::allow, answer.allow);
  }
  if (answer.retry_after > absl::ZeroDuration()) {
    response.set(http::field::retry_after, absl::StrCat(absl::ToInt64Seconds(answer.retry_after)));
  }
  response.keep_alive(keep_alive_);
  return response;
}

void HttpSession::WriteWhole(HttpAnswer answer) {
  response_ = MakeHead(answer);
  const size_t bytes = answer.body.size();
  if (!is_head_) {
    response_.body() = std::move(answer.body);
  }
  response_.content_length(bytes);
  writing_ = true;
  stream_.expires_after(absl::ToChronoMilliseconds(context_.options.write_timeout));
  http::async_write(stream_, response_, [self = shared_from_this()](Error error, size_t) {
    self->OnWritten(error, true);
  });
}

void HttpSession::WriteRaw(std::string text, bool last) {
  text_ = std::move(text);
  writing_ = true;
  stream_.expires_after(absl::ToChronoMilliseconds(context_.options.write_timeout));
  asio::async_write(
      stream_, asio::buffer(text_),
      [self = shared_from_this(), last](Error error, size_t) { self->OnWritten(error, last); });
}

void HttpSession::OnWritten(Error error, bool last) {
  writing_ = false;
  if (error) {
    Close();
  } else if (last) {
    FinishAnswer();
  } else {
    stream_.expires_never();
    Advance();
  }
}

void HttpSession::FinishAnswer() {
  exchange_.reset();
  self_.reset();  // The handler that called us holds another reference.
  streaming_ = false;
  Error ignored;
  if (watching_) {
    read_next_ = keep_alive_;
    stream_.socket().cancel(ignored);
  } else if (keep_alive_) {
    Read();
  }
  if (!keep_alive_) {
    stream_.socket().shutdown(asio::ip::tcp::socket::shutdown_send, ignored);
    if (refused_) {
      stream_.expires_after(absl::ToChronoMilliseconds(kLingerTime));
      Linger();
    }
  }
}

void HttpSession::Linger() {
  buffer_.clear();
  stream_.async_read_some(buffer_.prepare(std::min(buffer_.max_size(), kLingerBytes)),
                          [self = shared_from_this()](Error error, size_t) {
                            if (!error) {
                              self->Linger();
                            }
                          });
}

}  // namespace nibble
