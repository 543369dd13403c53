"""The start method "warmfork" of multiprocessing: processes that begin with their imports behind them.

    ctx = warmfork.get_context(preload=["numpy"])
    with ctx.Pool(8) as pool: ...

or, for code that asks multiprocessing itself:

    import warmfork.multiprocessing
    multiprocessing.set_start_method("warmfork")

A child is started as by the method "spawn": its target and arguments are pickled, it inherits nothing but
what it is given, and environment, directory and standard streams are those of the moment of start(). But it
comes from a template, in which multiprocessing, the modules of `preload` and the program's __main__ have been
imported already. What cannot be warm is started cold, as "spawn" would; `process.backend` and `process.reason`
say so.

Importing this module adds the method.
"""

from __future__ import annotations

import io
import os
import sys
from multiprocessing import connection, context, popen_fork, process, reduction, resource_tracker, spawn, util

from . import _green, _main_module, _native
from ._children import Child
from ._owner import Template, path_unlike
from ._popen import end_spawned
from ._start_method import StartMethod, add_method

TYPE_CHECKING = False  # see _owner.py
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import Any

    from ._types import Spawned

    # A context's modules, and the options of its template.
    Definition = tuple[list[str], dict[str, Any]]

__all__ = ["get_context", "install", "set_preload", "WarmforkContext", "WarmforkProcess"]

# It is always the same, so that it is compiled once. A template has the package; a cold child finds it where this
# process does, which its environment need not tell: see _write.
CHILD = """\
import sys
if "warmfork.multiprocessing" not in sys.modules:
    import os, pickle
    data = int(sys.argv[2])
    sys.path[:] = pickle.loads(os.pread(data, os.lseek(data, 0, os.SEEK_CUR), 0))
import warmfork.multiprocessing
warmfork.multiprocessing.run_child()"""
CHILD_CODE = compile(CHILD + "\n", "<string>", "exec", 0, True)

# Children come to need these of multiprocessing: connections, queues and locks as arguments, pools.
_MODULES = ("spawn", "connection", "queues", "synchronize", "pool", "managers")

_NAME = StartMethod("warmfork")


class _InheritedDescriptor:
    """A descriptor that the child has under the same number."""

    def __init__(self, number: int) -> None:
        self.number = number

    def detach(self) -> int:
        return self.number


class _Popen(popen_fork.Popen):
    """What Process keeps of one child."""

    method = "warmfork"
    DupFd = _InheritedDescriptor

    def __init__(self, process_object: process.BaseProcess) -> None:
        self._descriptors: list[int] = []
        super().__init__(process_object)

    def duplicate_for_child(self, number: int) -> int:
        self._descriptors.append(number)
        return number

    def _launch(self, process_object: process.BaseProcess) -> None:
        # multiprocessing.Process itself has none: the method's own.
        warm_context = getattr(process_object, "_warm_context", _default)
        ours, childs = [], []
        spawned: list[Spawned] = []
        try:
            data = _write(_pickle(self, process_object, warm_context.definition))
            childs.append(data)
            tracker = _tracker()
            # One end of each pipe is this process's, the other the child's. Its end of file is a death.
            sentinel, of_child = os.pipe()
            ours.append(sentinel)
            childs.append(of_child)
            parent, own = os.pipe()
            ours.append(own)
            childs.append(parent)
            kept = [*self._descriptors, tracker, *childs]
            template = warm_context.template
            template._wait_first()
            options = util._args_from_interpreter_flags()
            executable = spawn.get_executable()
            _native.spawn(
                template._handle,
                [executable, *options, "-c", CHILD, "--multiprocessing-fork", str(data), str(parent),
                 str(tracker)],
                spawned,
                descriptors=[number for number in kept for number in (number, number)],
                python_path=path_unlike(template._search_path),
            )
            template._warn_after(spawned)
        except BaseException:
            util.close_fds(*ours)
            end_spawned(spawned)
            raise
        finally:
            util.close_fds(*childs)
        self.pid, self.backend, _, self.reason, handle, is_served = spawned[0]
        self._child = Child(self.pid, handle, is_served)
        warm_context.counts[self.backend] += 1
        self.sentinel = sentinel
        self.finalizer = util.Finalize(self, util.close_fds, (sentinel, own))

    def poll(self, flag: int = os.WNOHANG) -> int | None:
        if self.returncode is None:
            self._child.let_reap()
            try:
                pid, status = self._child.take_status(flag)
            except ChildProcessError:
                return None  # as multiprocessing's own
            except OSError:
                if flag & os.WNOHANG:
                    return None
                raise  # nothing is known of it, and least of all that it has ended
            if pid == self.pid:
                self.returncode = os.waitstatus_to_exitcode(status)
        return self.returncode

    def _send_signal(self, sig: int) -> None:
        if self.returncode is None:
            try:
                sys.audit("os.kill", self.pid, sig)
                self._child.send_signal(sig)
            except OSError as error:
                if not isinstance(error, ProcessLookupError) and self.wait(timeout=0.1) is None:
                    raise

    def wait(self, timeout: float | None = None) -> int | None:
        if self._child.green is None:
            return super().wait(timeout)
        return self._child.wait_green(self.poll, timeout)


