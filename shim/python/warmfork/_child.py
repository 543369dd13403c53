"""What a warm child does before user code: everything that a fresh interpreter would have done.

Runs in every child, so it imports nothing then and costs little. C does the rest: see
python_child.cpp.
"""

import _frozen_importlib as _bootstrap
import _frozen_importlib_external as _bootstrap_external
import builtins
import os
import posix
import runpy
import signal
import sys
import time
from _io import FileIO

_PYTHON_IGNORES = (signal.SIGPIPE, signal.SIGXFSZ)  # of every fresh interpreter

_SETTABLE_BITS = sum(1 << (number - 1) for number in signal.valid_signals())  # not the two of glibc
_PYTHON_IGNORED_BITS = sum(1 << (number - 1) for number in _PYTHON_IGNORES)

_image_path = None
_image_time_zone = None
_image_ignored = 0
_coerced_locale = None
_main = None
_streams = ()
_numpy_random = None
_multiprocessing = None
_threading = None
_preloaded = ()


class _Stream:
    """A standard stream of the template, put on another file in every child."""

    is_on_pipe = False  # made over a pipe, so that it fits any other pipe or socket as it is

    def __init__(self, name, number, mode):
        self.text = getattr(sys, f"__{name}__")
        self.name = name
        self.number = number
        self.mode = mode
        if self.text is None:
            return
        self.buffer = self.text.buffer
        self.encoding = self.text.encoding
        self.errors = self.text.errors
        self.write_through = getattr(self.text, "write_through", False)
        self.is_buffered = hasattr(self.buffer, "raw")

    def renew(self, is_pipe):
        """The same objects, which modules may have kept, over a new file, as a fresh interpreter makes
        it. Nothing is buffered in them: the template flushed, and has not written since."""
        if self.text is None or (is_pipe and self.is_on_pipe):
            return
        self.is_on_pipe = is_pipe
        try:
            raw = FileIO(self.number, self.mode, closefd=False)
        except OSError:
            # As python3 does where the descriptor is closed.
            setattr(sys, self.name, None)
            setattr(sys, f"__{self.name}__", None)
            return
        is_terminal = raw.isatty()
        raw.name = f"<{self.name}>"
        if self.is_buffered:
            self.buffer.__init__(raw, max(raw._blksize, 1))
            buffer = self.buffer
        else:
            buffer = raw
        line_buffering = self.number == 2 or is_terminal
        self.text.__init__(
            buffer, self.encoding, self.errors, "\n", line_buffering, self.write_through
        )


def remember_image(preloaded, start_environment):
    """In the template, when preloading is done. start_environment: as the interpreter was started."""
    global _image_path, _image_time_zone, _image_ignored, _streams, _numpy_random
    global _preloaded, _coerced_locale, _multiprocessing, _threading
    _preloaded = tuple(preloaded)
    _image_path = sys.path[:]
    _image_time_zone = posix.environ.get(b"TZ")
    # In the C locale the interpreter sets LC_CTYPE for itself and its children (PEP 538).
    if b"LC_CTYPE" not in start_environment:
        _coerced_locale = posix.environ.get(b"LC_CTYPE")
    _image_ignored = sum(
        1 << (number - 1)
        for number in signal.valid_signals()
        if signal.getsignal(number) is signal.SIG_IGN
    )
    _streams = (
        _Stream("stdin", 0, "rb"),
        _Stream("stdout", 1, "wb"),
        _Stream("stderr", 2, "wb"),
    )
    _numpy_random = sys.modules.get("numpy.random")
    _multiprocessing = sys.modules.get("multiprocessing.process")
    _threading = sys.modules.get("threading")

# Some of everything that a first line is made of, so that a spare has its own copies of the pages that
# compiling and running it write to.
_REHEARSAL = """\
import {modules}
import os, sys, time
def function(*arguments, **keywords):
    try:
        with open(os.devnull) as file:
            return [str(argument) for argument in arguments] or file.read()
    except (OSError, ValueError) as error:
        raise RuntimeError(f"{{error!r}}") from error
class Class:
    def method(self):
        return {{"a": 1, "b": (2.5, b"%d" % time.monotonic_ns())}}
function(*sys.argv, key=Class().method())
if __name__ == "__main__":
    os.write(1, b"")
"""


def rehearsal():
    return _REHEARSAL.format(modules=", ".join(["builtins", *_preloaded]))


def part_from_siblings():
    """What children of one image must not share. `random` sees to itself."""
    if _numpy_random is not None:
        _numpy_random.seed()
    if _multiprocessing is not None:
        _multiprocessing.current_process().authkey = os.urandom(32)
    if _threading is not None:
        _threading.main_thread()._set_native_id()
    make_ready()


