// What a client hears whose message cannot be read: bytes that are no message of the call's type,
// or text that is not UTF-8. gRPC 1.51 itself answers UNIMPLEMENTED without a word.

#pragma once

#include <grpcpp/support/server_interceptor.h>

namespace nibble {

// Makes such an answer INVALID_ARGUMENT with a sentence. No service of ours answers UNIMPLEMENTED
// without one.
class UnreadableRequests final : public grpc::experimental::ServerInterceptorFactoryInterface {
 public:
  grpc::experimental::Interceptor* CreateServerInterceptor(
      grpc::experimental::ServerRpcInfo* info) override;
};

}  // namespace nibble
