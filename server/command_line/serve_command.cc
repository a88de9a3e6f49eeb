#include <memory>

#include "server/command_line/commands.h"
#include "server/command_line/serve_settings.h"

namespace nibble {

Command ServeCommand() {
  auto options = std::make_shared<ServeOptions>();
  Command command;
  command.name = "serve";
  command.summary = "runs the daemon";
  command.description =
      "Runs the daemon: one device, one budget for everything on it, gRPC and HTTP. It drives the "
      "first GPU, or the host's memory if there is none. SIGTERM or Ctrl-C drains and exits with "
      "0; "
      "a daemon that cannot start exits with 1, one whose GPU context broke with 3.\n"
      "\n"
      "Precedence: flag, environment, settings file, default. In the environment a list is "
      "separated "
      "by ':'. Sizes: B; kB, MB, GB (powers of 1000); KiB, MiB, GiB (powers of 1024); or 90% of "
      "the "
      "device.";
  command.examples = {
      "nibble serve --model-root /models --vram-budget 24GiB",
      "nibble serve --device host --vram-budget 50% --model-root ~/.cache/huggingface/hub",
      "nibble serve --config nibble.toml",
      "NIBBLE_MODEL_ROOT=/models:/scratch NIBBLE_LOG_FORMAT=json nibble serve",
  };
  command.groups = ServeSettings(options.get());
  command.read_file = [options] { return ReadServeFile(*options); };
  command.run = [options] { return RunDaemon(options->daemon); };
  return command;
}

}  // namespace nibble
