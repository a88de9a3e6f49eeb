#!/usr/bin/env python3
"""Runs clang-tidy over source files: tests/tidy.py BUILD_FOLDER FILE...

Most of clang-tidy's time goes into headers that are not ours, and is spent again for every source
file. So files that are compiled with the same flags are checked together, as one translation unit
that includes them. Files that do not go together (two anonymous namespaces that use one name) are
found by the compiler and checked again apart, so that a group never refuses what is right by
itself. What clang says only of a main file is not seen in a group: unused functions, which GCC
reports when it builds, and unused constants, which it does not.
"""

import concurrent.futures
import json
import os
import re
import shlex
import subprocess
import sys

# Measured: 12 files of the server take twice the time of one. Larger groups save little more and
# leave a core idle at the end.
GROUP_FILES_MAX = 12


def flags_by_file(build):
    """What each file is compiled with, without its own name and its object's."""
    flags = {}
    with open(os.path.join(build, "compile_commands.json"), encoding="utf-8") as database:
        for entry in json.load(database):
            words = shlex.split(entry["command"])
            del words[words.index("-o"):]  # CMake writes "-o object -c source" last.
            flags.setdefault(os.path.realpath(entry["file"]), tuple(words))
    return flags


def flags_of(path, flags):
    """A file that this configuration leaves out is compiled like its neighbours."""
    if path in flags:
        return flags[path]
    for other in sorted(flags):
        if other.endswith(".cc") and os.path.dirname(other) == os.path.dirname(path):
            return flags[other]
    sys.exit(f"tidy.py: {path}: not compiled in this build, nor is anything in its folder")


def goes_alone(path, flags):
    """Highway includes such a file into itself, once for each instruction set; each fuzzer has the
    one entry point; what this configuration leaves out defines what another file does."""
    with open(path, encoding="utf-8") as source:
        text = source.read()
    return "HWY_TARGET_INCLUDE" in text or "LLVMFuzzerTestOneInput" in text or path not in flags


def groups_of(paths, flags):
    alike = {}
    for path in paths:
        key = (path,) if goes_alone(path, flags) else (os.path.dirname(path), flags_of(path, flags))
        alike.setdefault(key, []).append(path)
    for files in alike.values():
        count = -(-len(files) // GROUP_FILES_MAX)
        yield from (files[i::count] for i in range(count))


class Tidy:
    def __init__(self, build, flags):
        self.folder = os.path.realpath(os.path.join(build, "tidy"))
        self.flags = flags
        os.makedirs(self.folder, exist_ok=True)

    def write_unit(self, files):
        if len(files) == 1:
            return files[0]
        unit = os.path.join(self.folder, f"{os.path.basename(files[0])}_and_{len(files) - 1}.cc")
        with open(unit, "w", encoding="utf-8") as out:
            for path in files:
                out.write(f'#include "{path}"  // NOLINT(bugprone-suspicious-include)\n')
        return unit

    def check(self, files):
        """Returns the complaint about these files, or nothing where clang-tidy accepts them."""
        words = flags_of(files[0], self.flags)
        told = subprocess.run(
            ["clang-tidy-14", "--quiet", "--config-file=.clang-tidy", self.write_unit(files),
             "--", *words[1:]], capture_output=True, text=True, check=False)
        if told.returncode == 0:
            return ""
        if len(files) > 1 and "[clang-diagnostic-" in told.stdout:
            return "".join(self.check(part) for part in split(files, told.stdout))
        return told.stdout or f"{files}: clang-tidy ended with {told.returncode}: {told.stderr}\n"


def split(files, findings):
    """The files that the compiler complains of, and the others; halves where that says nothing."""
    named = {os.path.realpath(name) for name in
             re.findall(r"^([^:\n]+):\d+:\d+: .*\[clang-diagnostic-", findings, re.MULTILINE)}
    apart = [path for path in files if path in named]
    if not apart or len(apart) == len(files):
        apart = files[:len(files) // 2]
    return apart, [path for path in files if path not in apart]


def main():
    build, paths = sys.argv[1], [os.path.realpath(path) for path in sys.argv[2:]]
    if not paths:
        sys.exit("tidy.py: no files")
    flags = flags_by_file(build)
    tidy = Tidy(build, flags)
    # The largest first, so that the cores end together.
    groups = sorted(groups_of(paths, flags), key=len, reverse=True)
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        findings = ""
        running = [pool.submit(tidy.check, group) for group in groups]
        for checked in concurrent.futures.as_completed(running):
            print(checked.result(), end="", flush=True)
            findings += checked.result()
    print(f"tidy.py: {len(paths)} files in {len(groups)} groups", file=sys.stderr)
    sys.exit(1 if findings else 0)


main()
