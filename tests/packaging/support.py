"""What the tests of the packaging share: where things are, and what the commands say of themselves."""

import os
import re
import subprocess

BUILD = os.environ["WARMFORK_BUILD"]
SOURCE = os.environ["WARMFORK_SOURCE"]
CLI = os.path.join(BUILD, "bin", "warmfork")
PYTHON = "/usr/bin/python3"


def environment(**changes):
    """Without what the tests were started with: it must not help what is tested."""
    kept = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "WARMFORK_CLI")}
    return {**kept, "PATH": "/usr/bin:/bin", **changes}


def run(command, env=None, **options):
    """Standard output; an error with all that was said if it fails."""
    done = subprocess.run(command, capture_output=True, text=True, env=environment(**(env or {})), **options)
    if done.returncode:
        raise AssertionError(f"{command} ended with {done.returncode}: {done.stdout}{done.stderr}")
    return done.stdout


def find(root, name):
    return next(os.path.join(folder, name) for folder, folders, files in os.walk(root) if name in folders + files)


def _help(*command):
    return run([CLI, *command, "--help"])


def _subcommands(text):
    listed = text.partition("Subcommands:")[2].partition("\n\n")[0]
    return re.findall(r"^  ([a-z-]+) ", listed, re.M)


def commands():
    """{"run": {"--preload", ...}, "bench serial": ..., "": ...}: each command with the options of its --help."""
    found = {}

    def add(*command):
        text = _help(*command)
        found[" ".join(command)] = set(re.findall(r"^(?: +(?:-\w, ?)?|(?=--python FILE))(--[a-z-]+)", text, re.M))
        for name in _subcommands(text):
            add(*command, name)

    add()
    kinds = re.search(r"\{([a-z,]+)\}", _help("bench"))[1].split(",")
    for kind in kinds:
        add("bench", kind)
    return found
