"""Owners of green threads: gevent's and eventlet's. Each program patches its process first, as they ask for."""

import os
import subprocess
import unittest

from support import PYTHON, TestCase

PATCHES = {
    "gevent": "import gevent.monkey; gevent.monkey.patch_all(); import gevent; go, sleep = gevent.spawn, gevent.sleep",
    "eventlet": "import eventlet; eventlet.monkey_patch(); go, sleep = eventlet.spawn, eventlet.sleep",
}

# released(f) calls f, whose children end when another green thread has run: each reads a byte from the pipe first.
COMMON = """
import os, subprocess, sys, warmfork, warmfork.multiprocessing
from subprocess import PIPE
def released(function, children=1):
    def release():
        sleep(0.01)
        os.write(write_end, b"x" * children)
    go(release)
    return function()
"""

POPEN = """
read_end, write_end = os.pipe()
AWAIT = f"import os, sys; os.read({read_end}, 1); "
def python(text):
    return [sys.executable, "-c", text]
def check(backend):
    start = lambda text, **options: template.popen(python(text), backend=backend, pass_fds=[read_end], **options)
    with start(AWAIT + "sys.exit(3)") as child:
        assert (released(child.wait), child.backend) == (3, backend)
        assert isinstance(child, subprocess.Popen)
    assert released(lambda: start(AWAIT + "sys.exit(3)").wait(60)) == 3
    child = start(AWAIT)
    try:
        child.wait(0.05)
    except subprocess.TimeoutExpired:
        child.kill()
    assert child.wait() == -9
    # Of one stream and of three, and what the application reads itself.
    assert released(start(AWAIT + "print('ä')", stdout=PIPE, encoding="utf-8").communicate) == ("ä\\n", None)
    child = start(AWAIT + "print(len(sys.stdin.read()))", stdin=PIPE, stdout=PIPE, stderr=PIPE)
    assert released(lambda: child.communicate(b"x" * 300000)) == (b"300000\\n", b"")
    child = start(AWAIT + "print(1)", stdout=PIPE, bufsize=0)
    assert (released(child.stdout.read), child.wait()) == (b"1\\n", 0)
    child.stdout.close()
    options = {"backend": backend, "pass_fds": [read_end], "capture_output": True, "timeout": 60}
    done = released(lambda: template.run(python(AWAIT + "print(2)"), **options))
    assert (done.returncode, done.stdout) == (0, b"2\\n")
    child = start("raise SystemExit(4)")
    while child.poll() is None:
        pass
    assert child.returncode == 4
    child, found = start(AWAIT + "sys.exit(5)"), []
    for _ in range(3):
        go(lambda: found.append(child.wait()))
    os.write(write_end, b"x")
    while len(found) < 3:
        sleep(0.001)
    assert found == [5, 5, 5]

with warmfork.Template(["json"]) as template:
    template.run(python("pass"))  # the first image is awaited
    check("warm")
    check("cold")
    child = template.popen(f"read -r _ <&{read_end}; exit 6", shell=True, pass_fds=[read_end])
    os.write(write_end, b"\\n")
    assert child.wait() == 6
    # One that has ended long before anybody asks, while others of the process end and are reaped.
    child = template.popen(python("import sys; sys.exit(7)"))
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    assert subprocess.call(python("pass")) == 0
    for _ in range(10):
        sleep(0.001)
    assert child.wait() == 7
    # One whose status another wait has taken: said, and not awaited for ever.
    child = template.popen(python("pass"))
    while os.waitid(os.P_PID, child.pid, os.WEXITED) is None:
        pass
    try:
        child.wait()
    except ChildProcessError:
        print("done")
"""

# A child that is another user's than its owner, as after sudo.
OTHERS = """
read_end, write_end = os.pipe()
program = f"import os; os.read({read_end}, 1); raise SystemExit(3)"
with warmfork.Template(["json"]) as template:
    child = template.popen([sys.executable, "-c", program], pass_fds=[read_end], backend="cold")
    os.setresuid(65534, 65534, 0)
    assert child.poll() is None
    os.write(write_end, b"x")
    assert child.wait() == 3
    os.setresuid(0, 0, 0)
print("done")
"""

