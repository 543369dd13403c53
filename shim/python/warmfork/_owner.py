"""The owner's side of templates."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import time
import warnings

from . import _green, _native, _request
from ._errors import TemplateError
from ._popen import Popen

# It is the same as typing's, whose import would cost every start.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from typing import Any

    from ._green import Library
    from ._types import Backend, Command, Environment, OnError, OnStale, Path, Spawned, Text

_ON_ERROR = ("ignore", "warn", "fail")

# How long a spawn waits for a template, in seconds.
_READY_PATIENCE = 15


def _environment_block(environment: Environment | None) -> list[bytes] | None:
    if environment is None:
        return None
    block = []
    for key, value in environment.items():
        name = os.fsencode(key)
        if b"=" in name:
            raise ValueError("illegal environment variable name")
        block.append(name + b"=" + os.fsencode(value))
    return block


def _main_file() -> str:
    """Returns the main file of this program; "" where it has none."""
    file = getattr(sys.modules.get("__main__"), "__file__", None)
    return os.path.abspath(file) if isinstance(file, str) else ""


def _milliseconds(timeout: float | None) -> int:
    return -1 if timeout is None else max(0, round(timeout * 1000))


def search_path() -> list[str]:
    """Returns sys.path, whatever the directory is."""
    return [os.path.abspath(entry) for entry in sys.path]


def path_unlike(templates: list[str] | None) -> list[str] | None:
    """Returns sys.path, which a child takes over, or None where it is the one by which the template has found its
    modules."""
    path = search_path()
    return None if path == templates else path


class Template:
    """A process that imports modules once, and children that begin with them imported.

    Opening one returns at once. The first one or two spawns do not wait for its modules: they are cold (reason
    "restarting"), as that is the sooner. Later ones wait up to 15 seconds, those with backend="warm" up to five minutes;
    wait_ready() waits as well. A context manager: its end is close().

    preload: names of modules, imported in this order and looked for as this process would; or, a str, the name of a
    template of the service, see below.
    python: path of the interpreter; None: sys.executable.
    spares: how many parked children to keep, at most 4096; -1: as many as are used, 1 to 8.
    env: the template's environment; None: this process's, at each start.
    cwd: the template's directory while it preloads; None: this process's.
    backend: of popen and run: "auto", "warm" or "cold", as of Popen. None: WARMFORK_BACKEND of the environment, or "auto".
    allow: exceptions from the fork-safety gate, "thread:NAME", "descriptor:PREFIX" or "mapping:PREFIX"; and
    "identity:MODULE", "output:MODULE" or "program:MODULE", of a module that keeps what it took from the process that
    imports it (its id, the time, the arguments, random bytes), that writes something when it is imported, or for which a
    program is started; "directory:MODULE" or "directory:./NAME", of what a child's own directory has otherwise.
    on_stale: what a spawn does after a file that the image came from has changed: "cold" (until a new image is ready),
    "wait" for it, or "serve" the old image meanwhile.
    variants: how many images are kept beside the first, for interpreter options and for other values of the
    variables that preloading reads; the least recently used one goes.
    before_fork: a hook, "module:function", called in the template before each fork.
    in_child: a hook, called in each child right before its program.
    options: of the interpreter, for the first image: what most command lines have, ["-B"].
    learn: children report, when they end, which modules they imported that the image lacked; what most of them import is
    preloaded in the next image (report()["host"]["learned"] tells), as far as its start comes no later for it than a
    child's is earlier. Remembered under $XDG_STATE_HOME/warmfork. Such a template opens in the background: until it is
    ready spawns are cold, unless backend="warm" or wait_ready() wait for it.
    nested: each child keeps a parked copy of the template, as a child of its own; the first template that it opens with
    the same arguments needs no preloading.
    on_error: what a module is that cannot be imported: "fail" (TemplateError from the first use), or left out, with "warn"
    (a RuntimeWarning as well) or "ignore"; report()["host"]["failed"] names it. None: "fail", and "ignore" for the main
    module, which multiprocessing's children import themselves then.
    name: with learn, of the program whose children these are; None: its main file.

    Template("NAME") is a template of this user's service (warmforkd) instead, which outlives this process; its files say
    what it is, so that only `backend` can be given. A service is started where none runs. Its children are the service's:
    getppid() tells so, os.waitpid does not see them, Popen's methods do. They end with this process unless detached. What
    a child of the service cannot be is started cold by this process.

    ValueError: on_stale, on_error or backend is none of the words.
    TypeError: there is another argument beside the name of a service's template.
    Error: there is no such interpreter (ENOENT), the service has no such template (ENOENT), or this process was itself
    started as a template and is none yet (ELOOP).
    """

    def __init__(
        self, preload: str | Iterable[str] = (), *, python: Path | None = None, spares: int = -1,
        env: Environment | None = None, cwd: Path | None = None, backend: Backend | None = None,
        allow: Iterable[str] = (), on_stale: OnStale = "cold", variants: int = 4, before_fork: str | None = None,
        in_child: str | None = None, options: Iterable[str] = (), learn: bool = False, nested: bool = False,
        on_error: OnError | None = None, name: Path | None = None,
    ) -> None:
        self._has_waited = self._warns = self._learns = False
        self._search_path: list[str] | None = None  # nothing is known of the service's
        if isinstance(preload, str):
            self._connect(preload, locals())
            return
        if on_stale not in _native.ON_STALE:
            raise ValueError(f"on_stale must be one of {', '.join(_native.ON_STALE)}, not {on_stale!r}")
        if on_error not in (None, *_ON_ERROR):
            raise ValueError(f"on_error must be one of {', '.join(_ON_ERROR)}, not {on_error!r}")
        self.backend = backend
        self._warns, self._learns = on_error == "warn", learn
        self.preload = list(preload)
        self._search_path = search_path()
        self._python = python or sys.executable
        self._handle = _native.open(
            os.fsencode(self._python),
            preload=[os.fsencode(name) for name in ([f"on_error={on_error}"] if on_error else []) + self.preload],
            path=[os.fsencode(entry) for entry in self._search_path],
            environment=_environment_block(env),
            directory=None if cwd is None else os.fsencode(cwd),
            spares=spares,
            backend=_request.backend_number(backend),
            allow=[os.fsencode(entry) for entry in allow],
            on_stale=_native.ON_STALE[on_stale],
            variants=variants,
            before_fork=None if before_fork is None else os.fsencode(before_fork),
            in_child=None if in_child is None else os.fsencode(in_child),
            options=[os.fsencode(option) for option in options],
            learn=learn,
            nested=nested,
            name=os.fsencode(_main_file() if name is None else name),
        )

    def _connect(self, name: str, arguments: Mapping[str, Any]) -> None:
        """Connects to the service's template of this name. arguments: all those of __init__."""
        for other, default in (Template.__init__.__kwdefaults__ or {}).items():
            if other != "backend" and arguments[other] != default:
                raise TypeError(
                    f"{other}= cannot be given for the service's template {name!r}: its file says what it is "
                    f"(warmfork template edit {name}). A module of this name is preload=[{name!r}]"
                )
        self.backend = arguments["backend"]
        self._handle = _native.connect(os.fsencode(name), _request.backend_number(self.backend))

    def popen(self, args: Command, *positional: Any, **keywords: Any) -> Popen:
        """Starts a child from this template.

        args, others: as of Popen, whose errors these are too.
        """
        return Popen(args, *positional, template=self, **keywords)

    def run(
        self, args: Command, *positional: Any, input: Text | None = None, capture_output: bool = False,
        timeout: float | None = None, check: bool = False, **keywords: Any,
    ) -> subprocess.CompletedProcess[Any]:
        """Starts a child, waits for its end, and returns what came of it, as subprocess.run does.

        input: for the child's standard input; str with text=True or an encoding, else bytes.
        capture_output: standard output and error come back in the result.
        timeout: seconds; then the child is killed, and this raises subprocess.TimeoutExpired.
        check: a status other than 0 raises subprocess.CalledProcessError.
        args, others: as of Popen, whose errors these are too.
        """
        if input is not None:
            if keywords.get("stdin") is not None:
                raise ValueError("stdin and input arguments may not both be used.")
            keywords["stdin"] = subprocess.PIPE
        if capture_output:
            if keywords.get("stdout") is not None or keywords.get("stderr") is not None:
                raise ValueError("stdout and stderr arguments may not be used with capture_output.")
            keywords["stdout"] = keywords["stderr"] = subprocess.PIPE
        with self.popen(args, *positional, **keywords) as process:
            try:
                stdout, stderr = process.communicate(input, timeout=timeout)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
                raise
            except BaseException:
                process.kill()
                raise
            process.poll()
        completed: subprocess.CompletedProcess[Any]
        completed = subprocess.CompletedProcess(process.args, process.returncode, stdout, stderr)
        if check:
            completed.check_returncode()
        return completed

    def wait_ready(self, timeout: float | None = None) -> None:
        """Waits until the modules are imported. Signals are handled meanwhile.

        timeout: seconds; None: for ever.

        TemplateError: a module cannot be imported, the template is not safe to fork (EBUSY, stage "gate"), it did not
        start or has ended (stage "launch"), or is not ready in time (ETIMEDOUT).
        ValueError: it is closed.
        """
        green = _green.library()
        if green:
            self._wait_green(green, timeout)
        else:
            _native.wait_ready(self._handle, _milliseconds(timeout))
        self._warn_of_failed()

    def _wait_green(self, green: Library, timeout: float | None) -> None:
        """Waits until it is ready, with other green threads running meanwhile."""
        deadline = None if timeout is None else time.monotonic() + timeout
        while True:
            try:
                return _native.wait_ready(self._handle, 0)
            except TemplateError as error:
                is_late = deadline is not None and time.monotonic() >= deadline
                if error.errno != errno.ETIMEDOUT or is_late:
                    raise
            green.sleep(0.01)

    def _wait_first(self) -> None:
        """Has the first spawn among green threads wait for the image here, while they run on: later ones would wait for
        it in C, and keep all of them waiting."""
        opens_in_the_background = self._learns and self.backend != "warm"
        green = None if self._has_waited or opens_in_the_background else _green.library()
        self._has_waited = True
        if green:
            try:
                self._wait_green(green, _READY_PATIENCE)
            except TemplateError:
                pass  # the spawn says it, or is cold

    def _warn_of_failed(self) -> None:
        """Warns once, when the template is ready, of what has been left out."""
        if self._warns:
            self._warns = False
            for failed in self.report()["host"]["failed"]:
                text = f"{failed['module']} could not be preloaded: {failed['reason']}"
                warnings.warn(text, RuntimeWarning, stacklevel=3)

    def _warn_after(self, spawned: list[Spawned]) -> None:
        """Warns after a spawn; only a warm child tells that the template is ready. spawned: _native.spawn's list."""
        if self._warns and spawned[0][1] == "warm":
            self._warn_of_failed()

    def wait_parked(self, count: int = 1, timeout: float | None = None) -> None:
        """Waits until children are parked and the template sleeps, so that a spawn costs one wake-up.

        count: how many children.
        timeout: seconds; None: for ever.

        TemplateError: as of wait_ready().
        ValueError: it is closed.
        """
        _native.wait_parked(self._handle, count, _milliseconds(timeout))

    def set_spares(self, spares: int) -> None:
        """Changes how many children are kept parked.

        spares: a number, at most 4096; -1: as many as are used, 1 to 8.

        OSError: the number is none of these (EINVAL), or this is a template of the service, whose file says how many
        (ENOTSUP).
        ValueError: it is closed.
        """
        _native.set_spares(self._handle, spares)

    @property
    def pid(self) -> int:
        """The template's process id; 0 while there is none, and of the service's while no child of it is held."""
        return _native.pid(self._handle)

    @property
    def parked(self) -> int:
        """How many children are parked now; of the service's, for this process."""
        return _native.parked(self._handle)

    @property
    def counts(self) -> dict[str, Any]:
        """How many spawns there were: "handed_off" to parked children, "forked" on command, "cold"; of the cold ones
        "reasons", by reason code; and "template_starts"."""
        return _native.counts(self._handle)

    def report(self) -> dict[str, Any]:
        """What the template looks like from inside: what `warmfork doctor --json` shows. Threads, descriptors,
        mappings, resident memory, fork time; below "host" the imports with their seconds.

        TemplateError: as of wait_ready(); ENOTSUP: of one of the service `warmfork template list` tells.
        ValueError: it is closed.
        """
        import json

        found: dict[str, Any] = json.loads(_native.report(self._handle))
        return found

    def close(self) -> None:
        """Ends the template, or lets go of one of the service, and leaves its children alone. Again is fine. Signals are
        handled meanwhile; where a handler raises, a template that does not end by itself is killed."""
        _native.close(self._handle)

    def __enter__(self) -> Template:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
