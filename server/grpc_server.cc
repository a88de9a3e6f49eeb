#include "server/grpc_server.h"

#include <grpcpp/ext/proto_server_reflection_plugin.h>
#include <grpcpp/health_check_service_interface.h>
#include <grpcpp/resource_quota.h>

#include <mutex>
#include <utility>
#include <vector>

#include "kernels/bytes.h"
#include "server/unreadable_request.h"

namespace nibble {
namespace {

// Bytes that all connections together may hold in buffers; gRPC slows readers down as it comes
// near.
constexpr int64_t kBufferBytesMax = 256_MiB;

// Threads for the reflection service, the only one that takes a thread for each call.
constexpr int kSyncThreadsMax = 8;

constexpr int kHandshakeTimeoutMs = 10'000;  // Connected, but no HTTP/2 settings yet.
constexpr int kConnectionIdleMs =
    5 * 60 * 1000;  // Without a call; clients connect again by themselves.
// A client whose machine vanished is noticed within 50 s, and its load cancelled.
constexpr int kKeepaliveTimeMs = 30'000;
constexpr int kKeepaliveTimeoutMs = 20'000;
constexpr int kClientPingIntervalMinMs = 10'000;  // More often is ENHANCE_YOUR_CALM.

// gRPC wants its plugins before the first server of the process, once. Naming the function also
// keeps the linker from leaving the reflection library out.
void EnablePlugins() {
  static std::once_flag once;
  std::call_once(once, [] {
    grpc::EnableDefaultHealthCheckService(true);
    grpc::reflection::InitProtoReflectionServerBuilderPlugin();
  });
}

void SetLimits(grpc::ServerBuilder& builder) {
  builder.SetMaxReceiveMessageSize(kGrpcReceiveBytesMax);
  builder.AddChannelArgument(GRPC_ARG_MAX_METADATA_SIZE, kGrpcMetadataBytesMax);
  builder.AddChannelArgument(GRPC_ARG_MAX_CONCURRENT_STREAMS, kGrpcStreamsMax);
  builder.AddChannelArgument(GRPC_ARG_SERVER_HANDSHAKE_TIMEOUT_MS, kHandshakeTimeoutMs);
  builder.AddChannelArgument(GRPC_ARG_MAX_CONNECTION_IDLE_MS, kConnectionIdleMs);
  builder.AddChannelArgument(GRPC_ARG_KEEPALIVE_TIME_MS, kKeepaliveTimeMs);
  builder.AddChannelArgument(GRPC_ARG_KEEPALIVE_TIMEOUT_MS, kKeepaliveTimeoutMs);
  builder.AddChannelArgument(GRPC_ARG_KEEPALIVE_PERMIT_WITHOUT_CALLS, 1);
  builder.AddChannelArgument(GRPC_ARG_HTTP2_MIN_RECV_PING_INTERVAL_WITHOUT_DATA_MS,
                             kClientPingIntervalMinMs);
  grpc::ResourceQuota quota("nibble");
  quota.Resize(static_cast<size_t>(kBufferBytesMax));
  quota.SetMaxThreads(kSyncThreadsMax);
  builder.SetResourceQuota(quota);
  builder.SetSyncServerOption(grpc::ServerBuilder::NUM_CQS, 1);
  builder.SetSyncServerOption(grpc::ServerBuilder::MAX_POLLERS, 1);
}

}  // namespace

absl::StatusOr<std::unique_ptr<GrpcServer>> GrpcServer::Start(
    std::initializer_list<grpc::Service*> services,
    std::initializer_list<const char*> service_names) {
  EnablePlugins();
  grpc::ServerBuilder builder;
  SetLimits(builder);
  for (grpc::Service* const service : services) {
    builder.RegisterService(service);
  }
  std::vector<std::unique_ptr<grpc::experimental::ServerInterceptorFactoryInterface>> interceptors;
  interceptors.push_back(std::make_unique<UnreadableRequests>());
  builder.experimental().SetInterceptorCreators(std::move(interceptors));
  std::unique_ptr<Acceptor> acceptor = builder.experimental().AddExternalConnectionAcceptor(
      grpc::ServerBuilder::experimental_type::ExternalConnectionType::FROM_FD,
      grpc::InsecureServerCredentials());
  std::unique_ptr<grpc::Server> server = builder.BuildAndStart();
  if (server == nullptr) {
    return absl::InternalError("gRPC did not start; its reason stands above");
  }
  for (const char* const name : service_names) {
    server->GetHealthCheckService()->SetServingStatus(name, true);
  }
  return std::unique_ptr<GrpcServer>(new GrpcServer(std::move(acceptor), std::move(server)));
}

GrpcServer::GrpcServer(std::unique_ptr<Acceptor> acceptor, std::unique_ptr<grpc::Server> server)
    : acceptor_(std::move(acceptor)), server_(std::move(server)) {}

GrpcServer::~GrpcServer() { Shutdown(absl::ZeroDuration()); }

void GrpcServer::Serve(Descriptor connection) {
  MutexLock lock(mutex_);
  // Once it is shut down gRPC 1.51 takes no more connections and leaves the descriptor open.
  if (shut_down_) {
    return;
  }
  Acceptor::NewConnectionParameters parameters;
  parameters.fd = connection.Release();  // Closed by gRPC, also if the peer is gone already.
  acceptor_->HandleNewConnection(&parameters);
}

void GrpcServer::StopServing() { server_->GetHealthCheckService()->Shutdown(); }

void GrpcServer::Shutdown(absl::Duration grace) {
  {
    MutexLock lock(mutex_);
    shut_down_ = true;
  }
  server_->Shutdown(absl::ToChronoTime(absl::Now() + grace));
}

}  // namespace nibble
