"""warmfork status, over a board that a test program writes."""

import json
import os
import re
import subprocess
import unittest

from support import TestCase

CLI = os.environ["WARMFORK_CLI"]
WRITER = os.environ.get("WARMFORK_BOARD_WRITER")  # of a build of the tests, beside the command line there

needs_writer = unittest.skipUnless(WRITER, "WARMFORK_BOARD_WRITER does not name the program that writes boards")

NO_DAEMON = 3


class Board:
    """A board of its own name; takes the lines that board_writer.cpp understands."""

    made = 0

    def __init__(self, test, name=None):
        Board.made += 1
        self.name = name or f"test-{os.getpid()}-{Board.made}"
        self.process = subprocess.Popen(
            [WRITER, self.name], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1
        )
        test.addCleanup(self.close)
        test.assertEqual(self.process.stdout.readline(), "0\n")

    def write(self, text):
        for line in text.strip().splitlines():
            self.process.stdin.write(line.strip() + "\n")
            self.process.stdout.readline()

    def close(self):
        if self.process.stdin.closed:
            return
        self.process.stdin.close()
        self.process.wait()
        self.process.stdout.close()

    def kill(self):
        self.process.kill()
        self.close()


def run(*args, **options):
    return subprocess.run([CLI, *args], capture_output=True, text=True, **options)


def parse_metrics(text):
    """{name: {labels: value}} and {name: type}; what is not the format raises."""
    values, types, helped = {}, {}, set()
    for line in text.splitlines():
        if line.startswith("# HELP "):
            helped.add(line.split(" ", 3)[2])
        elif line.startswith("# TYPE "):
            _, _, name, kind = line.split(" ")
            assert name in helped and name not in types, line
            types[name] = kind
        else:
            match = re.fullmatch(r'([a-z_]+)(?:\{((?:[a-z]+="(?:[^"\\\n]|\\["\\n])*",?)*)\})? (\S+)', line)
            assert match, line
            name, labels, value = match.groups()
            base = re.sub("_(bucket|sum|count)$", "", name)
            assert name in types or types.get(base) == "histogram", line
            found = re.findall(r'([a-z]+)="((?:[^"\\]|\\.)*)"', labels or "")
            unescape = {"\\\\": "\\", '\\"': '"', "\\n": "\n"}
            key = tuple((label, re.sub(r"\\.", lambda part: unescape[part[0]], text)) for label, text in found)
            assert key not in values.setdefault(name, {}), line
            values[name][key] = float(value)
    return values, types


def fill(board):
    board.write(
        """
        template num
        state num ready
        image num 4711 2 812
        population num 4 2 3
        memory num 63000 31000
        spawn num 61 900
        spawn num 5000 100
        cold num stale
        cold num environment
        cold num environment
        template broken
        failing broken 3600000 ModuleNotFoundError: No module named 'nunpy'
        client 815 1000 pytest 3 2 41 5242880 2500000
        client 900 1001 make 0 0 0 0 0
        children 3
        """
    )


