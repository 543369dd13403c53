"""What of CPython's own tests passes with cold interpreters passes with warm ones.

Takes four minutes, and some of those tests depend on an idle machine: run with WARMFORK_TEST_CPYTHON=1."""

import importlib.util
import json
import os
import subprocess
import sys
import tempfile
import unittest

MODULES = ("test_cmd_line", "test_cmd_line_script", "test_runpy", "test_signal", "test_faulthandler", "test_atexit",
           "test_subprocess")
EXCEPTIONS = (
    # The salt of hash() is one image's: the documented exception.
    "test.test_cmd_line.CmdLineTest.test_hash_randomization",
    # A status that another wait has taken is not made up.
    "test.test_subprocess.POSIXProcessTestCase.test_send_signal_race",
    # No memory is to be had any more, and who notices that first is another one.
    "test.test_atexit.SubinterpreterTest.test_atexit_with_low_memory",
    # These put others in the place of what subprocess forks with.
    "test.test_subprocess.POSIXProcessTestCase.test_exception_errpipe_bad_data",
    "test.test_subprocess.POSIXProcessTestCase.test_exception_errpipe_normal",
    "test.test_subprocess.ProcessTestCase.test__use_vfork",
    "test.test_subprocess.ProcessTestCaseNoPoll.test__use_vfork",
    # Or with what it waits by from 3.15 on.
    "test.test_subprocess.FastWaitTestCase.test_pidfd_open_notification_without_immediate_reap",
    "test.test_subprocess.FastWaitTestCase.test_pidfd_open_race",
    "test.test_subprocess.FastWaitTestCase.test_wait_pidfd_open_error",
)
RUNNER = os.path.join(os.path.dirname(os.path.abspath(__file__)), "cpython_run.py")
DIRECTORY = tempfile.TemporaryDirectory()


def has_suite():
    try:
        return importlib.util.find_spec("test.test_cmd_line") is not None
    except ImportError:
        return False


def environment():
    return {name: value for name, value in os.environ.items() if name in ("PATH", "HOME", "LANG", "PYTHONPATH")}


def own_directory():
    """They make files where they run."""
    return tempfile.mkdtemp(dir=DIRECTORY.name)


def start(backend, times):
    command = [sys.executable, RUNNER, backend, str(times), *MODULES]
    return subprocess.Popen(command, stdout=subprocess.PIPE, env=environment(), cwd=own_directory())


@unittest.skipUnless(os.environ.get("WARMFORK_TEST_CPYTHON"), "WARMFORK_TEST_CPYTHON is not set")
@unittest.skipUnless(has_suite(), "CPython's own tests are not installed")
class CPython(unittest.TestCase):
    def test_what_passes_cold_passes_warm(self):
        # At once: they sleep most of the time.
        with start("cold", 1) as cold_run, start("warm", 2) as warm_run:
            (cold,), warm = json.load(cold_run.stdout), json.load(warm_run.stdout)
        passed = [test for test, (outcome, _) in cold["tests"].items() if outcome == "passed" and test not in EXCEPTIONS]
        self.assertGreater(len(passed), 100)
        for number, outcomes in enumerate(warm):
            for test in passed:
                with self.subTest(test, run=number):
                    self.assertEqual(outcomes["tests"][test][0], "passed", outcomes["tests"][test][1])
        served = warm[1]["interpreters"]
        print(f"second run: {served['warm']} warm, {served['cold']} cold", file=sys.stderr)
        self.assertGreaterEqual(served["warm"] / (served["warm"] + served["cold"]), 0.8, served)

    def test_multiprocessing_passes_what_passes_with_forkserver(self):
        runs = {}
        for method in ("forkserver", "warmfork"):
            runs[method] = subprocess.Popen(
                [sys.executable, os.path.join(os.path.dirname(RUNNER), "cpython_multiprocessing.py")],
                stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env={**environment(), "METHOD": method},
                cwd=own_directory(),
            )
        results = {}
        for method, process in runs.items():
            with process:
                results[method] = json.load(process.stdout)
        passed = [test for test, (outcome, _) in results["forkserver"]["tests"].items() if outcome == "passed"]
        self.assertGreater(len(passed), 200)
        for test in passed:
            with self.subTest(test):
                outcome = results["warmfork"]["tests"][test]
                self.assertIn(outcome[0], ("passed", "skipped"), outcome[1])
        processes = results["warmfork"]["processes"]
        print(f"multiprocessing: {processes}", file=sys.stderr)
        # The first are cold where they come before the template is ready.
        self.assertLessEqual(processes["cold"], max(2, sum(processes.values()) // 20), processes)


if __name__ == "__main__":
    unittest.main()