def set_environment(environment):
    """environment: bytes by bytes, what environ holds."""
    if _coerced_locale is not None and b"LC_CTYPE" not in environment:
        posix.putenv(b"LC_CTYPE", _coerced_locale)
        environment[b"LC_CTYPE"] = _coerced_locale
    for dictionary in (os.environ._data, posix.environ):
        dictionary.clear()
        dictionary.update(environment)
    if environment.get(b"TZ") != _image_time_zone:
        time.tzset()


def _set_signals(ignored):
    """What the signal module believes, where it differs from what the template believed."""
    for number in range(1, 65):
        bit = 1 << (number - 1)
        if ignored & bit and not _image_ignored & bit:
            signal.signal(number, signal.SIG_IGN)
        elif _image_ignored & bit and not ignored & bit and number == signal.SIGINT:
            signal.signal(number, signal.default_int_handler)
        elif _image_ignored & bit and not ignored & bit and number not in _PYTHON_IGNORES:
            signal.signal(number, signal.SIG_DFL)


def _make_main():
    main = type(sys)("__main__")
    main.__loader__ = _bootstrap.BuiltinImporter
    if sys.version_info < (3, 14):
        main.__annotations__ = {}
    main.__builtins__ = builtins
    return main


def make_ready():
    """The last of what can be done before the command is known. In the child: what the template has made
    is frozen, and the garbage collector would not take __main__ apart at the end."""
    global _main
    _main = _make_main()


def let_go():
    """After the last preparation: what is user code's alone must not be kept alive by us, or it would be
    finalized later than python3 does it (output written by destructors would be lost)."""
    global _streams, _main
    _streams = ()
    _main = None


def _importer_of(path):
    """A directory or an archive can be run too: whatever has an importer."""
    for hook in sys.path_hooks:
        try:
            return hook(path)
        except ImportError:
            continue
    return None


def _insert_path(entry):
    if not getattr(sys.flags, "safe_path", False):
        sys.path.insert(0, entry)


def _absolute(path):
    """As python3 does it: where the directory is gone, the path stays as it is."""
    try:
        return os.path.join(os.getcwd(), path)
    except OSError:
        return path


def _show_source(source):
    """Since 3.13 tracebacks show the lines of -c."""
    linecache = sys.modules.get("linecache")
    if linecache is not None and sys.version_info >= (3, 13):
        lines = [line + "\n" for line in source.splitlines()]
        linecache.cache["<string>"] = (len(source), None, lines, "<string>")


def _prepare_script(main, program, script):
    path = _absolute(script)
    if _importer_of(path) is not None:
        sys.path.insert(0, path)
        return runpy._run_module_as_main, ("__main__", False)
    _insert_path(os.path.dirname(os.path.realpath(script)))
    try:
        with open(script, "rb") as file:
            source = file.read()
    except OSError as error:
        sys.stderr.write(
            f"{program}: can't open file {path!r}: [Errno {error.errno}] {error.strerror}\n"
        )
        raise SystemExit(2) from None
    main.__file__ = path
    main.__cached__ = None
    if script.endswith(".pyc"):
        main.__loader__ = _bootstrap_external.SourcelessFileLoader("__main__", path)
        return exec, (main.__loader__.get_code("__main__"), main.__dict__)
    main.__loader__ = _bootstrap_external.SourceFileLoader("__main__", path)
    return source, path


def prepare(arguments, executable, ignored, pipes):
    """Brings the interpreter into the state in which python3 begins its command line; the environment is
    set already. ignored: signals, bit n-1 is signal n. pipes: bit n, descriptor n is a pipe or socket.
    Returns (source, file name) to compile and run in __main__, or (function, arguments) to call."""
    for stream in _streams:
        stream.renew(pipes >> stream.number & 1)
    ignored &= _SETTABLE_BITS
    if ignored | _image_ignored != _PYTHON_IGNORED_BITS:
        _set_signals(ignored)
    main = sys.modules["__main__"] = _main
    sys.path[:] = _image_path
    if hasattr(sys, "orig_argv"):
        sys.orig_argv = arguments[:]
    if executable is not None:
        sys.executable = executable
    program, *rest = arguments
    if rest[0] == "-c":
        sys.argv = ["-c", *rest[2:]]
        _insert_path("")
        _show_source(rest[1])
        return rest[1] + "\n", "<string>"
    if rest[0] == "-m":
        sys.argv = ["-m", *rest[2:]]
        try:
            _insert_path(os.getcwd())
        except OSError:
            _insert_path("")
        return runpy._run_module_as_main, (rest[1],)
    if rest[0] == "--":
        del rest[0]
    sys.argv = rest[:]
    return _prepare_script(main, program, rest[0])
