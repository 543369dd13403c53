"""Completions name all the commands and options there are. bash's is run; zsh's and fish's where they are installed."""

import os
import re
import shutil
import tempfile
import unittest

from support import SOURCE, commands, run

COMPLETIONS = f"{SOURCE}/packaging/completions"

# Completes the words given, as the shell would when Tab is pressed at the end of the last.
BASH = r"""
. /usr/share/bash-completion/bash_completion
. "$COMPLETIONS/warmfork.bash"
COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); COMP_LINE="$*"; COMP_POINT=${#COMP_LINE}
_warmfork
printf '%s\n' "${COMPREPLY[@]}"
"""


def complete(*words, folder=None):
    shown = run(["bash", "-c", BASH, "bash", "warmfork", *words], env={"COMPLETIONS": COMPLETIONS}, cwd=folder)
    return set(shown.split())


class Bash(unittest.TestCase):
    def test_commands_and_options_are_those_of_help(self):
        known = commands()
        self.assertLessEqual({name for name in known if name and " " not in name}, complete(""))
        for command, options in known.items():
            words = command.split()
            self.assertEqual(complete(*words, "--"), options, command)

    def test_values(self):
        self.assertEqual(complete("run", "--backend", ""), {"auto", "warm", "cold"})
        self.assertEqual(complete("bench", ""),
                         {"serial", "life", "concurrent", "resident", "multiprocessing", "service", "commands", "plot",
                          "--python", "--help"})
        self.assertEqual(complete("bench", "--python", "/usr/bin/python3", "res"), {"resident"})

    def test_files(self):
        with tempfile.TemporaryDirectory() as folder:
            for name in ("a.json", "b.txt", "c.svg"):
                open(os.path.join(folder, name), "w").close()
            self.assertEqual(complete("bench", "plot", "", folder=folder), {"a.json"})
            self.assertEqual(complete("profile", "--svg", "", folder=folder), {"c.svg"})

    def test_the_command_to_be_run_is_completed_as_itself(self):
        self.assertIn("cat", complete("run", "--preload", "json", "--", "ca"))
        self.assertNotIn("--preload", complete("run", "--", "ls", "--pre"))


class Zsh(unittest.TestCase):
    def test_it_names_all_that_there_is(self):
        with open(f"{COMPLETIONS}/_warmfork") as file:
            text = file.read()
        for command, options in commands().items():
            self.assertIn(command.split()[-1] if command else "", text)
            for option in options:
                self.assertIn(option, text)

    @unittest.skipUnless(shutil.which("zsh"), "zsh is not installed")
    def test_its_syntax(self):
        run(["zsh", "-n", f"{COMPLETIONS}/_warmfork"])


class Fish(unittest.TestCase):
    def test_it_names_all_that_there_is(self):
        with open(f"{COMPLETIONS}/warmfork.fish") as file:
            text = file.read()
        for command, options in commands().items():
            self.assertIn(command.split()[-1] if command else "", text)
            for option in options:
                self.assertIn(f"-l {option[2:]} ", text)

    @unittest.skipUnless(shutil.which("fish"), "fish is not installed")
    def test_it_completes_each_command_s_options(self):
        for command, options in commands().items():
            line = " ".join(("warmfork", *command.split(), "--"))
            with tempfile.TemporaryDirectory() as home:
                script = f"source {COMPLETIONS}/warmfork.fish; complete -C '{line}'"
                shown = run(["fish", "--no-config", "-c", script], env={"HOME": home})
            self.assertEqual(set(re.findall(r"^(--[a-z-]+)", shown, re.M)), options, command)


if __name__ == "__main__":
    unittest.main()
