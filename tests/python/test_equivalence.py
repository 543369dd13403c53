"""One behaviour a program, each run cold and warm with the same environment, directory and input: what it
writes, how it ends and what it sees of itself must be the same to the byte.

A child under `warm` is refused rather than served cold, so every one of these is warm."""

import os
import re
import shutil
import signal
import subprocess
import sys
import unittest

import warmfork
from support import PYTHON, TestCase, warm_only

VERSION = sys.version_info[:2]

# Programs for -c, by name.
TEXTS = {
    # What the program sees of its start.
    "argv": "import sys; print(sys.argv)",
    "orig_argv": "import sys; print(getattr(sys, 'orig_argv', None))",
    "flags": "import sys; print(sys.flags)",
    "path": "import sys; print(sys.path)",
    "executable": "import sys; print(sys.executable, sys._base_executable)",
    "prefixes": "import sys; print(sys.prefix, sys.exec_prefix, sys.base_prefix)",
    "xoptions": "import sys; print(sys._xoptions, sys.warnoptions)",
    "dont_write_bytecode": "import sys; print(sys.dont_write_bytecode, sys.pycache_prefix)",
    "main_globals": "print(sorted(globals()))",
    "main_values": "print(__name__, __spec__, __doc__, __package__, __loader__)",
    "main_annotations": "x: int = 1\nprint(__annotations__)",
    "main_is_main": "import sys; print(sys.modules['__main__'].__dict__ is globals())",
    "builtins": "import builtins; print(__builtins__ is builtins)",
    "frames_below": "import sys; print(sys._getframe().f_back, sys._getframe().f_code.co_name)",
    "frame_depth": "import inspect; print(len(inspect.stack()))",
    "recursion_depth": "def f(n):\n    try: return f(n + 1)\n    except RecursionError: return n\nprint(f(0))",
    "recursion_limit": "import sys; print(sys.getrecursionlimit())",
    "switch_interval": "import sys; print(sys.getswitchinterval())",
    "stacklevel": "import warnings; warnings.warn('far', stacklevel=2)",
    "stacklevel_far": "import warnings; warnings.warn('far', stacklevel=9)",
    "displayhook": "import sys; sys.displayhook(3); print(sys.displayhook is sys.__displayhook__)",
    "excepthook": "import sys; print(sys.excepthook is sys.__excepthook__)",
    "unraisablehook": "class A:\n    def __del__(self): raise ValueError('x')\nA()",
    "last_exception": "import sys; print([n for n in ('last_type', 'last_exc', 'last_value') if hasattr(sys, n)])",
    "exc_info": "import sys; print(sys.exc_info())",
    "trace": "import sys; print(sys.gettrace(), sys.getprofile())",
    "audit_hooks": "import sys; sys.addaudithook(lambda e, a: None if e != 'mine' else print(e, a)); sys.audit('mine', 1)",
    "contextvars": "import contextvars; print(list(contextvars.copy_context()))",
    "asyncgen_hooks": "import sys; print(sys.get_asyncgen_hooks())",
    "gc_enabled": "import gc; print(gc.isenabled(), gc.get_threshold(), gc.get_debug())",
    "gc_garbage": "import gc; print(gc.garbage)",
    "gc_callbacks": "import gc; print(gc.callbacks)",
    "gc_collects": "import gc\nclass A: pass\na = A(); a.a = a; del a\nprint(gc.collect() > 0)",
    "hash_of_int": "print(hash(1), hash(2.5), hash(None) is not None)",
    "implementation": "import sys; print(sys.implementation.name, sys.version)",
    "int_max_str_digits": "import sys; print(getattr(sys, 'get_int_max_str_digits', int)())",
    "path_hooks": "import sys; print(len(sys.path_hooks), [type(f) if not isinstance(f, type) else f for f in sys.meta_path])",
    "importer_cache_of_cwd": "import sys, os; print(os.getcwd() in sys.path_importer_cache)",
    "no_warmfork": "import sys; print([name for name in sys.modules if 'warmfork' in name])",
    "no_warmfork_import": "try: import warmfork_is_not_here\nexcept ImportError as e: print(e)",
    "site_variables": "import site; print(site.ENABLE_USER_SITE, site.getusersitepackages())",
    "quit_and_exit": "print(quit, exit, copyright)",
    # Streams.
    "streams": "import sys\nfor s in (sys.stdin, sys.stdout, sys.stderr): print(s.name, s.mode, s.encoding, s.errors, s.line_buffering, s.write_through, s.newlines, s.fileno())",
    "stream_identity": "import sys; print(sys.stdin is sys.__stdin__, sys.stdout is sys.__stdout__, sys.stderr is sys.__stderr__)",
    "stream_layers": "import sys\nfor s in (sys.stdin, sys.stdout, sys.stderr): print(type(s), type(s.buffer), type(s.buffer.raw), s.buffer.raw)",
    "stream_raw_name": "import sys; print(sys.stdout.buffer.raw.name, sys.stdout.buffer.name, sys.stdout.buffer.raw.closefd)",
    "captured_stdout": "import logging, sys; logging.basicConfig(stream=sys.stdout); print('one'); logging.warning('two'); print('three')",
    "last_resort": "import logging; logging.warning('to stderr')",
    "order": "import sys\nprint('1', flush=True); print('2', file=sys.stderr)\nprint('3'); sys.stdout.buffer.write(b'4\\n'); print('5')",
    "no_newline_at_end": "print('end', end='')",
    "unencodable": "print('\\udc80')",
    "replaced_stdout": "import io, sys; sys.stdout = io.StringIO(); print('lost'); sys.stdout = sys.__stdout__; print('seen')",
    "reconfigure": "import sys; sys.stdout.reconfigure(encoding='utf-16', line_buffering=True); print('x')",
    "detach": "import sys; b = sys.stdout.detach(); b.write(b'raw\\n'); b.flush(); sys.stdout = None",
    "close_stdout": "import sys; print('x'); sys.stdout.close()",
    "os_write": "import os; print('buffered'); os.write(1, b'direct\\n')",
    "stdin_read": "import sys; print(repr(sys.stdin.read()))",
    "stdin_lines": "import sys\nfor line in sys.stdin: print(repr(line))",
    "stdin_input": "print(repr(input('prompt> ')))",
    "stdin_bytes": "import sys; print(sys.stdin.buffer.read())",
    "print_to_closed_stderr": "import os, sys; os.close(2); sys.stderr.write('x'); print('ok')",
    # The whole way out.
    "exit_none": "raise SystemExit",
    "exit_zero": "raise SystemExit(0)",
    "exit_number": "raise SystemExit(7)",
    "exit_large": "raise SystemExit(256 + 3)",
    "exit_negative": "raise SystemExit(-1)",
    "exit_text": "raise SystemExit('a text')",
    "exit_object": "raise SystemExit({'a': [1]})",
    "exit_true": "raise SystemExit(True)",
    "exit_subclass": "class E(SystemExit): pass\nraise E(4)",
    "exit_in_function": "import sys\ndef f(): sys.exit(5)\nf()",
    "os_exit": "import os; print('lost'); os._exit(6)",
    "abort": "import resource, os; resource.setrlimit(resource.RLIMIT_CORE, (0, 0)); os.abort()",
    "exception": "raise ValueError('why')",
    "exception_chain": "try: 1/0\nexcept ZeroDivisionError as e: raise KeyError('k') from e",
    "exception_context": "try: 1/0\nexcept ZeroDivisionError: {}['x']",
    "exception_group": "raise ExceptionGroup('g', [ValueError(1), KeyError(2)])" if VERSION >= (3, 11) else "raise ValueError([1])",
    "exception_notes": "e = ValueError(1)\nif hasattr(e, 'add_note'): e.add_note('note')\nraise e",
    "exception_depth": "def f(n): return f(n - 1) if n else 1/0\nf(5)",
    "exception_recursion": "def f(): f()\nf()",
    "exception_without_str": "class E(Exception):\n    def __str__(self): 1/0\nraise E",
    "exception_in_excepthook": "import sys; sys.excepthook = lambda *a: 1/0\nraise ValueError",
    "own_excepthook": "import sys; sys.excepthook = lambda t, v, b: print('hook', t, v)\nraise ValueError(2)",
    "syntax_error": "x = = 1",
    "indentation_error": "if 1:\nprint(1)",
    "null_in_text": "print('a\\x00b')",
    "keyboard_interrupt": "raise KeyboardInterrupt",
    "keyboard_interrupt_subclass": "class K(KeyboardInterrupt): pass\nraise K",
    "sigint": "import os, signal; os.kill(os.getpid(), signal.SIGINT); signal.pause()",
    "sigint_caught": "import os, signal\ntry:\n    os.kill(os.getpid(), signal.SIGINT); signal.pause()\nexcept KeyboardInterrupt: print('caught')",
    "sigterm": "import os, signal; os.kill(os.getpid(), signal.SIGTERM); signal.pause()",
    "sigkill": "import os; os.kill(os.getpid(), 9)",
    "sigpipe": "import os; r, w = os.pipe(); os.close(r)\ntry: os.write(w, b'x')\nexcept BrokenPipeError as e: print(e)",
    "atexit": "import atexit; atexit.register(print, 'first'); atexit.register(print, 'second')",
    "atexit_error": "import atexit; atexit.register(lambda: 1/0)",
    "atexit_exit": "import atexit, sys; atexit.register(sys.exit, 3)",
    "atexit_count": "import atexit; atexit.register(int); atexit.unregister(int); print('x')",
    "thread_is_waited_for": "import threading, time; said = threading.Event(); threading.Thread(target=lambda: (said.wait(), time.sleep(.05), print('late'))).start(); print('soon'); said.set()",
    "daemon_thread": "import threading, time; threading.Thread(target=time.sleep, args=(99,), daemon=True).start(); print('x')",
    "thread_error": "import threading; t = threading.Thread(target=lambda: 1/0, name='T'); t.start(); t.join()",
    "thread_count": "import threading; print(threading.active_count(), threading.enumerate() == [threading.main_thread()])",
    "main_thread": "import threading; t = threading.main_thread(); print(t.name, t.daemon, t is threading.current_thread(), t.ident == threading.get_ident())",
    "native_id": "import threading, os; print(threading.get_native_id() == os.getpid() == threading.main_thread().native_id)",
    "executor": "from concurrent.futures import ThreadPoolExecutor\nwith ThreadPoolExecutor(2) as e: print(list(e.map(abs, [-1, -2])))",
    "executor_at_exit": "from concurrent.futures import ThreadPoolExecutor\ne = ThreadPoolExecutor(1); e.submit(print, 'from the pool')",
    "del_at_exit": "class A:\n    def __del__(self): print('del')\na = A()",
    "del_of_cycle_at_exit": "class A:\n    def __del__(self): print('del')\na = A(); a.me = a",
    "del_order": "class A:\n    def __init__(self, n): self.n = n\n    def __del__(self): print(self.n)\n_a = A('underscore'); b = A('plain'); c = A('last')",
    "weakref_finalize": "import weakref\nclass A: pass\na = A(); weakref.finalize(a, print, 'finalized')",
    "generator_at_exit": "def g():\n    try: yield\n    finally: print('closed')\nx = g(); next(x)",
    "file_flushed_at_exit": "f = open('out.txt', 'w'); f.write('text')",
    "resource_warning": "import warnings; warnings.simplefilter('always'); f = open('out.txt', 'w'); del f",
    "broken_pipe_at_exit": "import os; r, w = os.pipe(); os.close(r); os.dup2(w, 1); print('x')",
    "full_device_at_exit": "import os; os.dup2(os.open('/dev/full', os.O_WRONLY), 1); print('x')",
    "tempfile_cleanup": "import tempfile, os; d = tempfile.TemporaryDirectory(dir='.'); print(len(os.listdir('.')))",
    "fork_and_wait": "import os, sys\npid = os.fork()\nif pid == 0: os._exit(4)\nprint(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))",
    "fork_and_exit": "import os, sys\nprint('before', flush=True)\npid = os.fork()\nif pid == 0: sys.exit(4)\nprint(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))",
    "exec": "import os, sys; os.execv(sys.executable, ['python3', '-c', 'import sys; print(sys.argv)'])",
    "subprocess": "import subprocess, sys; print(subprocess.run([sys.executable, '-c', 'print(1)'], capture_output=True).stdout)",
    "no_children": "import os\ntry: os.wait()\nexcept ChildProcessError as e: print(e)",
    # Process state.
    "parent": "import os; print(os.getppid())",
    "cmdline": "print(open('/proc/self/cmdline', 'rb').read())",
    "comm": "print(open('/proc/self/comm').read())",
    "environ_file": "print(open('/proc/self/environ', 'rb').read())",
    "exe": "import os; print(os.readlink('/proc/self/exe'))",
    "environ": "import os; print(sorted(os.environ.items()))",
    "environ_type": "import os; print(type(os.environ), type(os.environb))",
    "environ_change": "import os, subprocess; os.environ['NEW'] = 'v'; print(subprocess.check_output('echo $NEW', shell=True))",
    "putenv": "import os, subprocess; os.putenv('NEW', 'v'); print(subprocess.check_output(['sh', '-c', 'echo $NEW']), 'NEW' in os.environ)",
    "getenv_by_c": "import ctypes; c = ctypes.CDLL(None); c.getenv.restype = ctypes.c_char_p; print(c.getenv(b'HOME'), c.getenv(b'LD_PRELOAD'), c.getenv(b'WARMFORK_CHANNEL'))",
    "descriptors": "import os; print(sorted(os.listdir('/proc/self/fd')))",
    "descriptor_kinds": "import os, stat; print([stat.S_IFMT(os.fstat(n).st_mode) for n in (0, 1, 2)])",
    "descriptor_flags": "import fcntl; print([(fcntl.fcntl(n, fcntl.F_GETFD), fcntl.fcntl(n, fcntl.F_GETFL) & ~0o100000) for n in (0, 1, 2)])",
    "next_descriptor": "print(open('/dev/null').fileno())",
    "signal_mask": "import signal; print(signal.pthread_sigmask(signal.SIG_BLOCK, []))",
    "signal_handlers": "import signal; print([(n, str(signal.getsignal(n))[:30]) for n in sorted(signal.valid_signals())])",
    "signals_in_kernel": "print([line for line in open('/proc/self/status') if line.startswith(('Sig', 'Shd'))][1:])",
    "pending_signals": "import signal; print(signal.sigpending())",
    "wakeup_fd": "import signal; print(signal.set_wakeup_fd(-1))",
    "own_handler": "import signal, os; signal.signal(signal.SIGUSR1, lambda *a: print('got')); os.kill(os.getpid(), signal.SIGUSR1)",
    "alarm": "import signal; print(signal.alarm(0), signal.getitimer(signal.ITIMER_REAL))",
    "alarm_kills": "import signal; signal.setitimer(signal.ITIMER_REAL, 0.01); signal.pause()",
    "handler_interrupts_read": "import signal, os; r, w = os.pipe(); signal.signal(signal.SIGALRM, lambda *a: os.write(w, b'tick')); signal.setitimer(signal.ITIMER_REAL, .01, .01); print(os.read(r, 4)); signal.setitimer(signal.ITIMER_REAL, 0)",
    "umask": "import os; print(os.umask(0))",
    "directory": "import os; print(os.getcwd())",
    "root_directory": "import os; print(os.readlink('/proc/self/root'))",
    "limits": "import resource; print([resource.getrlimit(n) for n in range(16)])",
    "nice": "import os; print(os.nice(0), os.sched_getscheduler(0), os.sched_getaffinity(0))",
    "oom_score": "print(open('/proc/self/oom_score_adj').read())",
    "group_and_session": "import os; print(os.getpgrp(), os.getsid(0))",
    "ids": "import os; print(os.getresuid(), os.getresgid(), os.getgroups())",
    "threads": "import os; print(len(os.listdir('/proc/self/task')))",
    "no_new_privileges": "print([line for line in open('/proc/self/status') if line.startswith(('NoNew', 'Seccomp', 'Cap'))])",
    "dumpable": "import ctypes; print(ctypes.CDLL(None).prctl(3, 0, 0, 0, 0))",
    "timer_slack": "print(open('/proc/self/timerslack_ns').read())",
    "personality": "print(open('/proc/self/personality').read())",
    "coredump_filter": "print(open('/proc/self/coredump_filter').read())",
    "usage_of_children": "import os; print(os.times().children_user, os.times().children_system)",
    "executable_in_maps": "import sys, os; print(any(os.path.realpath(sys.executable) in line for line in open('/proc/self/maps')))",
    # Locale and time.
    "locale": "import locale; print(locale.setlocale(locale.LC_ALL), locale.getpreferredencoding())",
    "encodings": "import sys; print(sys.getfilesystemencoding(), sys.getfilesystemencodeerrors(), sys.getdefaultencoding())",
    "time_zone": "import time; print(time.tzname, time.timezone, time.altzone, time.daylight, time.localtime(0)[:6])",
    "decimal_context": "import decimal; print(decimal.getcontext())",
    "process_time": "import time; print(time.process_time() < 5)",
    # Modules that keep state.
    "warnings_shown_once": "import warnings\nfor _ in range(2): warnings.warn('again')",
    "deprecation_in_main": "import warnings; warnings.warn('old', DeprecationWarning)",
    "logging_root": "import logging; print(logging.root.handlers, logging.root.level)",
    "faulthandler": "import faulthandler; print(faulthandler.is_enabled())",
    "faulthandler_dump": "import faulthandler; faulthandler.enable(); faulthandler.dump_traceback(all_threads=False)",
    "faulthandler_register": "import faulthandler, signal, os; faulthandler.register(signal.SIGUSR1, all_threads=False); os.kill(os.getpid(), signal.SIGUSR1)",
    "traceback_of_here": "import traceback; traceback.print_stack()",
    "pickle_main": "import pickle\nclass A: pass\nprint(pickle.loads(pickle.dumps(A())).__class__ is A)",
    "import_of_main": "import __main__; x = 5; print(__main__.x)",
    "runpy": "import runpy; runpy.run_module('this')",
    "reload": "import importlib, json; print(importlib.reload(json) is json)",
    "asyncio": "import asyncio\nasync def main(): await asyncio.sleep(0); print('ran')\nasyncio.run(main())",
    "multiprocessing": "import multiprocessing as m\nif __name__ == '__main__':\n    p = m.get_context('fork').Process(target=print, args=('child',)); p.start(); p.join(); print(p.exitcode, m.current_process().name)",
    "getpass_and_pwd": "import getpass, os; print(getpass.getuser(), os.path.expanduser('~'))",
    "curses_free": "import shutil; print(shutil.get_terminal_size())",
    "decoding_of_arguments": "import sys, os; print([os.fsencode(a) for a in sys.argv])",
    "random_seeded": "import random; random.seed(4); print(random.random())",
    "uuid_version": "import uuid; print(uuid.uuid4().version, uuid.uuid5(uuid.NAMESPACE_DNS, 'a'))",
}

