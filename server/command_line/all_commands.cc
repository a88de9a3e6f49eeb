#include "server/command_line/commands.h"

namespace nibble {

std::vector<Command> AllCommands() {
  return {ServeCommand(),  PlanCommand(),      LoadCommand(),
          UnloadCommand(), PsCommand(),        MemoryCommand(),
          SynthCommand(),  BenchLoadCommand(), BenchQuantizeCommand(),
          VersionCommand()};
}

}  // namespace nibble
