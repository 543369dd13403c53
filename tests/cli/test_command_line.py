"""warmfork(1)."""

import importlib.util
import json
import os
import pty
import signal
import subprocess
import unittest

from support import CLI, PYTHON, TestCase, run


class Progress(TestCase):
    def test_a_person_at_a_terminal_is_told_what_is_preloaded(self):
        folder = self.folder({"slow.py": "open('gate').read()"})
        gate = os.path.join(folder, "gate")
        os.mkfifo(gate)
        terminal, theirs = pty.openpty()
        command = [CLI, "run", "--preload", "json,slow", "--", PYTHON, "-c", "print('done')"]
        with open(theirs, "wb") as error, open(terminal, "rb", buffering=0) as screen:
            process = subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, stderr=error)
            self.addCleanup(process.wait)
            self.addCleanup(process.kill)
            self.addCleanup(process.stdout.close)
            error.close()  # only the command holds it now: reading is an error when that has ended
            shown = b""
            while b"preloading 2/2 slow" not in shown:
                shown += screen.read(100)
            with open(gate, "w"):
                pass
            self.assertEqual(process.communicate()[0], b"done\n")

    def test_elsewhere_nothing_is_said(self):
        folder = self.folder({"broken.py": "raise ValueError('x')"})
        done = run("run", "--preload", "json,broken", "--", PYTHON, "-c", "pass", cwd=folder)
        self.assertEqual(done.returncode, 125)
        self.assertIn("ValueError: x", done.stderr)
        self.assertNotIn("\x1e", done.stderr)


class Run(TestCase):
    def test_streams_status_and_arguments_are_the_childs(self):
        program = "import sys; print(sys.argv, sys.stdin.read()); sys.exit(9)"
        done = run("run", "--preload", "json", "--", PYTHON, "-c", program, "--x", input="in")
        self.assertEqual((done.returncode, done.stdout, done.stderr), (9, "['-c', '--x'] in\n", ""))

    def test_it_dies_by_the_signal_that_ends_the_child(self):
        for number in (signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGSEGV, signal.SIGALRM, signal.SIGRTMIN):
            for options in ((), ("--backend", "cold")):
                text = f"import os, signal; signal.signal({number}, 0); os.kill(os.getpid(), {number})"
                if number == signal.SIGKILL:
                    text = "import os; os.kill(os.getpid(), 9)"
                done = run("run", *options, "--", PYTHON, "-c", text)
                self.assertEqual((done.returncode, done.stderr), (-number, ""))

    def test_it_dies_by_a_signal_also_where_it_ignores_this_one(self):
        text = "import os, signal; signal.signal(signal.SIGHUP, signal.SIG_DFL); os.kill(os.getpid(), signal.SIGHUP)"
        done = run("run", "--", PYTHON, "-c", text, preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN))
        self.assertEqual(done.returncode, -signal.SIGHUP)

    def test_signals_are_forwarded(self):
        program = (
            "import signal, sys; signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM}); "
            "print('ready', flush=True); signal.sigwait({signal.SIGTERM}); sys.exit(33)"
        )
        with subprocess.Popen([CLI, "run", "--", PYTHON, "-c", program], stdout=subprocess.PIPE) as process:
            process.stdout.readline()
            process.send_signal(signal.SIGTERM)
            self.assertEqual(process.wait(), 33)

    def test_backends_are_explained(self):
        done = run("run", "--explain", "--", PYTHON, "-c", "pass")
        self.assertEqual(done.stderr, "warmfork: served warm\n")
        done = run("run", "--explain", "--backend", "cold", "--", PYTHON, "-c", "pass")
        self.assertIn("served cold", done.stderr)
        done = run("run", "--backend", "warm", "--", PYTHON, "-v", "-c", "pass")
        self.assertEqual(done.returncode, 125)
        self.assertIn("-v", done.stderr)

    def test_programs_and_modules_that_do_not_exist(self):
        self.assertEqual(run("run", "--", "no-such-program").returncode, 127)
        self.assertEqual(run("run", "--", PYTHON, "/no/such.py").returncode, 2)
        done = run("run", "--preload", "no_such_module", "--", PYTHON, "-c", "pass")
        self.assertEqual(done.returncode, 125)
        self.assertIn("no_such_module", done.stderr)


