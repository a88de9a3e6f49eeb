// One line an event, as key=value text or as a JSON object, on standard error. Values are escaped,
// so that no name that a client sends can forge a line or a field.

#pragma once

#include <cstdint>
#include <initializer_list>
#include <memory>
#include <ostream>
#include <string>
#include <type_traits>
#include <variant>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"

namespace spdlog {
class logger;
}

namespace nibble {

enum class LogLevel { kTrace, kDebug, kInfo, kWarn, kError, kCritical };

// "trace", "debug", "info", "warn", "error".
//
// Errors: INVALID_ARGUMENT.
absl::StatusOr<LogLevel> ParseLogLevel(absl::string_view text);

enum class LogFormat { kText, kJson };  // "text", "json".

absl::StatusOr<LogFormat> ParseLogFormat(absl::string_view text);

// A key and its value. Keys are ours, values anybody's.
struct LogField {
  LogField(absl::string_view key, absl::string_view value) : key(key), value(std::string(value)) {}
  LogField(absl::string_view key, const char* value) : LogField(key, absl::string_view(value)) {}
  LogField(absl::string_view key, const std::string& value)
      : LogField(key, absl::string_view(value)) {}
  LogField(absl::string_view key, double value) : key(key), value(value) {}
  template <typename Integer, typename = std::enable_if_t<std::is_integral_v<Integer>>>
  LogField(absl::string_view key, Integer value) : key(key), value(static_cast<int64_t>(value)) {}

  absl::string_view key;
  std::variant<std::string, int64_t, double> value;
};

// Thread-safe. A line is written whole.
class Logger {
 public:
  // To standard error.
  Logger(LogLevel level, LogFormat format);

  // To `stream`, which must outlive the logger. For tests.
  Logger(LogLevel level, LogFormat format, std::ostream& stream);

  ~Logger();

  // `event` is a constant phrase, the same for each line of its kind: "load finished".
  void Log(LogLevel level, absl::string_view event, std::initializer_list<LogField> fields = {});

  void Flush();

 private:
  const LogFormat format_;
  std::unique_ptr<spdlog::logger> logger_;
};

// Logs a request that failed, at info: what goes wrong for a client is news for the client first. A
// client that cancels is no failure; successful requests are not logged.
void LogRequest(Logger& logger, absl::string_view call, absl::string_view model,
                absl::string_view request_id, const absl::Status& status);

}  // namespace nibble