def _pickle(popen: object, process_object: process.BaseProcess, definition: Definition) -> bytes:
    """Returns what the child unpickles. definition: the context's, for the child's own processes."""
    pickled = io.BytesIO()
    context.set_spawning_popen(popen)
    try:
        # Nothing in it needs the pickler of multiprocessing, which takes long to make.
        reduction.pickle.dump(_Preparation(definition, process_object._name), pickled)
        reduction.dump(process_object, pickled)
    finally:
        context.set_spawning_popen(None)
    return pickled.getvalue()


def _write(pickled: bytes) -> int:
    """Returns a file with it behind the search path of this process, at the place from which it is to be read. The
    child finds it there and need not be woken again."""
    path = reduction.pickle.dumps(sys.path)
    data = os.memfd_create("warmfork-process")
    try:
        for view in map(memoryview, (path, pickled)):
            while view:
                view = view[os.write(data, view):]
        os.lseek(data, len(path), os.SEEK_SET)
    except BaseException:
        os.close(data)
        raise
    return data


class _Preparation:
    """What a child prepares with: spawn.get_preparation_data(), pickled once for as long as it stays the same."""

    _kept: Any = (None, None)  # what it was made of, and it

    def __init__(self, definition: Definition, name: str) -> None:
        main, logger = sys.modules["__main__"], util._logger
        origin = [
            definition, sys.path[:], sys.argv[:], os.getcwd(), process.ORIGINAL_DIR, process.current_process().authkey,
            util._log_to_stderr, logger and logger.getEffectiveLevel(), spawn.get_start_method(allow_none=True),
            # It is not main itself, which would live, with all that it has, longer than the modules that this may need.
            getattr(main, "__spec__", None), getattr(main, "__file__", None),
        ]
        kept = _Preparation._kept
        if kept[0] != origin:
            data = reduction.pickle.dumps((definition, spawn.get_preparation_data("")))
            kept = _Preparation._kept = origin, data
        self.data, self.name = kept[1], name

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[bytes, str]]:
        return _prepare_like, (self.data, self.name)


def _prepare_like(data: bytes, name: str) -> dict[str, Any]:
    """Unpickles it in the child, and makes the child's own processes like this one."""
    definition, preparation = reduction.pickle.loads(data)
    # Both get one template: what main has made by these arguments, and the method itself.
    _default._follow(_contexts.setdefault(_key(*definition), _default), *definition)
    preparation["name"] = name
    _main_module.take(preparation)
    return preparation


def _tracker() -> int:
    """Returns the descriptor of the resource tracker, which is started if need be, and not woken up otherwise."""
    descriptor = resource_tracker._resource_tracker._fd
    if descriptor is not None and not _native.poll_now(descriptor, 0):  # an error: nobody reads
        return descriptor
    return resource_tracker.getfd()  # type: ignore[return-value]