@needs_writer
class Status(TestCase):
    def test_people_see_daemon_templates_and_clients(self):
        board = Board(self)
        fill(board)
        done = run("status", board.name)
        self.assertEqual((done.returncode, done.stderr), (0, ""))
        lines = done.stdout.splitlines()
        self.assertRegex(lines[0], rf"^warmforkd \S+, pid {board.process.pid}, up \d+ s$")
        self.assertEqual(
            lines[1], "clients 2, children 3, warm spawns 1000, cold 3: environment 2, stale 1"
        )
        rows = {line.split()[0]: line.split() for line in lines[2:] if line.strip()}
        self.assertEqual(
            rows["num"][1:12],
            ["ready", "4711", "2", "4", "2", "3", "1000", "3", "1", "812", "ms"],
        )
        self.assertEqual(rows["num"][-4:], ["61.5", "MB", "30.3", "MB"])
        self.assertEqual(rows["broken"][1:3], ["failing", "-"])
        self.assertRegex(done.stdout, r"retry in \d+ \w+.*: ModuleNotFoundError: No module named 'nunpy'")
        self.assertEqual(rows["815"], ["815", "1000", "pytest", "3", "2", "41", "5.0", "MB", "2.5", "s"])
        self.assertEqual(rows["900"][-1], "-")
        self.assertNotIn("\x1b", done.stdout)

    def test_json_has_every_field(self):
        board = Board(self)
        fill(board)
        status = json.loads(run("status", "--json", board.name).stdout)
        uptime = status.pop("uptime_seconds")
        self.assertGreater(uptime, 0)
        broken, num = status.pop("templates")
        self.assertEqual(
            status,
            {
                "running": True,
                "pid": board.process.pid,
                "socket": None,
                "version": status["version"],
                "clients_connected": 2,
                "children": 3,
                "spawns": 1000,
                "cold": {"total": 3, "reasons": {"stale": 1, "environment": 2}},
                "clients": [
                    dict(pid=815, uid=1000, command="pytest", children=3, leases=2, spawns=41, memory_bytes=5242880,
                         cpu_us=2500000),
                    dict(pid=900, uid=1001, command="make", children=0, leases=0, spawns=0, memory_bytes=None,
                         cpu_us=None),
                ],
                "not_shown": {"templates": 0, "clients": 0, "being_written": 0},
            },
        )
        latency = num.pop("latency_us")
        self.assertEqual((latency["count"], latency["sum"]), (1000, 61 * 900 + 5000 * 100))
        for part, exact in (("p50", 61), ("p90", 61), ("p99", 5000)):
            self.assertLessEqual(abs(latency[part] - exact), exact / 10)
        self.assertEqual(
            num,
            dict(
                name="num", extends=None, state="ready", pid=4711, images=2, spares=4, leased=2, children=3, spawns=1000,
                cold={"total": 3, "reasons": {"stale": 1, "environment": 2}}, starts=1, preload_ms=812,
                resident_kb=63000, proportional_kb=31000, retry_ms=None, error=None,
            ),
        )  # fmt: skip
        self.assertEqual((broken["state"], broken["pid"], broken["resident_kb"]), ("failing", None, None))
        self.assertEqual(broken["error"], "ModuleNotFoundError: No module named 'nunpy'")
        self.assertGreater(broken["retry_ms"], 0)
        self.assertEqual(broken["latency_us"], dict(count=0, sum=0, p50=None, p90=None, p99=None))

    def test_metrics_are_what_prometheus_reads(self):
        board = Board(self)
        fill(board)
        values, types = parse_metrics(run("status", "--metrics", board.name).stdout)
        num = (("template", "num"),)
        self.assertEqual(values["warmfork_up"][()], 1)
        self.assertEqual(values["warmfork_spawns_total"][()], 1000)
        self.assertEqual(types["warmfork_spawns_total"], "counter")
        self.assertEqual(values["warmfork_template_spares"][num], 4)
        self.assertEqual(values["warmfork_template_resident_bytes"][num], 63000 * 1024)
        self.assertEqual(values["warmfork_template_preload_seconds"][num], 0.812)
        cold = values["warmfork_template_cold_spawns_total"]
        self.assertEqual(cold[(*num, ("reason", "environment"))], 2)
        self.assertEqual(cold[(*num, ("reason", "gate"))], 0)
        states = values["warmfork_template_state"]
        self.assertEqual([dict(key)["state"] for key in states if key[:1] == num and states[key]], ["ready"])

    def test_the_histogram_adds_up(self):
        board = Board(self)
        board.write("template num\nspawn num 15 1\nspawn num 16 2\nspawn num 63 4\nspawn num 99000000 8")
        values, types = parse_metrics(run("status", "--metrics", board.name).stdout)
        name = "warmfork_template_spawn_latency_seconds"
        self.assertEqual(types[name], "histogram")
        buckets = [(dict(key)["le"], value) for key, value in values[name + "_bucket"].items()]
        self.assertEqual(buckets[:3], [("1.6e-05", 1), ("3.2e-05", 3), ("6.4e-05", 7)])
        self.assertEqual(buckets[-2:], [("16.777216", 7), ("+Inf", 15)])
        self.assertEqual([value for _, value in buckets], sorted(value for _, value in buckets))
        self.assertEqual(list(values[name + "_count"].values()), [15])
        self.assertAlmostEqual(*values[name + "_sum"].values(), (15 + 32 + 252 + 8 * 99000000) / 1e6)

    def test_names_of_any_characters_come_through(self):
        name = 'a "b" \\ c\u00e9'
        board = Board(self)
        board.write(f"template x {name}\nfailing x 1000 \x1b[31mred")
        status = json.loads(run("status", "--json", board.name).stdout)
        self.assertEqual(status["templates"][0]["name"], name)
        self.assertEqual(status["templates"][0]["error"], " [31mred")
        values, _ = parse_metrics(run("status", "--metrics", board.name).stdout)
        self.assertIn((("template", name),), values["warmfork_template_spares"])
        self.assertNotIn("\x1b", run("status", board.name).stdout)

    def test_no_daemon_is_status_3_in_every_form(self):
        board = Board(self)
        board.kill()
        self.addCleanup(os.unlink, f"/dev/shm/warmfork-{os.geteuid()}-{board.name}")
        for name, said in (("test-nobody", "is running"), (board.name, "was killed")):
            done = run("status", name)
            self.assertEqual((done.returncode, done.stdout), (NO_DAEMON, ""))
            self.assertIn(said, done.stderr)
            done = run("status", "--json", name)
            self.assertEqual((done.returncode, json.loads(done.stdout)["running"]), (NO_DAEMON, False))
            done = run("status", "--metrics", name)
            self.assertEqual(done.returncode, NO_DAEMON)
            self.assertEqual(parse_metrics(done.stdout)[0], {"warmfork_up": {(): 0}})
            self.assertEqual(run("top", name).returncode, NO_DAEMON)

    def test_a_name_or_user_that_cannot_be_is_said(self):
        done = run("status", "a/b")
        self.assertEqual(done.returncode, 1)
        self.assertIn("a/b", done.stderr)
        done = run("status", "--user", "no-such-user")
        self.assertEqual((done.returncode, done.stderr), (1, "warmfork: no such user: no-such-user\n"))

    def test_a_user_can_be_named_or_numbered(self):
        board = Board(self)
        self.assertEqual(run("status", "--user", str(os.geteuid()), board.name).returncode, 0)
        self.assertEqual(run("status", "--user", "4000000000", board.name).returncode, NO_DAEMON)

    def test_a_status_that_cannot_be_written_is_an_error(self):
        board = Board(self)
        with open("/dev/full", "w") as full:
            done = subprocess.run([CLI, "status", board.name], stdout=full, stderr=subprocess.PIPE)
        self.assertEqual(done.returncode, 1)


