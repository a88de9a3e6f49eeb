#include "server/http_server.h"

#include <boost/asio/executor_work_guard.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/post.hpp>
#include <thread>
#include <utility>
#include <vector>

#include "server/http_session.h"

namespace nibble {

namespace asio = boost::asio;
namespace beast = boost::beast;

// The thread and everything that runs on it. The sessions belong to the thread.
class HttpServer::Core {
 public:
  Core(const HttpOptions& options, RenderMetrics render_metrics, HttpApi* api,
       const std::atomic<bool>& ready)
      : context_{options, std::move(render_metrics), api, ready, nullptr, {}},
        work_(context_io_.get_executor()) {
    context_.loop = std::make_shared<HttpLoop>(context_io_);
    thread_ = std::thread([this] { context_io_.run(); });
  }

  // Without memory to post, the process ends here: the thread could not be told to.
  // NOLINTNEXTLINE(bugprone-exception-escape)
  ~Core() {
    asio::post(context_io_, [this] { CloseAll(); });
    context_.loop->End();
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
  void CloseAll() {
    closed_ = true;
    // Held while they are closed: the last reference takes a session out of the set.
    std::vector<std::shared_ptr<HttpSession>> sessions;
    for (HttpSession* const session : context_.sessions) {
      sessions.push_back(session->shared_from_this());
    }
    for (const std::shared_ptr<HttpSession>& session : sessions) {
      session->Close();
    }
  }

  void Begin(Descriptor connection) {
    asio::ip::tcp::socket socket(context_io_);
    beast::error_code error;
    // The family matters only for later calls of bind and connect, of which there are none.
    socket.assign(asio::ip::tcp::v6(), connection.get(), error);
    if (error) {
      return;
    }
    connection.Release();
    std::make_shared<HttpSession>(std::move(socket), context_)->Read();
  }

  HttpSessionContext context_;
  bool closed_ = false;
  asio::io_context context_io_{1};
  asio::executor_work_guard<asio::io_context::executor_type> work_;
  std::thread thread_;
};

HttpServer::HttpServer(const HttpOptions& options, RenderMetrics render_metrics, HttpApi* api)
    : core_(std::make_unique<Core>(options, std::move(render_metrics), api, ready_)) {}

HttpServer::~HttpServer() = default;

void HttpServer::Serve(Descriptor connection) { core_->Serve(std::move(connection)); }

}  // namespace nibble