# Scripts and modules: (files, arguments behind the interpreter).
STATE = "import sys; print(sys.argv, sys.path, __name__, globals().get('__file__'), globals().get('__cached__'), __spec__ and __spec__.name, type(__loader__), sorted(globals()))\n"
PROGRAMS = {
    "script": ({"s.py": STATE}, ["s.py", "a", "-b"]),
    "script_by_absolute_path": ({"s.py": STATE}, ["{folder}/s.py"]),
    "script_by_dots": ({"d/s.py": STATE}, ["d/../d/./s.py"]),
    "script_after_dashes": ({"s.py": STATE}, ["--", "s.py"]),
    "script_without_suffix": ({"script": STATE}, ["script"]),
    "script_with_spaces": ({"a b.py": STATE}, ["a b.py"]),
    "script_not_ascii": ({"ä.py": STATE}, ["ä.py"]),
    "script_is_missing": ({}, ["missing.py"]),
    "script_in_missing_directory": ({}, ["no/such/dir/missing.py"]),
    "script_is_empty": ({"s.py": ""}, ["s.py"]),
    "script_without_last_newline": ({"s.py": "print(1)"}, ["s.py"]),
    "script_with_carriage_returns": ({"s.py": "print('''a\r\nb''')\r\n"}, ["s.py"]),
    "script_with_form_feed": ({"s.py": "\x0cprint(1)\n"}, ["s.py"]),
    "script_with_null": ({"s.py": "print(1)\nx = '\0'\n"}, ["s.py"]),
    "script_with_bom": ({"s.py": b"\xef\xbb\xbfprint('\xc3\xa4')\n"}, ["s.py"]),
    "script_in_latin1": ({"s.py": b"# -*- coding: latin-1 -*-\nprint(ascii('\xe4'))\n"}, ["s.py"]),
    "script_not_utf8": ({"s.py": b"x = 1\n# \xe4\nprint(x)\n"}, ["s.py"]),
    "script_with_unknown_coding": ({"s.py": "# coding: no-such\nprint(1)\n"}, ["s.py"]),
    "script_with_shebang": ({"s.py": "#!/usr/bin/env python3\nprint(1)\n"}, ["s.py"]),
    "script_with_future": ({"s.py": "from __future__ import annotations\nx: undefined = 1\nprint(__annotations__)\n"}, ["s.py"]),
    "script_with_docstring": ({"s.py": "'''doc'''\nprint(__doc__)\n"}, ["s.py"]),
    "script_syntax_error": ({"s.py": "def f():\n    return (\n"}, ["s.py"]),
    "script_tab_error": ({"s.py": "if 1:\n        x = 1\n\ty = 2\n"}, ["s.py"]),
    "script_invalid_escape": ({"s.py": "print('\\d')\n"}, ["s.py"]),
    "script_traceback": ({"s.py": "def f(x):\n    return 1 / x\n\nf(0)\n"}, ["s.py"]),
    "script_traceback_by_path": ({"d/s.py": "1/0\n"}, ["d/s.py"]),
    "script_imports_neighbour": ({"s.py": "import n; print(n.__file__, n.__name__)\n", "n.py": ""}, ["s.py"]),
    "script_neighbour_error": ({"s.py": "import n\n", "n.py": "1/0\n"}, ["s.py"]),
    "script_circular_import": ({"s.py": "import s\nprint(__name__)\n"}, ["s.py"]),
    "script_writes_bytecode": ({"s.py": "import n\n", "n.py": "x = 1\n"}, ["s.py"]),
    "script_is_compiled": ({"c.py": "import py_compile; py_compile.compile('s.py', 's.pyc')\n", "s.py": STATE, "@run": "c.py"}, ["s.pyc"]),
    "script_is_bad_bytecode": ({"s.pyc": b"not bytecode"}, ["s.pyc"]),
    "script_is_empty_bytecode": ({"s.pyc": b""}, ["s.pyc"]),
    "script_is_unreadable_directory": ({"d/x": ""}, ["d"]),
    "directory": ({"app/__main__.py": STATE}, ["app", "x"]),
    "directory_here": ({"__main__.py": STATE}, ["."]),
    "directory_with_slash": ({"app/__main__.py": STATE}, ["app/"]),
    "directory_error": ({"app/__main__.py": "1/0\n"}, ["app"]),
    "script_by_link": ({"d/s.py": STATE, "@link": ("d/s.py", "l.py")}, ["l.py"]),
    "module": ({"m.py": STATE}, ["-m", "m", "a", "-b"]),
    "module_attached": ({"m.py": STATE}, ["-mm", "a"]),
    "module_of_package": ({"p/__init__.py": "", "p/m.py": STATE}, ["-m", "p.m"]),
    "package": ({"p/__init__.py": "print(__name__)\n", "p/__main__.py": STATE}, ["-m", "p"]),
    "package_without_main": ({"p/__init__.py": ""}, ["-m", "p"]),
    "namespace_package": ({"p/__main__.py": STATE}, ["-m", "p"]),
    "module_relative_import": ({"p/__init__.py": "", "p/m.py": "from . import n\nprint(n.__name__)\n", "p/n.py": ""}, ["-m", "p.m"]),
    "module_is_missing": ({}, ["-m", "no_such_module"]),
    "module_of_missing_package": ({}, ["-m", "no.such.module"]),
    "module_traceback": ({"m.py": "1/0\n"}, ["-m", "m"]),
    "module_syntax_error": ({"m.py": "x = =\n"}, ["-m", "m"]),
    "module_of_library": ({}, ["-m", "json.tool", "--help"]),
    "module_that_is_imported": ({}, ["-m", "platform"]),
    "module_with_builtin_name": ({}, ["-m", "sys"]),
    "module_not_a_name": ({}, ["-m", "a-b/c"]),
    "module_with_suffix": ({"m.py": ""}, ["-m", "m.py"]),
    "text_attached": ({}, ["-cimport sys; print(sys.argv, sys.orig_argv)" if VERSION > (3, 9) else "-cprint(1)", "a"]),
    "text_empty": ({}, ["-c", ""]),
    "text_only_comment": ({}, ["-c", "# nothing"]),
    "text_multiline_error": ({}, ["-c", "x = 1\ny = 2\n1/0\n"]),
    "text_not_ascii": ({}, ["-c", "print(ascii('ä€'))"]),
    "text_imports_here": ({"n.py": "print('here')"}, ["-c", "import n"]),
    "text_undecodable": ({}, [b"-c", b"print('\xff')"]),
    "arguments_undecodable": ({}, [b"-c", b"import sys, os; print(os.fsencode(sys.argv[1]))", b"\xff\xfe"]),
    "arguments_empty": ({}, ["-c", "import sys; print(sys.argv)", "", ""]),
    "arguments_many": ({}, ["-c", "import sys; print(len(sys.argv))", *map(str, range(3000))]),
    "input_program": ({"@input": b"print(__name__, globals().get('__file__'))\n"}, ["-", "a"]),
    "input_program_without_dash": ({"@input": b"import sys; print(sys.argv, sys.path[0])\n"}, []),
    "input_program_error": ({"@input": b"x = 1\n1/0\n"}, ["-"]),
    "input_program_syntax": ({"@input": b"x = =\n"}, []),
    "input_program_empty": ({"@input": b""}, []),
    "input_program_reads_rest": ({"@input": b"import sys\nprint(repr(sys.stdin.read()))\n"}, ["-"]),
    "option_O": ({}, ["-O", "-c", "assert 0; import sys; print(__debug__, sys.flags.optimize)"]),
    "option_OO": ({"m.py": "def f(): 'doc'\n"}, ["-OO", "-c", "import m; print(m.f.__doc__)"]),
    "option_I": ({"n.py": ""}, ["-I", "-c", STATE]),
    "option_I_script": ({"s.py": STATE}, ["-I", "s.py"]),
    "option_E": ({}, ["-E", "-c", "import sys; print(sys.flags)"]),
    "option_s": ({}, ["-s", "-c", "import sys, site; print(sys.flags, site.ENABLE_USER_SITE)"]),
    "option_S": ({}, ["-S", "-c", "import sys; print(sys.flags, 'exit' in dir(__builtins__), sys.path)"]),
    "option_B": ({"n.py": ""}, ["-B", "-c", "import n, sys; print(sys.dont_write_bytecode)"]),
    "option_u": ({}, ["-u", "-c", "import sys; print(sys.stdout.write_through, type(sys.stdout.buffer), type(sys.stdin.buffer))"]),
    "option_b": ({}, ["-b", "-c", "print(b'a' == 'a')"]),
    "option_bb": ({}, ["-bb", "-c", "print(b'a' == 'a')"]),
    "option_q": ({}, ["-q", "-c", "import sys; print(sys.flags.quiet)"]),
    "option_W": ({}, ["-W", "error", "-c", "import warnings; warnings.warn('x')"]),
    "option_W_always": ({}, ["-Walways", "-c", "import sys, warnings; print(sys.warnoptions); warnings.warn('x')"]),
    "option_X_dev": ({}, ["-X", "dev", "-c", "import sys, faulthandler; print(sys.flags.dev_mode, faulthandler.is_enabled())"]),
    "option_X_utf8": ({}, ["-X", "utf8", "-c", "import sys; print(sys.flags.utf8_mode, sys._xoptions)"]),
    "option_X_faulthandler": ({}, ["-X", "faulthandler", "-c", "import faulthandler; print(faulthandler.is_enabled())"]),
    "option_X_faulthandler_fault": ({}, ["-X", "faulthandler", "-c", "import resource, os, signal; resource.setrlimit(resource.RLIMIT_CORE, (0, 0)); os.kill(os.getpid(), signal.SIGSEGV)"]),
    "option_X_own": ({}, ["-X", "mine=1", "-Xother", "-c", "import sys; print(sys._xoptions)"]),
    "option_X_pycache": ({"n.py": ""}, ["-X", "pycache_prefix={caches}", "-c", "import n; print(n.__cached__)"]),
    "option_cluster": ({}, ["-IBuc", "import sys; print(sys.flags, sys.argv)", "x"]),
    "option_P": ({"n.py": ""}, ["-P", "-c", STATE] if VERSION >= (3, 11) else ["-I", "-c", STATE]),
    "options_twice": ({}, ["-O", "-O", "-s", "-c", "import sys; print(sys.flags)"]),
}

