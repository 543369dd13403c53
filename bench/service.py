"""`warmfork bench service`: commands and spawns through a service of this benchmark's own, beside a cold start."""

import argparse
import json
import os
import random
import signal
import socket
import subprocess
import sys
import tempfile

import warmfork

from . import common
from .common import now

ROWS = (
    ("command-cold", "python3 -c 'import numpy', from start to end"),
    ("command-warm", "warmfork run -t NAME -- python3 -c 'import numpy', from start to end"),
    ("true", "/bin/true, from start to end"),
    ("client", "the client program alone: until it has asked the service"),
    ("embedded", "Popen of an embedded template, until the first line runs in the child"),
    ("service", "Popen of the service's template, until the first line runs in the child"),
)

NAME = "bench"
PACKAGE = os.path.dirname(warmfork.__file__)


class Service:
    """A warmforkd with one template, in a directory of its own. It listens already: a client that found nobody
    would start another."""

    def __init__(self, keys, environment=os.environ):
        """keys: of the template's file, besides the interpreter."""
        self._folder = tempfile.TemporaryDirectory(prefix="warmfork-bench-")
        templates = os.path.join(self._folder.name, "templates.d")
        os.mkdir(templates)
        with open(os.path.join(templates, f"{NAME}.toml"), "w") as file:
            for key, value in {"python": sys.executable, **keys}.items():
                file.write(f"{key} = {json.dumps(value)}\n")
        self.address = os.path.join(self._folder.name, "socket")
        log = os.path.join(self._folder.name, "log")
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notifications:
            notifications.bind("")
            notifications.settimeout(60)
            name = notifications.getsockname().decode().replace("\0", "@", 1)
            with open(log, "w") as output:
                self._process = subprocess.Popen(
                    [os.path.join(PACKAGE, "_libexec", "warmforkd"), "--config", self._folder.name, "--socket",
                     self.address, "--instance", f"bench-{os.getpid()}"],
                    env={**environment, "NOTIFY_SOCKET": name}, stderr=output,
                )
            try:
                while b"READY=1" not in notifications.recv(4096):
                    pass
            except TimeoutError:
                with open(log) as output:
                    said = output.read()
                self.close()
                raise SystemExit(f"warmfork bench: the service did not start within 60 s\n{said}")

    def close(self):
        self._process.send_signal(signal.SIGTERM)
        self._process.wait()
        self._folder.cleanup()


class Measurements:
    def __init__(self, preload, cli, service):
        self._cli = cli
        self._environment = {**os.environ, "WARMFORK_SOCKET": service.address}
        os.environ["WARMFORK_SOCKET"] = service.address
        self._embedded = warmfork.Template(preload, backend="warm")
        self._served = warmfork.Template(NAME, backend="warm")
        self._import = [sys.executable, "-c", f"import {preload[0]}"]
        self._deaf = os.path.join(os.path.dirname(service.address), "deaf")
        self._listening = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._listening.bind(self._deaf)
        self._listening.listen(1)

    def close(self):
        self._embedded.close()
        self._served.close()
        self._listening.close()

    def _until_end(self, command, environment):
        called = now()
        status = os.waitpid(os.posix_spawn(command[0], command, environment), 0)[1]
        took = now() - called
        if status:
            raise SystemExit(f"warmfork bench: {command} ended with status {status:#x}")
        return took

    def command_cold(self):
        return self._until_end(self._import, os.environ)

    def command_warm(self):
        return self._until_end([self._cli, "run", "-t", NAME, "--backend", "warm", "--", *self._import],
                               self._environment)

    def true(self):
        return self._until_end(["/bin/true"], os.environ)

    def client(self):
        called = now()
        pid = os.posix_spawn(self._cli, [self._cli, "run", "-t", NAME, "--", *self._import],
                             {**os.environ, "WARMFORK_SOCKET": self._deaf})
        connection = self._listening.accept()[0]
        took = now() - called
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        connection.close()
        return took

    def _started(self, template):
        called = now()
        process = template.popen([sys.executable, "-c", common.MEASURED_PROGRAM], stdout=subprocess.PIPE)
        started = int(os.read(process.stdout.fileno(), 64))
        process.wait()
        process.stdout.close()
        return started - called

    def embedded(self):
        common.wait_for_spare(self._embedded)
        return self._started(self._embedded)

    def service(self):
        common.wait_for_spare(None)
        return self._started(self._served)


def measure(preload, cli, count):
    service = Service({"preload": preload})
    times = {row: [] for row, _ in ROWS}
    try:
        measurements = Measurements(preload, cli, service)
        methods = {row: getattr(measurements, row.replace("-", "_")) for row in times}
        for method in methods.values():
            method()  # once for whatever happens at a first time
        progress = common.Progress("service", count)
        order = list(times)
        for turn in range(count):
            random.Random(turn).shuffle(order)
            for row in order:
                common.wait_for_spare(None)
                times[row].append(methods[row]())
            progress.step()
        progress.close()
        measurements.close()
    finally:
        service.close()
    return {row: {**common.summary(values), "count": len(values)} for row, values in times.items()}


def print_report(result):
    rows, machine = result["rows"], result["machine"]

    def ratio(row, other):
        return rows[row]["p50"] / rows[other]["p50"]

    table = [[row] + [f"{rows[row][name]:,.0f}" for name in ("p50", "p90", "p99")] + [f"{text:<72}"]
             for row, text in ROWS]
    common.print_table(["row", "p50", "p90", "p99", f"{'microseconds of':<72}"], table, [
        "",
        f"command-warm / command-cold: {ratio('command-warm', 'command-cold'):.3f} (wanted: at most 1/6)",
        f"client / true: {ratio('client', 'true'):.2f} (wanted: at most 1.5)",
        f"service / embedded: {ratio('service', 'embedded'):.2f} (wanted: at most 2)",
        f"{machine['processors']} × {machine['processor']}, Linux {machine['kernel']}, "
        f"Python {machine['python']}; preload: {','.join(result['preload'])}",
    ])


def main(arguments=None):
    parser = argparse.ArgumentParser(prog="warmfork bench service", description=__doc__)
    parser.add_argument("--preload", default="numpy", metavar="M,...",
                        help="modules to preload; the commands import the first (default: numpy)")
    parser.add_argument("--count", type=int, default=200, help="of each kind (default: 200)")
    options = common.parse_for_commands(parser, arguments)
    preload = [name for name in options.preload.split(",") if name]
    result = {
        "rows": measure(preload, os.path.abspath(options.cli), options.count),
        "preload": preload,
        "machine": common.machine(),
    }
    if options.json:
        json.dump(result, sys.stdout, indent=1)
        print()
    else:
        print_report(result)
