"""From the edit of a module until children are warm again: the module on top of a base, against one preload of
both. In rounds, each with a service of its own, so that nothing is put off for having happened just before.

    PYTHONPATH=build/python python3 bench/layers.py [ROUNDS]
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time

import warmfork

WARMFORKD = os.path.join(os.path.dirname(warmfork.__file__), "_libexec", "warmforkd")
BASE = [
    "numpy", "json", "asyncio", "http.client", "email.message", "logging.config", "xml.dom.minidom", "sqlite3",
    "unittest", "decimal", "argparse", "concurrent.futures", "urllib.request",
]
EDITED = "import {modules}\nVERSION = {version}\n"


def write(path, text):
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "w") as file:
        file.write(text)


def version(template):
    done = template.run(
        [sys.executable, "-c", "import edited; print(edited.VERSION)"], capture_output=True, backend="warm"
    )
    return int(done.stdout)


def is_warm(template):
    """As a program that waits for the new image sees it."""
    with template.popen([sys.executable, "-c", ""], backend="warm") as child:
        return child.wait() == 0


def round_of(folder, number, seconds):
    modules = os.path.join(folder, "modules", "edited.py")
    write(modules, EDITED.format(modules="fractions, csv", version=2 * number))
    for name, keys in (
        ("base", {"python": sys.executable, "cwd": os.path.dirname(modules), "preload": BASE}),
        ("layer", {"extends": "base", "preload": ["edited"]}),
        ("whole", {"python": sys.executable, "cwd": os.path.dirname(modules), "preload": [*BASE, "edited"]}),
    ):
        text = "".join(f"{key} = {json.dumps(value)}\n" for key, value in keys.items())
        write(f"{folder}/config/templates.d/{name}.toml", text)
    # One at a time: the other's preload would be measured too.
    for name in ("layer", "whole") if number % 2 else ("whole", "layer"):
        service = subprocess.Popen(
            [WARMFORKD, "--config", f"{folder}/config", "--socket", os.environ["WARMFORK_SOCKET"]], stderr=subprocess.DEVNULL
        )
        while not os.path.exists(os.environ["WARMFORK_SOCKET"]):
            time.sleep(0.01)
        with warmfork.Template(name) as template:
            before = version(template)
            time.sleep(1.5)  # until it is calm
            began = time.perf_counter()
            write(modules, EDITED.format(modules="fractions, csv", version=before + 1))
            is_warm(template)
            seconds[name].append(time.perf_counter() - began)
            assert version(template) == before + 1
        service.terminate()
        service.wait()


def main():
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 10
    seconds = {"layer": [], "whole": []}
    with tempfile.TemporaryDirectory() as folder:
        os.environ["WARMFORK_SOCKET"] = os.path.join(folder, "socket")
        for number in range(rounds):
            round_of(folder, number, seconds)
    for name, times in seconds.items():
        print(f"{name}: median {statistics.median(times) * 1e3:.0f} ms of {[round(t * 1e3) for t in times]}")
    print(f"whole / layer: {statistics.median(seconds['whole']) / statistics.median(seconds['layer']):.1f}")


if __name__ == "__main__":
    main()
