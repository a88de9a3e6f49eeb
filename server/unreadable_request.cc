#include "server/unreadable_request.h"

#include "absl/strings/str_cat.h"
#include "server/grpc_status.h"

namespace nibble {
namespace {

using grpc::experimental::InterceptionHookPoints;

class UnreadableRequest final : public grpc::experimental::Interceptor {
 public:
  explicit UnreadableRequest(const char* method) : method_(method) {}

  void Intercept(grpc::experimental::InterceptorBatchMethods* methods) override {
    if (methods->QueryInterceptionHookPoint(InterceptionHookPoints::PRE_SEND_STATUS)) {
      const grpc::Status status = methods->GetSendStatus();
      if (status.error_code() == grpc::StatusCode::UNIMPLEMENTED &&
          status.error_message().empty()) {
        methods->ModifySendStatus(ToGrpcStatus(absl::InvalidArgumentError(
            absl::StrCat("the request: expected a message of ", method_, " whose text is UTF-8"))));
      }
    }
    methods->Proceed();
  }

 private:
  const char* const method_;  // gRPC's own, for as long as the server lives.
};

}  // namespace

grpc::experimental::Interceptor* UnreadableRequests::CreateServerInterceptor(
    grpc::experimental::ServerRpcInfo* info) {
  return new UnreadableRequest(info->method());  // Deleted by gRPC with the call.
}

}  // namespace nibble