class Explain(TestCase):
    def explain(self, *args, **options):
        return run("explain", "--preload", "json", *args, **options)

    def test_what_would_be_warm_and_what_not(self):
        done = self.explain("--", PYTHON, "-c", "print('never run')")
        self.assertEqual((done.returncode, done.stdout), (0, "warm\n"))
        done = self.explain("--", PYTHON, "-v", "-c", "pass")
        self.assertEqual(done.returncode, 2)
        self.assertIn("cold: the option -v", done.stdout)
        done = self.explain("--", PYTHON, "-OO", "-X", "dev", "-c", "pass")
        self.assertEqual((done.returncode, done.stdout), (0, "warm\n"))
        folder = self.folder({"json.py": "", "s.py": ""})
        done = self.explain("--json", "--", PYTHON, os.path.join(folder, "s.py"))
        self.assertEqual(json.loads(done.stdout)["reason_code"], "shadowed", done.stdout)

    def test_a_template_that_does_not_start(self):
        self.assertEqual(run("explain", "--preload", "no_such_module", "--", PYTHON, "x.py").returncode, 1)


class Doctor(TestCase):
    def test_report(self):
        done = run("doctor", "--python", PYTHON, "--preload", "json,csv")
        self.assertEqual(done.returncode, 0, done.stderr)
        for word in ("safe to fork", "mappings", "csv", "a child that does nothing"):
            self.assertIn(word, done.stdout)

    def test_json(self):
        report = json.loads(run("doctor", "--python", PYTHON, "--preload", "json", "--json").stdout)
        self.assertGreater(report["resident_kb"], 1000)
        for kind in ("warm", "cold"):
            self.assertGreater(report["child"][kind]["page_faults"], 0)
        failed = run("doctor", "--python", PYTHON, "--preload", "nope", "--json")
        self.assertEqual((failed.returncode, json.loads(failed.stdout)["stage"]), (1, "launch"))


class Profile(TestCase):
    def profile(self, *args):
        return run("profile", "--python", PYTHON, "--preload", "json,csv", *args)

    def test_a_tree_with_advice(self):
        done = self.profile()
        self.assertEqual(done.returncode, 0, done.stderr)
        for word in ("import json", "import csv", "a fork", "altogether"):
            self.assertIn(word, done.stdout)

    def test_json_and_a_flame_graph(self):
        import xml.etree.ElementTree

        file = os.path.join(self.folder({}), "graph.svg")
        done = self.profile("--json", "--svg", file)
        root = json.loads(done.stdout)
        self.assertEqual([node["module"] for node in root["imports"]], ["import json", "import csv"])
        self.assertIn("csv", [node["module"] for node in root["imports"][1]["imports"]])
        graph = xml.etree.ElementTree.parse(file).getroot()
        self.assertGreater(len(list(graph)), 1)  # what took the smallest part of it has no box

    def test_a_module_that_does_not_exist(self):
        done = run("profile", "--python", PYTHON, "--preload", "no_such_module")
        self.assertEqual(done.returncode, 1)
        self.assertIn("no_such_module", done.stderr)


