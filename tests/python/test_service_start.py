"""A service that a client starts, or somebody by hand, goes on without what these hand down."""

import os
import signal
import subprocess
import unittest
import unittest.mock

from support import PYTHON, WARMFORKD
from test_service import Service

# A client that has changed what fork and exec hand down, as far as this machine lets it and anybody could take it back.
# It starts the service.
CHANGED_CLIENT = """
import ctypes, os, platform, signal, struct, sys
import warmfork
libc = ctypes.CDLL(None, use_errno=True)
is_x86 = platform.machine() == "x86_64"
prctl = lambda *args: libc.prctl(*map(ctypes.c_ulong, args))
def write(name, text):
    with open(f"/proc/self/{name}", "w") as file:
        file.write(text)
write("oom_score_adj", "500")
write("coredump_filter", "0x1")
prctl(29, 123456, 0, 0, 0)          # PR_SET_TIMERSLACK
prctl(41, 1, 0, 0, 0)               # PR_SET_THP_DISABLE
prctl(67, 1, 0, 0, 0)               # PR_SET_MEMORY_MERGE
prctl(33, 1, 1, 0, 0)               # PR_MCE_KILL, of this thread: early
prctl(57, 1, 0, 0, 0)               # PR_SET_IO_FLUSHER
prctl(28, 4, 0, 0, 0)               # PR_SET_SECUREBITS, without what exec takes root's capabilities for
for which, value in (0, 4), (1, 4), (2, 2):
    prctl(53, which, value, 0, 0)   # PR_SET_SPECULATION_CTRL
libc.personality(0x0200000)         # ADDR_COMPAT_LAYOUT
libc.syscall(251 if is_x86 else 30, 1, 0, 2 << 13 | 7)  # ioprio_set
libc.syscall(238 if is_x86 else 237, 1, ctypes.byref(ctypes.c_ulong(1)), 64)  # set_mempolicy
clamp = struct.pack("IIQiIQQQII", 56, os.SCHED_BATCH, 0x60, 0, 0, 0, 0, 0, 100, 900)
if libc.syscall(314 if is_x86 else 274, 0, clamp, 0):   # sched_setattr
    os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))
if os.geteuid() == 0:
    os.nice(-5)
keyctl = 250 if is_x86 else 219
libc.syscall(keyctl, 1, None)       # KEYCTL_JOIN_SESSION_KEYRING
libc.syscall(248 if is_x86 else 217, b"user", b"warmfork-test", b"secret", 6, -3)  # add_key
%s
"""

# Prints the secret of the client above, if it finds it.
FIND_KEY = """
import ctypes, platform
libc = ctypes.CDLL(None)
keyctl = 250 if platform.machine() == "x86_64" else 219
key = libc.syscall(keyctl, 10, -3, b"user", b"warmfork-test", 0)
text = ctypes.create_string_buffer(6)
print(text.raw if key > 0 and libc.syscall(keyctl, 11, key, text, 6) == 6 else "none")
"""


class Start(Service):
    def test_what_a_client_starts_serves_clients_that_have_changed_nothing(self):
        folder = self.path("home/warmfork/templates.d")
        os.makedirs(folder)
        os.rename(self.path("config/templates.d/num.toml"), folder + "/num.toml")
        start = "warmfork.Template('num').run([sys.executable, '-c', '']); " + FIND_KEY
        with unittest.mock.patch.dict(os.environ, XDG_CONFIG_HOME=self.path("home")):
            said = subprocess.run([PYTHON, "-c", CHANGED_CLIENT % start], text=True, capture_output=True)
        self.addCleanup(self.stop_unknown_service)
        self.assertIn(said.stdout, ("b'secret'\n", "none\n"), said.stderr)  # none: keyctl(2) is refused here
        pid = self.listening_pid()
        for name in ("oom_score_adj", "coredump_filter"):
            with open(f"/proc/{pid}/{name}") as its, open(f"/proc/1/{name}") as usual, open(f"/proc/self/{name}") as own:
                self.assertIn(its.read(), (usual.read(), own.read()), name)  # a session's own may be its lowest
        self.assertEqual(os.getpriority(os.PRIO_PROCESS, pid), 0)
        # All else is what the service compares.
        self.assertEqual(self.run_python(self.open(), FIND_KEY, backend="warm").stdout, "none\n")

    def test_a_service_that_is_started_by_hand_has_no_signals_from_there(self):
        self.addCleanup(self.stop_unknown_service)
        subprocess.run(
            [WARMFORKD, "--background", "--socket", os.environ["WARMFORK_SOCKET"], "--config", self.path("config")],
            check=True, preexec_fn=lambda: (signal.signal(signal.SIGCHLD, signal.SIG_IGN),
                                            signal.signal(signal.SIGHUP, signal.SIG_IGN),
                                            signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1})),
        )
        done = self.run_python(self.open(), "raise SystemExit(3)", backend="warm")
        self.assertEqual(done.returncode, 3)
        with open(f"/proc/{self.listening_pid()}/status") as status:
            fields = dict(line.split(":\t", 1) for line in status.read().splitlines())
        self.assertEqual(int(fields["SigIgn"], 16), 1 << signal.SIGPIPE - 1)
        self.assertFalse(int(fields["SigBlk"], 16) & 1 << signal.SIGUSR1 - 1)


if __name__ == "__main__":
    unittest.main()