# More of the environment: (variables, arguments). None: removed.
ENVIRONMENTS = {
    "plain": ({"ANYTHING": "1"}, ["-c", "import os; print(os.environ['ANYTHING'])"]),
    "home": ({"HOME": "/nowhere"}, ["-c", "import os, site; print(os.path.expanduser('~'), site.getuserbase())"]),
    "time_zone": ({"TZ": "America/New_York"}, ["-c", TEXTS["time_zone"]]),
    "hash_seed": ({"PYTHONHASHSEED": "123"}, ["-c", "print(hash('a'), {'a', 'b', 'c'})"]),
    "hash_seed_off": ({"PYTHONHASHSEED": "0"}, ["-c", "import sys; print(hash('a'), sys.flags.hash_randomization)"]),
    "optimize": ({"PYTHONOPTIMIZE": "1"}, ["-c", "print(__debug__)"]),
    "warnings": ({"PYTHONWARNINGS": "error"}, ["-c", "import warnings; warnings.warn('x')"]),
    "unbuffered": ({"PYTHONUNBUFFERED": "1"}, ["-c", "import sys; print(sys.stdout.write_through)"]),
    "io_encoding": ({"PYTHONIOENCODING": "latin-1:replace"}, ["-c", "import sys; print(sys.stdout.encoding, sys.stdout.errors); print('€')"]),
    "utf8_mode": ({"PYTHONUTF8": "1"}, ["-c", "import sys; print(sys.flags.utf8_mode)"]),
    "dont_write": ({"PYTHONDONTWRITEBYTECODE": "1"}, ["-c", "import sys; print(sys.dont_write_bytecode)"]),
    "no_user_site": ({"PYTHONNOUSERSITE": "1"}, ["-c", "import site; print(site.ENABLE_USER_SITE)"]),
    "python_path": ({"PYTHONPATH": "/tmp/nowhere:/usr"}, ["-c", "import sys; print(sys.path)"]),
    "dev_mode": ({"PYTHONDEVMODE": "1"}, ["-c", "import sys; print(sys.flags.dev_mode)"]),
    "c_locale": ({"LC_ALL": "C", "LANG": None}, ["-c", TEXTS["locale"]]),
    "c_locale_coerced": ({"LC_ALL": None, "LANG": None, "LC_CTYPE": None}, ["-c", "import os, sys; print(os.environ.get('LC_CTYPE'), sys.stdout.errors)"]),
    "posix_locale": ({"LANG": "POSIX", "LC_ALL": None}, ["-c", TEXTS["encodings"]]),
    "ignored_by_E": ({"PYTHONOPTIMIZE": "2"}, ["-E", "-c", "print(__debug__)"]),
    "fault_handler": ({"PYTHONFAULTHANDLER": "1"}, ["-c", "import faulthandler; print(faulthandler.is_enabled())"]),
    "empty_value": ({"EMPTY": ""}, ["-c", "import os; print(repr(os.environ['EMPTY']))"]),
    "undecodable": ({b"BYTES": b"\xff"}, ["-c", "import os; print(os.environb[b'BYTES'], ascii(os.environ['BYTES']))"]),
    "path": ({"PATH": "/usr/bin"}, ["-c", "import shutil; print(shutil.which('sh'))"]),
    "large": ({"LARGE": "x" * 100_000}, ["-c", "import os; print(len(os.environ['LARGE']))"]),
}


