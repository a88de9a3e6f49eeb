#include "server/command_line/commands.h"

namespace nibble {

std::vector<Command> AllCommands() {
  return {ServeCommand(),     PlanCommand(),          LoadCommand(),   UnloadCommand(),
          PsCommand(),        MemoryCommand(),        ExportCommand(), SynthCommand(),
          BenchLoadCommand(), BenchQuantizeCommand(), VersionCommand()};
}

}  // namespace nibble
