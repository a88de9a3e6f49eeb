"""What the documents and the help pages tell people to type exists: commands, flags, scripts."""

import os
import re
import shlex
import subprocess
import sys

from harness import DEMO, REPOSITORY, Case, Daemon, main, nibble

COMMANDS = ["serve", "plan", "load", "unload", "ps", "memory", "generate", "chat", "export", "synth", "bench load",
            "bench quantize", "bench linear", "bench decode", "bench prefill", "bench serve",
            "version"]


def documents():
    listed = subprocess.run(["git", "ls-files", "*.md", "deploy/quickstart.sh"], cwd=REPOSITORY,
                            capture_output=True, text=True, check=False).stdout.split()
    return [os.path.join(REPOSITORY, name) for name in listed or ["README.md"]]


def commands_in(text):
    """Lines that call nibble, as words; prompts, variables before it and comments are cut off."""
    for line in text.splitlines():
        found = re.match(r"^\s*(?:run |\$ )?(?:[A-Z_]+=\S+ )*nibble ([a-z].*)$", line)
        if not found:
            continue
        words = re.split(r" +#| *[|>&]", found.group(1))[0]
        try:
            yield line, shlex.split(words)
        except ValueError:
            continue


class DocumentationTest(Case):
    def setUp(self):
        super().setUp()
        self.pages = {name: nibble(*name.split(), "--help").out for name in COMMANDS}

    def check(self, where, line, words):
        name = " ".join(words[:2]) if words[0] == "bench" else words[0]
        self.assertIn(name, self.pages, f"{where}: {line}")
        for word in words:
            if word.startswith("--") and word not in ("--help", "--"):
                flag = word.split("=")[0]
                self.assertRegex(self.pages[name], rf"\n  {flag}[ \n]", f"{where}: {line}")

    def test_examples_of_the_help_pages(self):
        for name, page in self.pages.items():
            found = list(commands_in(page.split("Examples\n")[1].split("\n\n")[0]))
            self.assertTrue(found, name)
            for line, words in found:
                self.check(f"nibble {name} --help", line, words)

    def test_commands_of_the_documents(self):
        for document in documents():
            with open(document, encoding="utf-8") as file:
                for line, words in commands_in(file.read()):
                    self.check(document, line, words)

    def test_scripts_of_the_readme(self):
        with open(os.path.join(REPOSITORY, "README.md"), encoding="utf-8") as file:
            text = file.read()
        for script in set(re.findall(r"\b(?:deploy|tests)/[a-z_]+\.sh\b", text)):
            path = os.path.join(REPOSITORY, script)
            self.assertTrue(os.access(path, os.X_OK), script)

    def test_gauges_of_the_inference_gateway(self):
        """The three that its endpoint picker asks for, by the names that our example gives it."""
        with open(os.path.join(REPOSITORY, "deploy", "inference_gateway.yaml"),
                  encoding="utf-8") as file:
            text = file.read()
        specs = dict(re.findall(r'^ *(\w+Spec): "(.*)"$', text, re.MULTILINE))
        self.assertEqual(set(specs), {"queuedRequestsSpec", "runningRequestsSpec", "kvUsageSpec"})
        flags = dict(re.findall(r"--(total-\w+-requests|kv-cache-usage-percentage)-metric=(\S+)", text))
        self.assertEqual(flags, {"total-queued-requests": specs["queuedRequestsSpec"],
                                 "total-running-requests": specs["runningRequestsSpec"],
                                 "kv-cache-usage-percentage": specs["kvUsageSpec"]})
        with Daemon("--vram-budget", "64MiB", "--staging", "4MiB") as daemon:
            self.assert_done(daemon.load("qwen", DEMO))
            metrics = daemon.get("/metrics")
            for spec in specs.values():
                name, model = re.fullmatch(r"(\w+)\{model=(\w+)\}", spec).groups()
                self.assertIn(f"# TYPE {name} gauge", metrics)
                self.assertEqual(daemon.metric(name, f'model="{model}"'), 0)


if __name__ == "__main__":
    sys.exit(main())
