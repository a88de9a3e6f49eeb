#include "server/front.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"
#include "server/change_feed.h"
#include "server/generation_service.h"
#include "server/grpc_server.h"
#include "server/http_server.h"
#include "server/listener.h"
#include "server/memory_service.h"
#include "server/model_service.h"
#include "server/openai_api.h"

namespace nibble {
namespace {

constexpr absl::string_view kGrpc = "grpc";
constexpr absl::string_view kHttp = "http";

// Errors: INVALID_ARGUMENT for an address that others can reach, unless `insecure`.
absl::StatusOr<ListenAddress> ParseSafeAddress(absl::string_view flag, const std::string& text,
                                               bool insecure) {
  absl::StatusOr<ListenAddress> address = ParseListenAddress(flag, text);
  if (address.ok() && !address->loopback() && !insecure) {
    return absl::InvalidArgumentError(absl::StrCat(
        flag, " ", text, ": others can reach this address, and there is neither TLS nor a token; ",
        "listen on 127.0.0.1, or add --insecure if the network around it is trusted"));
  }
  return address;
}

// Whoever waits for the file sees all of it: it appears under its name when it is complete.
absl::Status WritePortFile(const std::string& path, uint16_t grpc_port, uint16_t http_port) {
  const std::string text = absl::StrCat("grpc=", grpc_port, "\nhttp=", http_port, "\n");
  const std::string draft = absl::StrCat(path, ".", getpid(), ".tmp");
  const Descriptor file(open(draft.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644));
  if (file.get() < 0 ||
      write(file.get(), text.data(), text.size()) != static_cast<ssize_t>(text.size()) ||
      std::rename(draft.c_str(), path.c_str()) != 0) {
    const int error = errno;
    unlink(draft.c_str());
    return absl::InternalError(absl::StrCat("port file ", path, ": ", std::strerror(error)));
  }
  return absl::OkStatus();
}

}  // namespace

// In the order of construction; destruction in reverse order is the shutdown.
class Front::Servers {
 public:
  Servers(const FrontOptions& options, const FrontBackend& backend, bool check_host)
      : backend_(backend),
        feed_(backend.budget),
        model_service_(backend.registry, backend.exporter, feed_, backend.logger,
                       backend.device.name()),
        generation_service_(backend.registry, backend.logger),
        memory_service_(backend.registry, backend.budget, backend.device, feed_, backend.logger),
        listener_(options.connections_max),
        openai_(backend.registry, backend.logger),
        http_(
            HttpOptions{.check_host = check_host}, [this] { return RenderMetrics(); }, &openai_) {}

  ~Servers() { Shutdown(absl::ZeroDuration()); }

  absl::Status Start(Descriptor grpc_socket, Descriptor http_socket) {
    absl::StatusOr<std::unique_ptr<GrpcServer>> server = GrpcServer::Start(
        {&model_service_, &generation_service_, &memory_service_},
        {v1::ModelService::service_full_name(), v1::GenerationService::service_full_name(),
         v1::MemoryService::service_full_name()});
    if (!server.ok()) {
      return server.status();
    }
    grpc_ = *std::move(server);
    listener_.Add(kGrpc, std::move(grpc_socket),
                  [this](Descriptor connection) { grpc_->Serve(std::move(connection)); });
    if (http_socket.get() >= 0) {
      listener_.Add(kHttp, std::move(http_socket),
                    [this](Descriptor connection) { http_.Serve(std::move(connection)); });
    }
    http_.SetReady(true);
    return listener_.Start();
  }

  void StopServing() {
    http_.SetReady(false);
    if (grpc_ != nullptr) {
      grpc_->StopServing();
    }
  }

  void Shutdown(absl::Duration grace) {
    StopServing();
    feed_.End();
    listener_.Stop();
    if (grpc_ != nullptr) {
      grpc_->Shutdown(grace);
    }
  }

 private:
  std::string RenderMetrics() const {
    return backend_.metrics.Render(*backend_.registry.Snapshot(),
                                   SampleMemory(backend_.device, backend_.registry),
                                   listener_.Counts(), backend_.registry.ReadEngines());
  }

  const FrontBackend backend_;
  ChangeFeed feed_;
  ModelService model_service_;
  GenerationService generation_service_;
  MemoryService memory_service_;
  std::unique_ptr<GrpcServer> grpc_;
  Listener listener_;  // Asked by http_ until its thread has ended.
  OpenAiApi openai_;
  HttpServer http_;
};

absl::StatusOr<std::unique_ptr<Front>> Front::Start(const FrontOptions& options,
                                                    const FrontBackend& backend) {
  absl::StatusOr<ListenAddress> grpc_address =
      ParseSafeAddress("--listen", options.listen, options.insecure);
  if (!grpc_address.ok()) {
    return grpc_address.status();
  }
  ListenAddress http_address;
  Descriptor http_socket;
  if (!options.http_listen.empty()) {
    absl::StatusOr<ListenAddress> parsed =
        ParseSafeAddress("--http-listen", options.http_listen, options.insecure);
    if (!parsed.ok()) {
      return parsed.status();
    }
    http_address = *std::move(parsed);
  }
  absl::StatusOr<Descriptor> grpc_socket = OpenListeningSocket(*grpc_address);
  if (!grpc_socket.ok()) {
    return grpc_socket.status();
  }
  if (!http_address.host.empty()) {
    absl::StatusOr<Descriptor> opened = OpenListeningSocket(http_address);
    if (!opened.ok()) {
      return opened.status();
    }
    http_socket = *std::move(opened);
  }
  auto servers = std::make_unique<Servers>(options, backend, http_address.loopback());
  absl::Status status = servers->Start(*std::move(grpc_socket), std::move(http_socket));
  if (status.ok() && !options.port_file.empty()) {
    status = WritePortFile(options.port_file, grpc_address->port, http_address.port);
  }
  if (!status.ok()) {
    return status;
  }
  return std::unique_ptr<Front>(
      new Front(*std::move(grpc_address), std::move(http_address), std::move(servers)));
}

Front::Front(ListenAddress grpc_address, ListenAddress http_address,
             std::unique_ptr<Servers> servers)
    : grpc_address_(std::move(grpc_address)),
      http_address_(std::move(http_address)),
      servers_(std::move(servers)) {}

Front::~Front() = default;

void Front::StopServing() { servers_->StopServing(); }

void Front::Shutdown(absl::Duration grace) { servers_->Shutdown(grace); }

}  // namespace nibble