def run_child() -> None:
    """Runs the program of a child."""
    data, parent, tracker = map(int, sys.argv[2:])
    resource_tracker._resource_tracker._fd = tracker
    sys.exit(spawn._main(data, parent))  # type: ignore[call-arg]


_rehearsed = b""  # what spares unpickle


def _rehearsed_target(*arguments: object, **keywords: object) -> None:
    """Stands for what is called, which may be anything."""


def prepare_rehearsal() -> None:
    """Prepares the rehearsal, in the template, for its spares."""
    global _rehearsed
    current = process.current_process()
    state: dict[str, Any] = {
        "_identity": (1,), "_config": {}, "_parent_pid": os.getpid(), "_parent_name": current.name,
        "_popen": None, "_closed": False, "_target": _rehearsed_target, "_args": (1,),
        "_kwargs": {"key": ["value", 1, 1.5]}, "_name": current.name,
    }
    try:
        _rehearsed = _pickle(object(), _rebuild_process(state), _default.definition)
    except Exception:  # it has no directory, or a module has left something of its own: spares do without
        _rehearsed = b""
    finally:
        _Preparation._kept = None, None


def _changed_by_children() -> tuple[tuple[Any, str], ...]:
    """Returns (holder, name) of what a child changes on its way to the target, and behind it."""
    return (
        (sys, "argv"), (sys, "path"), (sys, "stdin"), (process, "_current_process"), (process, "_parent_process"),
        (process, "_process_counter"), (process, "_children"), (process, "ORIGINAL_DIR"),
        (context._default_context, "_actual_context"), (resource_tracker._resource_tracker, "_fd"),
        (spawn, "runpy"), (util, "_exit_function"), (process.threading, "_shutdown"),
    )


def rehearse() -> None:
    """Goes, in a spare, the way of a child to its target, for the pages that this writes to. Nothing of it stays."""
    kept = [(holder, name, getattr(holder, name)) for holder, name in _changed_by_children()]
    contexts, current = dict(_contexts), process.current_process()
    key = current.authkey  # each spare has its own by now
    mains = {name: sys.modules[name] for name in ("__main__", "__mp_main__") if name in sys.modules}
    descriptors = []
    try:
        sys.modules["__main__"] = type(sys)("__main__")
        spawn.runpy = None  # no main module is run again, whatever comes
        # All this belongs to the end of the process, to which this one does not come.
        util._exit_function = process.threading._shutdown = bool
        sys.stdin = open(os.devnull, encoding="utf-8")  # to be closed
        sys.argv = ["-c", "--multiprocessing-fork", str(_write(_rehearsed)), "-1", "-1"]
        try:
            exec(CHILD_CODE, {"__name__": "__main__"})
        except SystemExit:
            descriptors.append(sys.stdin.fileno())
    finally:
        util.close_fds(*descriptors)
        for holder, name, value in kept:
            setattr(holder, name, value)
        current.authkey = key
        sys.modules.update(mains)
        _contexts.clear()
        _contexts.update(contexts)


class WarmforkProcess(process.BaseProcess):
    """A multiprocessing.Process of this method."""

    _start_method = _NAME
    _warm_context: WarmforkContext  # the method's own, set below

    @staticmethod
    def _Popen(process_object: process.BaseProcess) -> _Popen:
        return _Popen(process_object)

    @staticmethod
    def _after_fork() -> None:
        """Nothing of a parent's state is here."""

    @property
    def backend(self) -> str | None:
        """"warm" or "cold"; None before start()."""
        backend: str | None = getattr(self._popen, "backend", None)
        return backend

    @property
    def reason(self) -> str:
        """Why it is cold; "" if it is warm."""
        reason: str = getattr(self._popen, "reason", "")
        return reason


def _rebuild_process(state: dict[str, Any]) -> WarmforkProcess:
    rebuilt = WarmforkProcess.__new__(WarmforkProcess)
    rebuilt.__dict__.update(state)
    return rebuilt