@needs_writer
class OfASocket(TestCase):
    """Without a name it is the service that clients of this environment find."""

    def board(self, socket):
        board = Board(self)
        board.write(f"socket {socket}\ntemplate num")
        return board

    def status(self, *options, socket, verb="status"):
        environment = {**os.environ, "WARMFORK_SOCKET": socket}
        return run(verb, *options, env=environment)

    def test_it_is_found_among_others_by_its_socket(self):
        folder = self.folder({"socket": "", "other": ""})
        path = os.path.join(folder, "socket")
        self.board(os.path.join(folder, "other"))
        board = self.board(path)
        status = json.loads(self.status("--json", socket=path).stdout)
        self.assertEqual((status["pid"], status["socket"]), (board.process.pid, path))
        for verb in ("status", "top"):
            done = self.status(verb=verb, socket=path)
            self.assertRegex(done.stdout, rf"^warmforkd \S+, pid {board.process.pid}, up \d+ s, on {path}\n")

    def test_another_path_to_the_same_socket_will_do(self):
        folder = self.folder({"socket": ""})
        os.symlink(folder, os.path.join(folder, "link"))
        board = self.board(os.path.join(folder, "socket"))
        status = json.loads(self.status("--json", socket=os.path.join(folder, "link", "socket")).stdout)
        self.assertEqual(status["pid"], board.process.pid)

    def test_by_default_it_lies_in_the_runtime_directory(self):
        folder = self.folder({"warmfork/socket": ""})
        board = self.board(os.path.join(folder, "warmfork/socket"))
        environment = {name: value for name, value in os.environ.items() if name != "WARMFORK_SOCKET"}
        done = run("status", env={**environment, "XDG_RUNTIME_DIR": folder})
        self.assertIn(f"pid {board.process.pid},", done.stdout)

    def test_where_none_serves_it_no_other_is_shown(self):
        folder = self.folder({"other": ""})
        other = os.path.join(folder, "other")
        self.board(other)
        done = self.status(socket=os.path.join(folder, "socket"))
        self.assertEqual((done.returncode, done.stdout), (NO_DAEMON, ""))
        self.assertIn(f"serves {folder}/socket", done.stderr)
        self.assertIn(other, done.stderr)
        self.assertEqual(self.status("--metrics", socket=f"{folder}/socket").stdout.splitlines()[-1], "warmfork_up 0")

    def test_a_name_is_asked_for_whatever_the_environment_says(self):
        board = self.board("/no/such/socket")
        self.assertIn(f"pid {board.process.pid},", self.status(board.name, socket="/another/socket").stdout)


if __name__ == "__main__":
    unittest.main()