# What modules do when they are imported: (the module, a program that imports it), cold and in two warm
# children of one image.
EFFECTS = {
    "path_appended": ("import sys\nsys.path.append('/last')", "import sys; print(sys.path)"),
    "path_inserted": ("import sys\nsys.path[:0] = ['/first', '/second']", "import sys; print(sys.path)"),
    "path_inserted_behind_program": ("import sys\nsys.path.insert(1, '/third')", "import sys; print(sys.path)"),
    "path_removed": ("import sys\nsys.path[:] = [p for p in sys.path if 'lib-dynload' not in p]", "import sys; print(sys.path)"),
    "context_variable": ("import contextvars\nv = contextvars.ContextVar('v')\nv.set(3)", "print(effect.v.get(None))"),
    "decimal_precision": ("import decimal\ndecimal.getcontext().prec = 5", "import decimal; print(decimal.Decimal(1) / 3)"),
    "thread_local": ("import threading\nlocal = threading.local()\nlocal.x = [3]", "print(effect.local.__dict__)"),
    "thread_local_subclass": ("import threading\nclass Local(threading.local):\n    def __init__(self): self.x = 1\nlocal = Local()\nlocal.x = 2", "print(effect.local.x)"),
    "generator_hooks": ("import sys\ndef first(g): print('first')\nsys.set_asyncgen_hooks(firstiter=first)", "async def g(): yield\ng().__anext__()"),
    "coroutine_origins": ("import sys\nsys.set_coroutine_origin_tracking_depth(2)", "async def f(): pass\nc = f(); print(c.cr_origin); c.close()"),
    "line_buffering": ("import sys\nsys.stdout.reconfigure(line_buffering=True)", "import os, sys; print(1); os.write(1, b'2\\n'); print(sys.stdout.line_buffering)"),
    "no_line_buffering": ("import sys\nsys.stderr.reconfigure(line_buffering=False)", "import os, sys; print(1, file=sys.stderr); os.write(2, b'2\\n')"),
    "encoding": ("import sys\nsys.stdout.reconfigure(encoding='utf-16', errors='replace')", "print('x')"),
    "wrapped_stdout": ("import codecs, sys\nsys.stdout = codecs.getwriter('utf-8')(sys.stdout.buffer)", "print('\u00e9')"),
    "detached_stderr": ("import io, sys\nsys.stderr = io.TextIOWrapper(sys.stderr.detach(), line_buffering=True)", "import sys\nprint(1, file=sys.stderr)\ntry: sys.__stderr__.write('x')\nexcept ValueError as error: print(error)"),
    "detached_stdout": ("import io, sys\nsys.stdout = io.TextIOWrapper(sys.stdout.detach(), encoding='latin-1')", "print('\u00e9')"),
    "no_stderr": ("import sys\nsys.stderr = None", "import sys; print(sys.stderr)"),
    "ignored_signal": ("import signal\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)", "import os, signal; os.kill(os.getpid(), signal.SIGTERM); print(signal.getsignal(signal.SIGTERM))"),
    "handler": ("import signal\nsignal.signal(signal.SIGUSR1, lambda *_: print('got'))", "import os, signal; os.kill(os.getpid(), signal.SIGUSR1)"),
    "default_sigpipe": ("import signal\nsignal.signal(signal.SIGPIPE, signal.SIG_DFL)", "import os; r, w = os.pipe(); os.close(r); os.write(w, b'x')"),
    "open_file": ("file = open(__file__)", "print(effect.file.fileno(), effect.file.readline(), effect.file.read())"),
    "open_descriptor": ("import os\nnumber = os.open(__file__, os.O_RDONLY)\nos.lseek(number, 3, 0)", "import os; print(effect.number, os.read(effect.number, 5), os.get_inheritable(effect.number))"),
    "excepthook": ("import sys\nsys.excepthook = lambda *e: print('hook', e[1])", "1/0"),
    "warning_filter": ("import warnings\nwarnings.simplefilter('error')", "import warnings; warnings.warn('x')"),
    "atexit": ("import atexit\natexit.register(print, 'bye')", "print('x')"),
    "garbage_collector": ("import gc\ngc.disable()\ngc.set_threshold(5, 6, 7)", "import gc; print(gc.isenabled(), gc.get_threshold())"),
    "recursion_limit": ("import sys\nsys.setrecursionlimit(2345)", "import sys; print(sys.getrecursionlimit())"),
    "fault_handler": ("import faulthandler, signal\nfaulthandler.register(signal.SIGUSR1, all_threads=False)", "import os, signal; os.kill(os.getpid(), signal.SIGUSR1); print('on')"),
    "environment_object": ("from os import environ", "import os; print(effect.environ is os.environ, os.environ['ANY'])"),
    "held_lock": ("import threading\nlock = threading.RLock()\nlock.acquire()", "effect.lock.release(); print(effect.lock)"),
}