class WarmforkContext(context.BaseContext):
    """A context whose processes come from a template of its own; see get_context().

    counts: {"warm": number of processes, "cold": number}, of this process's.
    """

    _name = _NAME

    Process: type[WarmforkProcess]

    def __init__(self, preload: Iterable[str] = (), **options: Any) -> None:
        self._preload = list(preload)
        self._options = options
        self._template: Template | None = None
        self._owner: int | None = None
        self._followed: WarmforkContext | None = None
        self.counts = {"warm": 0, "cold": 0}

        class Process(WarmforkProcess):
            _warm_context = self

            def __reduce__(self) -> Any:
                # For a child, whose context is its own; subclasses are found by their own names.
                if type(self) is Process:
                    return _rebuild_process, (self.__dict__,)
                return super().__reduce__()

        Process.__qualname__ = "Process"
        self.Process = Process

    def get_start_method(self, allow_none: bool = False) -> str:
        """"warmfork"."""
        return self._name

    def set_preload(self, preload: Iterable[str]) -> None:
        """Changes which modules are preloaded. RuntimeError: the first process has been started."""
        if self._template is not None:
            raise RuntimeError("the template has been started already")
        self._preload = list(preload)
        self._followed = None

    @property
    def definition(self) -> Definition:
        """What makes two contexts alike: their modules, and the options of their templates."""
        return self._preload, self._options

    def _follow(self, other: WarmforkContext, preload: list[str], options: dict[str, Any]) -> None:
        """Is from now on as the other one, which has this definition."""
        self._followed = None if other is self else other
        self._preload, self._options = preload, options

    def Pool(
        self, processes: int | None = None, initializer: Callable[..., object] | None = None,
        initargs: Iterable[Any] = (), maxtasksperchild: int | None = None,
    ) -> Any:
        """As multiprocessing's."""
        if _green.library() is None:
            return super().Pool(processes, initializer, initargs, maxtasksperchild)
        from ._green_pool import Pool

        return Pool(processes, initializer, initargs, maxtasksperchild, context=self.get_context())

    @property
    def template(self) -> Template:
        """The template; the first use opens it. `template.wait_ready()` waits for its imports."""
        if self._followed is not None:
            return self._followed.template
        if self._template is None or self._owner != os.getpid():
            if (green := _green.library()) is not None:
                # This is for whoever waits for several of multiprocessing's connections: pools, executors.
                connection._WaitSelector = green.selector
            modules = [f"multiprocessing.{name}" for name in _MODULES]
            self._template = Template(
                [*modules, "warmfork.multiprocessing", *self._preload, *_main_module.described()],
                options=util._args_from_interpreter_flags(),
                **self._options,
            )
            self._owner = os.getpid()
            # This comes after multiprocessing has joined what still runs.
            util.Finalize(self, self._template.close, exitpriority=-100)
        return self._template


_default = WarmforkContext()
WarmforkProcess._warm_context = _default
# By this name children unpickle what was made by the method itself, and subclasses find it.
_default.Process = WarmforkProcess

_contexts: dict[tuple[tuple[str, ...], str], WarmforkContext] = {}


def _key(preload: Iterable[str], options: dict[str, Any]) -> tuple[tuple[str, ...], str]:
    return tuple(preload), repr(sorted(options.items()))


def get_context(preload: Iterable[str] = (), **options: Any) -> WarmforkContext:
    """A multiprocessing context of the method "warmfork", with all that multiprocessing.get_context("spawn") has. Equal
    arguments give the same context, with one template, which the first process opens.

    preload: names of modules that its children begin with.
    options: those of warmfork.Template, whose errors come from the first process's start().
    """
    key = _key(preload, options)
    if key not in _contexts:
        _contexts[key] = WarmforkContext(preload, **options)
    return _contexts[key]


def set_preload(preload: Iterable[str]) -> None:
    """Says which modules the children of the method "warmfork" begin with. RuntimeError: the first has been started."""
    _default.set_preload(preload)


def install() -> None:
    """Adds the start method "warmfork" to multiprocessing. Importing this module does it."""
    add_method(_NAME, _default)


install()