# What else gevent's own Popen does.
GEVENT = """
from gevent.fileobject import FileObject
def check(backend):
    def start(text):
        return template.popen(python(text), backend=backend)
    children = [start("raise SystemExit(3)"), start("raise SystemExit(4)")]
    assert set(gevent.wait(children, timeout=60)) == set(children)
    assert [child.returncode for child in children] == [3, 4]
    seen = gevent.event.Event()
    child = start("raise SystemExit(5)")
    child.rawlink(lambda ended: seen.set() if ended is child else None)
    assert seen.wait(60) and child.result.get() == 5
    # A pipe that one of its files has made non-blocking.
    read_end, write_end = os.pipe()
    with FileObject(read_end, "rb") as reader, FileObject(write_end, "wb", 0) as writer:
        for stream in (reader, writer):
            assert not os.get_blocking(stream.fileno())
        show = python("import os; raise SystemExit(os.get_blocking(0) + 2 * os.get_blocking(1) + 4 * os.get_blocking(2))")
        streams = {"stdin": reader, "stdout": writer, "stderr": writer, "backend": backend}
        assert template.popen(show, **streams).wait() == 7
        os.set_blocking(reader.fileno(), False)
        with template.popen("read -r line; echo $line", shell=True, stdin=reader, stdout=PIPE, backend="cold") as child:
            gevent.sleep(0.01)
            writer.write(b"x\\n")
            assert child.stdout.read() == b"x\\n"

check("warm")
check("cold")
template.close()
print("done")
"""

CONTEXTS = """
from concurrent.futures import ProcessPoolExecutor
def leave(pipe):
    os.read(pipe.fileno(), 1)
    os._exit(3)
def keep(pipe):
    global kept
    kept = pipe
def negative(number):
    os.read(kept.fileno(), 1)
    return -number
if __name__ == "__main__":
    context = warmfork.get_context(["json"])
    pipe, end = context.Pipe(duplex=False)
    write_end = end.fileno()
    for timeout in (None, 60):
        child = context.Process(target=leave, args=(pipe,))
        child.start()
        released(lambda: child.join(timeout))
        assert (child.exitcode, child.backend) == (3, os.environ["EXPECTED"]), child.reason
    with context.Pool(2, keep, (pipe,)) as pool:
        assert released(lambda: pool.map(negative, range(3)), 3) == [0, -1, -2]
    with ProcessPoolExecutor(2, context, keep, (pipe,)) as executor:
        assert released(lambda: list(executor.map(negative, range(3))), 3) == [0, -1, -2]
    print("done")
"""


class GreenThreads(TestCase):
    def run_in(self, library, text, **environment):
        if subprocess.run([PYTHON, "-c", f"import {library}"], stderr=subprocess.DEVNULL).returncode:
            self.skipTest(f"{library} is not installed")
        folder = self.folder({"program.py": text})
        done = subprocess.run(
            [PYTHON, "program.py"], cwd=folder, capture_output=True, text=True, timeout=300,
            env={**os.environ, **environment},
        )
        self.assertEqual((done.returncode, done.stdout), (0, "done\n"), done.stderr)

    def test_spawns_in_gevent(self):
        self.run_in("gevent", PATCHES["gevent"] + COMMON + POPEN)

    def test_another_users_child_is_waited_for_in_gevent(self):
        if os.geteuid() != 0:
            self.skipTest("it takes another user")
        self.run_in("gevent", PATCHES["gevent"] + COMMON + OTHERS)

    def test_what_gevents_own_popen_has_besides(self):
        begin = "import gevent.event; template = warmfork.Template(['json']); template.wait_ready()\n"
        python = "def python(text):\n    return [sys.executable, '-c', text]\n"
        self.run_in("gevent", PATCHES["gevent"] + COMMON + begin + python + GEVENT)

    def test_spawns_in_eventlet(self):
        self.run_in("eventlet", PATCHES["eventlet"] + COMMON + POPEN)

    # The main module is imported in children too: there nothing is to be patched, or they are cold.

    def test_contexts_in_gevent(self):
        for backend in ("warm", "cold"):
            with self.subTest(backend):
                self.run_in(
                    "gevent", f"if __name__ == '__main__':\n    {PATCHES['gevent']}\n" + COMMON + CONTEXTS,
                    WARMFORK_BACKEND=backend, EXPECTED=backend,
                )

    def test_contexts_in_eventlet(self):
        for backend in ("warm", "cold"):
            with self.subTest(backend):
                self.run_in(
                    "eventlet", f"if __name__ == '__main__':\n    {PATCHES['eventlet']}\n" + COMMON + CONTEXTS,
                    WARMFORK_BACKEND=backend, EXPECTED=backend,
                )


if __name__ == "__main__":
    unittest.main()