# What children could not go on with: such a module's children are cold.
OBSTACLES = {
    "arguments": ("import sys\nARGUMENTS = sys.argv[:]", "print(effect.ARGUMENTS)"),
    "trace": ("import sys\nsys.settrace(lambda *_: None)", "import sys; print(sys.gettrace() is None)"),
    "profile": ("import sys\nsys.setprofile(lambda *_: None)", "import sys; print(sys.getprofile() is None)"),
    "duplicate_of_stdout": ("import os\nout = os.fdopen(os.dup(1), 'w')", "print('x', file=effect.out)"),
    "lock_between_processes": ("import multiprocessing\nlock = multiprocessing.get_context('fork').Lock()", "print(effect.lock.acquire())"),
    "pipe": ("import os\nr, w = os.pipe()", "import os; os.write(effect.w, b'x'); print(os.read(effect.r, 9))"),
    "selector": ("import select\npoll = select.epoll()", "print(effect.poll.poll(0))"),
}

# What makes every interpreter write something when it starts: (variables, options, files on PYTHONPATH).
TALKATIVE = {
    "warning_option": ({}, ["-Wbogus"], {}),
    "warning_variable": ({"PYTHONWARNINGS": "bogus"}, [], {}),
    "coerced_locale": ({"PYTHONCOERCECLOCALE": "warn", "LC_ALL": None, "LC_CTYPE": None, "LANG": "C"}, [], {}),
    "site": ({}, [], {"sitecustomize.py": "print('hello from site')"}),
}


