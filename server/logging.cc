#include "server/logging.h"

#include <spdlog/sinks/ostream_sink.h>
#include <spdlog/sinks/stdout_sinks.h>
#include <spdlog/spdlog.h>

#include <cmath>
#include <nlohmann/json.hpp>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"

namespace nibble {
namespace {

constexpr size_t kValueBytesMax = 2048;  // Keeps a line readable whatever a client sends.

spdlog::level::level_enum SpdlogLevel(LogLevel level) {
  switch (level) {
    case LogLevel::kTrace:
      return spdlog::level::trace;
    case LogLevel::kDebug:
      return spdlog::level::debug;
    case LogLevel::kInfo:
      return spdlog::level::info;
    case LogLevel::kWarn:
      return spdlog::level::warn;
    case LogLevel::kError:
      return spdlog::level::err;
    case LogLevel::kCritical:
      return spdlog::level::critical;
  }
  return spdlog::level::info;
}

std::unique_ptr<spdlog::logger> MakeLogger(LogLevel level, LogFormat format,
                                           spdlog::sink_ptr sink) {
  auto logger = std::make_unique<spdlog::logger>("nibble", std::move(sink));
  logger->set_level(SpdlogLevel(level));
  logger->flush_on(spdlog::level::trace);  // Standard error is not buffered; the tests' stream is.
  logger->set_pattern(format == LogFormat::kJson
                          ? R"({"time":"%Y-%m-%dT%H:%M:%S.%eZ","level":"%l",%v})"
                          : "time=%Y-%m-%dT%H:%M:%S.%eZ level=%l %v",
                      spdlog::pattern_time_type::utc);
  return logger;
}

// As a JSON string, in pure ASCII: control characters, line separators and what a terminal would
// obey are escaped, invalid UTF-8 is replaced.
std::string Quoted(absl::string_view text) {
  return nlohmann::json(std::string(text.substr(0, kValueBytesMax)))
      .dump(-1, ' ', true, nlohmann::json::error_handler_t::replace);
}

bool NeedsQuotes(absl::string_view text) {
  for (const char c : text) {
    if (!absl::ascii_isgraph(static_cast<unsigned char>(c)) || c == '"' || c == '=' || c == '\\') {
      return true;
    }
  }
  return text.empty();
}

std::string TextValue(const LogField& field) {
  if (const auto* text = std::get_if<std::string>(&field.value)) {
    return NeedsQuotes(*text) || text->size() > kValueBytesMax ? Quoted(*text) : *text;
  }
  if (const auto* number = std::get_if<double>(&field.value)) {
    return absl::StrCat(*number);
  }
  return absl::StrCat(std::get<int64_t>(field.value));
}

std::string JsonValue(const LogField& field) {
  if (const auto* text = std::get_if<std::string>(&field.value)) {
    return Quoted(*text);
  }
  if (const auto* number = std::get_if<double>(&field.value)) {
    return std::isfinite(*number) ? absl::StrCat(*number) : "null";
  }
  return absl::StrCat(std::get<int64_t>(field.value));
}

}  // namespace

absl::StatusOr<LogLevel> ParseLogLevel(absl::string_view text) {
  constexpr std::pair<absl::string_view, LogLevel> kLevels[] = {{"trace", LogLevel::kTrace},
                                                                {"debug", LogLevel::kDebug},
                                                                {"info", LogLevel::kInfo},
                                                                {"warn", LogLevel::kWarn},
                                                                {"error", LogLevel::kError}};
  for (const auto& [name, level] : kLevels) {
    if (name == text) {
      return level;
    }
  }
  return absl::InvalidArgumentError(absl::StrCat(
      "--log-level: expected trace, debug, info, warn or error, found \"", text, "\""));
}

absl::StatusOr<LogFormat> ParseLogFormat(absl::string_view text) {
  if (text == "text") {
    return LogFormat::kText;
  }
  if (text == "json") {
    return LogFormat::kJson;
  }
  return absl::InvalidArgumentError(
      absl::StrCat("--log-format: expected text or json, found \"", text, "\""));
}

Logger::Logger(LogLevel level, LogFormat format)
    : format_(format),
      logger_(MakeLogger(level, format, std::make_shared<spdlog::sinks::stderr_sink_mt>())) {}

Logger::Logger(LogLevel level, LogFormat format, std::ostream& stream)
    : format_(format),
      logger_(MakeLogger(level, format, std::make_shared<spdlog::sinks::ostream_sink_mt>(stream))) {
}

Logger::~Logger() = default;

void Logger::Log(LogLevel level, absl::string_view event, std::initializer_list<LogField> fields) {
  if (!logger_->should_log(SpdlogLevel(level))) {
    return;
  }
  std::string line = format_ == LogFormat::kJson ? absl::StrCat("\"event\":", Quoted(event))
                                                 : absl::StrCat("event=", Quoted(event));
  for (const LogField& field : fields) {
    if (format_ == LogFormat::kJson) {
      absl::StrAppend(&line, ",\"", field.key, "\":", JsonValue(field));
    } else {
      absl::StrAppend(&line, " ", field.key, "=", TextValue(field));
    }
  }
  logger_->log(SpdlogLevel(level), spdlog::string_view_t(line));
}

void Logger::Flush() { logger_->flush(); }

void LogRequest(Logger& logger, absl::string_view call, absl::string_view model,
                absl::string_view request_id, const absl::Status& status) {
  if (status.ok()) {
    return;
  }
  const LogLevel level = absl::IsCancelled(status) ? LogLevel::kDebug : LogLevel::kInfo;
  logger.Log(level, "request failed",
             {{"call", call},
              {"model", model},
              {"request_id", request_id},
              {"code", absl::StatusCodeToString(status.code())},
              {"message", status.message()}});
}

}  // namespace nibble