class Bench(TestCase):
    def test_serial_json_has_every_row(self):
        done = run("bench", "--python", PYTHON, "serial", "--count", "1", "--preload", "json", "--json")
        self.assertEqual(done.returncode, 0, done.stderr)
        result = json.loads(done.stdout)
        self.assertEqual(
            set(result["rows"]),
            {"cold", "warm", "warm-spare", "mp-forkserver", "mp-fork", "mp-spawn", "os-fork",
             "os-fork-setup", "posix-spawn-true", "handoff-c", "handoff-image"},
        )
        for row in result["rows"].values():
            self.assertEqual(set(row["reaped_us"]), {"p50", "p90", "p99"})
        self.assertEqual(result["preload"], ["json"])
        self.assertIn("kernel", result["machine"])

    def test_a_plot_shows_every_row_that_was_measured(self):
        import xml.etree.ElementTree

        folder = self.folder({})
        measured, drawing = os.path.join(folder, "serial.json"), os.path.join(folder, "serial.svg")
        with open(measured, "w") as file:
            done = subprocess.run([CLI, "bench", "--python", PYTHON, "serial", "--count", "2", "--preload", "json",
                                   "--json"], stdout=file)
        self.assertEqual(done.returncode, 0)
        done = run("bench", "--python", PYTHON, "plot", measured, "--svg", drawing)
        self.assertEqual(done.returncode, 0, done.stderr)
        texts = [element.text for element in xml.etree.ElementTree.parse(drawing).iter() if element.text]
        for row in ("cold", "warm-spare", "mp-forkserver", "handoff-c"):
            self.assertIn(row, texts)

    def test_a_plot_of_something_else_is_refused(self):
        file = os.path.join(self.folder({"other.json": "[1]"}), "other.json")
        done = run("bench", "--python", PYTHON, "plot", file)
        self.assertEqual(done.returncode, 1)
        self.assertIn("other.json is not what", done.stderr)
        self.assertEqual(run("bench", "--python", PYTHON, "plot", "/no/such.json").returncode, 1)

    def test_life_json_has_every_row_and_can_be_drawn(self):
        file = os.path.join(self.folder({}), "life.json")
        done = run("bench", "--python", PYTHON, "life", "--count", "2", "--rounds", "1", "--preload", "json", "--json")
        self.assertEqual(done.returncode, 0, done.stderr)
        measured = json.loads(done.stdout)
        rows = measured["rows"]
        self.assertEqual(
            set(rows),
            {"os-fork", "cold-pass", "cold-imports", "first", "warm-pass", "warm-file", "warm-generator",
             "warm-finalizer", "warm-hung", "warm-thread", "mp-forkserver", "mp-fork", "mp-warmfork", "native", "cold-at-once",
             "warm-at-once", *(("idle-cold", "idle-warm") if importlib.util.find_spec("trio") else ())},
        )
        for name, row in rows.items():
            self.assertGreaterEqual(set(row), {"page_faults", "cpu_us", "wall_us"}, name)
        self.assertGreater(rows["warm-pass"]["spare_kb"], 0)
        # Of so few children the difference of two runs may be less than nothing, which no logarithm has.
        for row in rows.values():
            row["wall_us"] = {"p50": 1000, "samples": [1000.0]}
        with open(file, "w") as output:
            json.dump(measured, output)
        done = run("bench", "--python", PYTHON, "plot", file)
        self.assertEqual(done.returncode, 0, done.stderr)
        for name in rows:
            self.assertIn(f">{name}<", done.stdout)

    def test_concurrent_json(self):
        done = run("bench", "--python", PYTHON, "concurrent", "--count", "1", "--width", "3", "--preload", "json", "--json")
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertIn("warm-spare", json.loads(done.stdout)["rows"])

    def test_the_benchmark_of_multiprocessing_prints_its_ratios(self):
        options = ("--count", "1", "--width", "2", "--preload", "json")
        done = run("bench", "--python", PYTHON, "multiprocessing", *options)
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertEqual(done.stdout.count("wanted: at most"), 3)
        done = run("bench", "--python", PYTHON, "multiprocessing", *options, "--json")
        self.assertEqual(set(json.loads(done.stdout)["rows"]), {"warmfork", "forkserver"})

    def test_the_benchmark_of_the_service_prints_its_ratios(self):
        done = run("bench", "--python", PYTHON, "service", "--count", "1", "--preload", "json")
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertEqual(done.stdout.count("wanted: at most"), 3)

    def test_the_benchmark_of_commands_measures_what_is_installed(self):
        done = run("bench", "--python", PYTHON, "commands", "--only", "pip", "--count", "1", "--json")
        self.assertEqual(done.returncode, 0, done.stderr)
        result = json.loads(done.stdout)
        self.assertEqual({*result["rows"], *result["skipped"]}, {"pip"})
        for reason in result["skipped"].values():  # or it is a script of another interpreter
            self.assertRegex(reason, "is not installed|is not the template's program")
        for row in result["rows"].values():
            self.assertEqual(row["differences"], [])
            for kind in ("cold", "warm"):
                self.assertGreater(row[kind]["wall_us"], 0)
                self.assertGreater(row[kind]["page_faults"], 0)
        self.assertEqual(run("bench", "--python", PYTHON, "commands", "--only", "no-such").returncode, 2)

    def test_commands_differ_where_two_cold_ones_agree(self):
        from warmfork.bench.commands import differences

        cold = 0, b"a\nat 10:01\n", b"", {"x": b"1", "log": b"10:01"}
        other = 0, b"a\nat 10:02\n", b"", {"x": b"1", "log": b"10:02"}
        self.assertEqual(differences(cold, other, (0, b"a\nat 10:03\n", b"", {"x": b"1", "log": b"10:03"})), [])
        self.assertEqual(
            differences(cold, other, (1, b"b\nat 10:03\n", b"oh", {"x": b"2", "log": b"", "y": b""})),
            ["status 1 instead of 0", "output", "error output", "file y", "file x"],
        )


class Help(TestCase):
    def test_help_says_what_there_is(self):
        done = run("--help")
        self.assertEqual(done.returncode, 0)
        for word in ("run", "doctor", "bench", "Exit status"):
            self.assertIn(word, done.stdout)
        for command in (("bench",), ("bench", "serial"), ("profile",)):
            done = run(*command, "--help")
            self.assertEqual(done.returncode, 0, done.stderr)
            self.assertIn(f"usage: warmfork {' '.join(command)}", done.stdout)

    def test_a_wrong_command_line_ends_with_125(self):
        for line in ((), ("no-such-command",), ("run",), ("run", "--no-such-option", "--", "x"),
                     ("run", "--backend", "tepid", "--", "x")):
            self.assertEqual(run(*line).returncode, 125, line)


if __name__ == "__main__":
    unittest.main()