class Equivalence(TestCase):
    @classmethod
    def setUpClass(cls):
        # As a user's, whatever the tests are started with.
        cls.before = {name: os.environ.pop(name) for name in list(os.environ) if name.startswith("PYTHON") and name != "PYTHONPATH"}

    @classmethod
    def tearDownClass(cls):
        os.environ.update(cls.before)

    def setUp(self):
        super().setUp()
        self.folder_of = self.folder
        self.warm = self.template(
            ["json", "logging", "random", "threading", "decimal", "uuid", "tempfile", "argparse"],
            backend="warm", spares=1,
        )
        self.caches = self.folder_of({})
        self.folder = os.path.realpath(self.folder_of({}))

    def lay_out(self, files):
        for name in os.listdir(self.folder):
            path = os.path.join(self.folder, name)
            os.unlink(path) if os.path.islink(path) or not os.path.isdir(path) else shutil.rmtree(path)
        for name, content in files.items():
            if name.startswith("@"):
                continue
            path = os.path.join(self.folder, name)
            os.makedirs(os.path.dirname(path), exist_ok=True)
            with open(path, "wb") as file:
                file.write(content if isinstance(content, bytes) else content.encode())
            os.utime(path, (1_600_000_000, 1_600_000_000))  # their caches are the same
        if "@link" in files:
            os.symlink(files["@link"][0], os.path.join(self.folder, files["@link"][1]))
        if "@run" in files:
            subprocess.run([PYTHON, files["@run"]], cwd=self.folder, check=True)

    def files_left(self):
        """By name: all of them, with their content where it can be compared."""
        left = {}
        for directory, _, names in os.walk(self.folder):
            for name in names:
                path = os.path.join(directory, name)
                with open(path, "rb") as file:
                    # The names of caches only: marshal marks what happened to be shared.
                    left[path] = "" if path.endswith(".pyc") else file.read()
        return left

    def compare(self, name, files, args, variables=None):
        args = [
            arg.replace("{folder}", self.folder).replace("{caches}", self.caches) if isinstance(arg, str) else arg
            for arg in args
        ]
        env = {os.fsencode(key): os.fsencode(value) for key, value in os.environ.items()}
        for key, value in (variables or {}).items():
            env.pop(os.fsencode(key), None)
            if value is not None:
                env[os.fsencode(key)] = os.fsencode(value)
        seen = []
        for popen in (subprocess.Popen, self.warm.popen):
            self.lay_out(files)
            with popen(
                [PYTHON, *args], stdin=-1, stdout=-1, stderr=-1, cwd=self.folder, env=env
            ) as process:
                output = process.communicate(files.get("@input", b"a line\nanother\n"), timeout=60)
            # Where things lie in memory is each process's own.
            output = [re.sub(rb"0x[0-9a-f]{6,}", b"0x", text) for text in output]
            # So are the functions in C that have called the interpreter.
            output = [re.sub(rb"(?s)(C stack trace \(most recent call first\):\n).*", rb"\1", text) for text in output]
            seen.append((process.returncode, *output, self.files_left()))
        for what, cold, warm in zip(("status", "stdout", "stderr", "files"), *seen):
            self.assertEqual(warm, cold, f"{name}: {what}")

    def test_signals_that_the_owner_has_ignored_since_before_the_template_are_so_in_each_child(self):
        """As under nohup; also in spares that have rehearsed."""
        self.addCleanup(signal.signal, signal.SIGHUP, signal.signal(signal.SIGHUP, signal.SIG_IGN))
        template = self.template(["json"], backend="warm", spares=1)
        text = "import signal; print(signal.getsignal(signal.SIGHUP), signal.getsignal(signal.SIGTERM))"
        for _ in range(3):
            template.wait_parked()
            self.assertEqual(template.run([PYTHON, "-c", text], capture_output=True).stdout, b"1 0\n")

    def test_texts(self):
        for name, text in TEXTS.items():
            with self.subTest(name):
                self.compare(name, {}, ["-c", text, "argument"])

    def test_programs(self):
        for name, (files, args) in PROGRAMS.items():
            with self.subTest(name):
                self.compare(name, files, args)

    def test_environments(self):
        for name, (variables, args) in ENVIRONMENTS.items():
            with self.subTest(name):
                self.compare(name, {}, args, variables)

    def importing(self, source, **options):
        folder = self.folder_of({"effect.py": source + "\n"})
        env = {**os.environ, "PYTHONPATH": folder, "ANY": "value", "PYTHONDONTWRITEBYTECODE": "1"}
        return self.template(["effect"], env=env, spares=1, **options), env

    def run_importing(self, popen, program, env):
        with popen([PYTHON, "-c", "import effect\n" + program], stdout=-1, stderr=-1, env=env) as process:
            output = process.communicate(timeout=60)
        return (process.returncode, *[re.sub(rb"0x[0-9a-f]{6,}", b"0x", text) for text in output]), process

    def test_what_importing_does(self):
        for name, (source, program) in EFFECTS.items():
            with self.subTest(name):
                template, env = self.importing(source, backend="warm")
                with template:
                    expected, _ = self.run_importing(subprocess.Popen, program, env)
                    for _ in range(2):
                        self.assertEqual(self.run_importing(template.popen, program, env)[0], expected)

    def test_a_preloaded_module_that_is_run_warns_where_a_cold_one_does(self):
        show = "if __name__ == '__main__': print('run', __spec__.name, __package__)\n"
        folder = self.folder_of({
            "left/__init__.py": "", "left/part.py": show,
            "taken/__init__.py": "import taken.part\n", "taken/part.py": show,
            "whole/__init__.py": "", "whole/__main__.py": show,
            "outer/__init__.py": "from .inner import part\n", "outer/inner/__init__.py": "", "outer/inner/part.py": show,
        })
        env = {**os.environ, "PYTHONPATH": folder}
        preload = ["left.part", "taken.part", "whole.__main__", "outer"]
        template = self.template(preload, backend="warm", env=env)
        for module in ("left.part", "taken.part", "whole", "outer.inner.part"):
            with self.subTest(module):
                seen = []
                for popen in (subprocess.Popen, template.popen):
                    with popen([PYTHON, "-m", module], stdout=-1, stderr=-1, env=env) as process:
                        seen.append((*process.communicate(timeout=60), process.returncode))
                self.assertEqual(seen[1], seen[0])

    @warm_only
    def test_what_children_could_not_go_on_with_is_cold(self):
        for name, (source, program) in OBSTACLES.items():
            with self.subTest(name):
                template, env = self.importing(source)
                with template:
                    expected, _ = self.run_importing(subprocess.Popen, program, env)
                    seen, process = self.run_importing(template.popen, program, env)
                    self.assertEqual((seen, process.reason_code), (expected, "gate"), process.reason)

    def test_an_interpreter_that_writes_when_it_starts_is_cold(self):
        for name, (variables, options, files) in TALKATIVE.items():
            with self.subTest(name), self.template(["json"]) as template:
                env = {**os.environ, "PYTHONPATH": self.folder_of(files), **variables}
                env = {key: value for key, value in env.items() if value is not None}
                command = [PYTHON, *options, "-c", "pass"]
                expected = subprocess.run(command, capture_output=True, env=env)
                self.assertTrue(expected.stdout + expected.stderr)
                with self.assertRaisesRegex(warmfork.TemplateError, "writes something"):
                    template.run(command, env=env, backend="warm")
                done = template.run(command, env=env, capture_output=True)
                self.assertEqual((done.stdout, done.stderr), (expected.stdout, expected.stderr))

    def test_a_directory_as_a_standard_stream_is_cold(self):
        for stream in ("stdin", "stdout", "stderr"):
            with self.subTest(stream):
                number = os.open("/", os.O_RDONLY)
                try:
                    seen = []
                    for popen, options in ((subprocess.Popen, {}), (self.warm.popen, {"backend": "auto"})):
                        with popen([PYTHON, "-c", "print(1)"], **{"stderr": -3, stream: number}, **options) as process:
                            process.wait()
                        seen.append(process.returncode)
                finally:
                    os.close(number)
                self.assertEqual(seen, [1, 1])
                self.assertEqual((process.backend, process.reason_code), ("cold", "command-line"))

    def test_there_are_many(self):
        self.assertGreaterEqual(sum(map(len, (TEXTS, PROGRAMS, ENVIRONMENTS, EFFECTS))), 150)


if __name__ == "__main__":
    unittest.main()
