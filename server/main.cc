// The program `nibble`: daemon and client in one.

#include <csignal>

#include "server/command_line/commands.h"

int main(int argc, char** argv) {
  // A write beyond the limit of a file's size (ulimit -f) is then an error, EFBIG, as on a full
  // disk, and no end of the process with all its models.
  std::signal(SIGXFSZ, SIG_IGN);
  return nibble::RunCommandLine(nibble::AllCommands(), argc, argv);
}
