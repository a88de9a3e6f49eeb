// The gRPC server: its limits, health and reflection beside our services.

#pragma once

#include <grpcpp/server.h>
#include <grpcpp/server_builder.h>

#include <initializer_list>
#include <memory>
#include <string>

#include "absl/base/thread_annotations.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "kernels/mutex.h"
#include "server/listen_address.h"

namespace nibble {

inline constexpr int kGrpcReceiveBytesMax = 4 << 20;  // gRPC's default, said aloud.
inline constexpr int kGrpcMetadataBytesMax = 16 << 10;
inline constexpr int kGrpcStreamsMax = 256;  // Of one connection at a time.

// Opens no port of its own: connections are handed to it by the listener. Thread-safe.
class GrpcServer {
 public:
  // Starts. Health says SERVING, in all and for each of `services`, which must outlive the server.
  //
  // Errors: INTERNAL if gRPC does not start.
  static absl::StatusOr<std::unique_ptr<GrpcServer>> Start(
      std::initializer_list<grpc::Service*> services,
      std::initializer_list<const char*> service_names);

  // Takes a connected, non-blocking socket, and closes it at once after Shutdown().
  void Serve(Descriptor connection);

  // Health says NOT_SERVING from now on, for good.
  void StopServing();

  // Waits `grace` for calls that run, cancels the rest, and returns when all have ended.
  void Shutdown(absl::Duration grace);

  // Shutdown() without grace.
  ~GrpcServer();

 private:
  using Acceptor = grpc::experimental::ExternalConnectionAcceptor;

  GrpcServer(std::unique_ptr<Acceptor> acceptor, std::unique_ptr<grpc::Server> server);

  Mutex mutex_;  // Held while a connection is handed over.
  bool shut_down_ ABSL_GUARDED_BY(mutex_) = false;
  const std::unique_ptr<Acceptor> acceptor_;
  const std::unique_ptr<grpc::Server> server_;
};

}  // namespace nibble
