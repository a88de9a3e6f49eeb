// A server stream that sends a message at once and after each change, never more than one ahead of
// its reader: a change that comes while a message is on its way is sent when that one is done, and
// several such changes are one. So a slow reader costs one message, not a queue.

#pragma once

#include <grpcpp/support/server_callback.h>

#include <cstdint>
#include <functional>
#include <memory>
#include <utility>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/time/time.h"
#include "kernels/mutex.h"
#include "server/change_feed.h"
#include "server/grpc_status.h"

namespace nibble {

// `Message` has a `sequence`. Lives from Start() until gRPC is done with it, by a reference to
// itself; the feed shares it.
template <typename Message>
class WatchStream final : public grpc::ServerWriteReactor<Message>, public Watcher {
 public:
  using Render = std::function<Message()>;

  // Begins a stream and returns its reactor. `feed` must outlive the gRPC server.
  static WatchStream* Start(ChangeFeed& feed, absl::Duration interval, Render render) {
    auto stream = std::make_shared<WatchStream>(feed, std::move(render));
    WatchStream* const reactor = stream.get();
    reactor->self_ = stream;
    const uint64_t sequence = reactor->Send();
    feed.Add(std::move(stream), sequence, interval);
    return reactor;
  }

  // A stream that ends at once.
  static WatchStream* Refuse(ChangeFeed& feed, const absl::Status& status) {
    auto stream = std::make_shared<WatchStream>(feed, nullptr);
    stream->self_ = stream;
    stream->End(status);
    return stream.get();
  }

  WatchStream(ChangeFeed& feed, Render render) : feed_(feed), render_(std::move(render)) {}

  void OnChange() override {
    {
      MutexLock lock(mutex_);
      behind_ = true;
    }
    Send();
  }

  void OnEnd() override { End(absl::UnavailableError("the daemon shuts down")); }

  void OnWriteDone(bool ok) override {
    {
      MutexLock lock(mutex_);
      writing_ = false;
    }
    if (!ok) {
      End(absl::CancelledError("the client is gone"));
    }
    if (!FinishIfEnded()) {
      Send();
    }
  }

  void OnCancel() override { End(absl::CancelledError("cancelled by the client")); }

  void OnDone() override {
    feed_.Remove(this);
    self_.reset();  // Last: it may be the last reference.
  }

 private:
  // Sends the state of now, unless it was sent already or a message is on its way. Returns the
  // sequence of what it looked at last.
  uint64_t Send() {
    uint64_t sequence = 0;
    while (BeginWrite()) {
      message_ = render_();
      sequence = message_.sequence();
      if (CommitWrite(sequence)) {
        this->StartWrite(&message_);
        return sequence;
      }
      FinishIfEnded();
    }
    return sequence;
  }

  // Takes message_ for the caller; false if it is taken or there is nothing more to send.
  bool BeginWrite() {
    MutexLock lock(mutex_);
    if (ended_ || writing_ || !behind_) {
      return false;
    }
    behind_ = false;
    writing_ = true;
    return true;
  }

  // Whether message_ is worth sending; else gives it back.
  bool CommitWrite(uint64_t sequence) {
    MutexLock lock(mutex_);
    if (!ended_ && !(sent_ && sent_sequence_ == sequence)) {
      sent_ = true;
      sent_sequence_ = sequence;
      return true;
    }
    writing_ = false;
    return false;
  }

  void End(const absl::Status& status) {
    {
      MutexLock lock(mutex_);
      if (ended_) {
        return;
      }
      ended_ = true;
      status_ = status;
    }
    FinishIfEnded();
  }

  // Finishes the call once it has ended and no message is on its way; true if it has.
  bool FinishIfEnded() {
    grpc::Status status;
    {
      MutexLock lock(mutex_);
      if (!ended_) {
        return false;
      }
      if (writing_ || finished_) {
        return true;
      }
      finished_ = true;
      status = ToGrpcStatus(status_);
    }
    this->Finish(std::move(status));
    return true;
  }

  ChangeFeed& feed_;
  const Render render_;
  std::shared_ptr<WatchStream> self_;  // Until OnDone.
  Message message_;                    // On its way while writing_.

  Mutex mutex_;
  bool writing_ ABSL_GUARDED_BY(mutex_) = false;
  bool behind_ ABSL_GUARDED_BY(mutex_) = true;  // Something changed since the last message.
  bool ended_ ABSL_GUARDED_BY(mutex_) = false;
  bool finished_ ABSL_GUARDED_BY(mutex_) = false;
  bool sent_ ABSL_GUARDED_BY(mutex_) = false;
  uint64_t sent_sequence_ ABSL_GUARDED_BY(mutex_) = 0;
  absl::Status status_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace nibble
