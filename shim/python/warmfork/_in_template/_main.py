"""What runs in a template: import the modules, then serve. Started by warmfork_template_open."""

from __future__ import annotations

import _thread
import atexit
import gc
import os
import runpy  # noqa: F401  every `python3 -m` needs it
import signal
import sys
import time

from ._description import Finders, ReadVariables, changes_of_path, describe, kept_directories
from ._findings import Findings, leave_to_children, made_files
from ._generators import Generators, find_generators, seed_anew
from ._kept import Moment
from ._modules import copies_of
from ._observer import KINDS, Observer
from ._seeds import Seeds
from .. import _native
from . import _child, _ends, _lazy
from .._errors import Unsuitable

# It is the same as typing's, which children that import it would otherwise find loaded.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from typing import Any, NoReturn

    from ._learning import Learned

    Refuse = Callable[[str, BaseException], None]

# This word stands in front of the modules, and says what becomes of those that cannot be imported.
_ON_ERROR = "on_error="


def _obstacle_at_start() -> str:
    """Returns what the interpreter, or what site runs, has done already that every cold one would, as a sentence, or
    ""."""
    _flush()
    names, are_all = made_files()
    if os.fstat(1).st_size > 0:  # the owner's file, as is descriptor 2
        done = "writes something"
    elif names or not are_all:
        done = f"makes or changes files in its directory ({', '.join(names[:3])})"
    elif _native.observe()[KINDS.index("program")] > 0:
        done = "has a program run"
    else:
        return ""
    return f"the interpreter {done} whenever it starts"


def _import_all(names: list[str], observer: Observer, refuse: Refuse) -> list[tuple[str, float]]:
    """Imports the modules; returns how long each took, in seconds. observer: looks on. refuse: called for one that
    cannot be imported, with its name and the exception. "MODULE=TEXT": for the module's own function `preload`."""
    from importlib import import_module

    times = []
    for number, entry in enumerate(names, 1):
        module, separator, text = entry.partition("=")
        is_main = module == "warmfork._main_module"
        name = "__main__" if is_main else module
        # This is for whoever waits for it.
        os.write(2, b"%c%d/%d %s\n" % (_native.PROGRESS_MARK, number, len(names), os.fsencode(name)))
        began = time.perf_counter()
        try:
            if is_main:
                observer.watch("__mp_main__", import_module(module).preload, text)
                leave_to_children(observer, "__mp_main__")
            else:
                observer.watch(name, import_module, name)
                if separator:
                    sys.modules[module].preload(text)
        except BaseException as error:
            refuse(name, error)
            continue
        times.append((name, time.perf_counter() - began))
    return times


class _Refusals:
    """What becomes of modules that cannot be imported. failed: [(name, why)], of those that are left out."""

    def __init__(self, on_error: str) -> None:
        """on_error: "fail", "warn" (which is the owner's to do) or "ignore". "": fail, but for the main module,
        which children import themselves then, and come to the same error where it is one."""
        self.failed: list[tuple[str, str]] = []
        self._on_error = on_error

    def __call__(self, name: str, error: BaseException) -> None:
        is_main, is_suitable = name == "__main__", not isinstance(error, Unsuitable)
        if is_suitable and (self._on_error or ("ignore" if is_main else "fail")) == "fail":
            if isinstance(error, SystemExit):
                raise ImportError(f"{name} ends the interpreter when it is imported: {error!r}") from error
            raise error
        self.leave_out(name, error)

    def leave_out(self, name: str, error: BaseException) -> None:
        self.failed.append((name, str(error) if isinstance(error, Unsuitable) else f"{type(error).__name__}: {error}"))


def _learning_folder(program: str, names: Iterable[str], allowed: list[str]) -> str:
    from . import _learning

    return _learning.folder_of(program, names, allowed)


def _learn(
    program: str, folder: str, times: list[tuple[str, float]], observer: Observer, allowed: list[str],
) -> Learned:
    """Preloads what children were seen to import, and adds it to the times."""
    from . import _learning

    learned = _learning.learn(program, folder, observer, allowed)

    def refuse(name: str, error: BaseException) -> None:
        learned.refuse(name, f"it could be imported once, and not again: {error!r}")

    times += _import_all([name for name, *_ in learned.modules], observer, refuse)
    return learned


def _observer_in_the_way() -> str:
    """Returns an obstacle where somebody watches what the interpreter does, and could not go on in children, or ""."""
    if sys.gettrace() or sys.getprofile():
        return "preloading has set a trace or profile function, which a child could not go on with"
    if hasattr(sys, "monitoring"):
        for number in range(6):  # as many as there may be
            if tool := sys.monitoring.get_tool(number):
                return f"preloading has registered {tool!r} with sys.monitoring, which a child could not go on with"
    return ""


def _quoted(text: str) -> str:
    # It is written by hand: importing json would show in every child.
    plain = "".join(char if char >= " " else " " for char in text)
    return '"' + plain.replace("\\", "\\\\").replace('"', '\\"').encode(errors="replace").decode() + '"'


def _report(
    times: list[tuple[str, float]], failed: list[tuple[str, str]], learned: Learned | None, findings: Findings,
) -> str:
    imports = ", ".join(f'{{"module": {_quoted(name)}, "seconds": {seconds:.6f}}}' for name, seconds in times)
    asked = ", ".join(
        f'{{"{key}": {_quoted(name)}, "for": [{", ".join(map(_quoted, kinds))}]}}'
        for key, pairs in (("module", findings.asked), ("library", findings.libraries)) for name, kinds in pairs
    )
    return (
        f'{{"python": {_quoted(sys.version.split()[0])}, "imports": [{imports}], "asked": [{asked}], '
        f'"failed": [{_with_reasons(failed)}]{_report_learned(learned)}}}'
    )


def _with_reasons(modules: Iterable[tuple[str, ...]]) -> str:
    return ", ".join(f'{{"module": {_quoted(name)}, "reason": {_quoted(reason)}}}' for name, reason in modules)


def _report_learned(learned: Learned | None) -> str:
    if learned is None:
        return ""
    modules = ", ".join(
        f'{{"module": {_quoted(name)}, "seconds": {seconds:.6f}, "kilobytes": {kilobytes}}}'
        for name, seconds, kilobytes in learned.modules
    )
    return (
        f', "learned": {{"folder": {_quoted(learned.folder)}, "children": {learned.children}, '
        f'"modules": [{modules}], "refused": [{_with_reasons(learned.refused)}], "error": {_quoted(learned.error)}}}'
    )


def _leave_no_trace(package: str, names: Iterable[str]) -> None:
    """Removes warmfork, so that a child that imports it finds it, or does not, as a cold one would, except where it is
    to be preloaded itself."""
    own = [name for name in sys.modules if name.partition(".")[0] == "warmfork"]
    directories = [os.path.join(package, "warmfork", "_in_template")]
    if any(name.startswith("warmfork.") for name in names):
        own = [name for name in own if name.startswith(("warmfork._in_template", "warmfork._template"))]
    else:
        directories += [package, os.path.join(package, "warmfork")]
    for directory in directories:
        if directory not in sys.path:
            sys.path_importer_cache.pop(directory, None)
    for name in own:
        del sys.modules[name]


def _started_with(environment: dict[bytes, bytes]) -> dict[bytes, bytes]:
    """Returns it without what the owner put in for the template."""
    for name in (_native.CHANNEL_VARIABLE, _native.LAUNCH_VARIABLE):
        environment.pop(name.encode(), None)
    preloaded = environment.pop(b"LD_PRELOAD", b"").partition(b":")[2]
    return {**environment, b"LD_PRELOAD": preloaded} if preloaded else environment


class _ThreadState:
    """What the main thread has of its own, and modules may set when they are imported. `restore` is called in
    the thread state that children begin with: see leave_python_frames."""

    def __init__(self, inherited: Iterable[Any]) -> None:
        """inherited: thread-local objects that are known already; what is frozen is not found by itself."""
        is_new = "_contextvars" not in sys.modules
        import _contextvars

        if is_new:
            del sys.modules["_contextvars"]
        self.variables = list(_contextvars.copy_context().items())
        self.asyncgen_hooks = sys.get_asyncgen_hooks()
        self.coroutine_depth = sys.get_coroutine_origin_tracking_depth()
        # It is not put in one list with what is inherited: that would be among the objects, and refer to itself.
        self.locals = [
            (local, dict(self._values_of(local)))
            for objects in (inherited, gc.get_objects())
            for local in objects if issubclass(type(local), _thread._local)
        ]

    @staticmethod
    def _values_of(local: Any) -> dict[str, Any]:
        return _thread._local.__getattribute__(local, "__dict__")

    def restore(self) -> None:
        for variable, value in self.variables:
            variable.set(value)
        sys.set_asyncgen_hooks(*self.asyncgen_hooks)
        sys.set_coroutine_origin_tracking_depth(self.coroutine_depth)
        for local, values in self.locals:
            if values:
                self._values_of(local).update(values)


def _ignored_signals() -> set[int]:
    return {number for number in signal.valid_signals() if signal.getsignal(number) is signal.SIG_IGN}


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr, sys.__stdout__, sys.__stderr__):
        if stream is not None:
            try:
                stream.flush()
            except ValueError:
                pass  # closed or detached


def _find_hook(name: str) -> Any:
    """Returns the function that "module:function" names, or None where there is no hook."""
    if not name:
        return None
    from importlib import import_module

    module, _, function = name.partition(":")
    found = import_module(module)
    for part in function.split("."):
        found = getattr(found, part)
    return found


class _Image:
    """What a layer has to know of the image that it is preloaded on top of."""

    def __init__(self) -> None:
        self.names: tuple[str, ...] = ()  # of the modules that were asked for
        self.times: list[tuple[str, float]] = []
        self.of_packages: frozenset[str] = frozenset()  # see ModulesOfPackages
        self.frozen_before = gc.get_freeze_count()  # objects
        self.ignored = _ignored_signals()  # when the interpreter had started
        self.own_path = sys.path[:]
        self.search_path: list[str] = []  # came in front of it
        self.whole_path = self.own_path  # both, and what preloading has made of it
        self.path_copies: list[list[str]] = []  # that modules have made of that
        self.locals: Sequence[Any] = ()
        self.first_builtins: dict[str, Any] | None = None
        self.generators: Generators | None = None

    def take_path(self) -> None:
        """Takes what preloading has made of sys.path, which is the interpreter's own again."""
        self.whole_path, self.path_copies = sys.path[:], [*self.path_copies, *copies_of(sys.path)]
        sys.path[:] = self.own_path
        for entry in self.search_path:
            if entry not in self.own_path:
                sys.path_importer_cache.pop(entry, None)

    def path_for(self, search_path: list[str]) -> tuple[list[str], list[str]]:
        """Returns sys.path before the first import, and now, with these search directories in front."""
        before = search_path + [entry for entry in self.own_path if entry not in search_path]
        if search_path == self.search_path:
            return before, self.whole_path[:]
        # The others go, unless the interpreter itself has them, and these come in their place.
        left = [entry for entry in self.whole_path if entry not in search_path]
        given_up = [entry for entry in self.search_path if entry in left]
        place = left.index(given_up[0]) if given_up else 0
        kept = [entry for entry in left if entry in self.own_path or entry not in given_up]
        kept[place:place] = search_path
        return before, kept


def _drop_listings() -> None:
    """Has directories looked at anew: what the base remembers of them may be older than the last change."""
    finders: list[Any] = list(sys.path_importer_cache.values())
    for finder in finders:
        if hasattr(finder, "invalidate_caches"):
            finder.invalidate_caches()


def _seed_again(generators: Generators) -> None:
    """Seeds again, in a layer, so that the random bytes that are drawn for it are known. generators: those of what it
    lies on."""
    seed_anew(generators)
    random = sys.modules.get("random")
    if random is not None and not generators.restored:
        random._inst.seed()  # by itself it has done so when this process was forked


def _find_generators(image: _Image, base: _Image, draws: list[bytes], moment: Moment) -> Generators:
    if base is image or gc.get_freeze_count() != image.frozen_before:
        gc.unfreeze()  # what modules have frozen is not found otherwise
    inherited = base.generators.found if base.generators else ()
    return Generators(find_generators(inherited), draws, Seeds(draws, moment))


def _begin(base: _Image | None) -> tuple[_Image, dict[bytes, bytes], str]:
    """Returns a new image, on top of base or None; what the interpreter was started with; and what is in the way
    already."""
    image = _Image()
    if base is None:
        image.first_builtins = _ends.first_builtins()
        return image, _started_with(_native.start_environment()), _obstacle_at_start()
    image.ignored, image.own_path, image.first_builtins = base.ignored, base.own_path, base.first_builtins
    image.path_copies = base.path_copies
    _drop_listings()
    assert base.generators is not None
    _seed_again(base.generators)
    return image, _native.start_environment(), ""


def _freeze(image: _Image, base: _Image, is_called_last: bool) -> _ThreadState:
    """Freezes all that there is. Returns what the main thread has of its own."""
    _flush()
    gc.collect()
    thread_state = _ThreadState(base.locals)
    image.locals = [local for local, _ in thread_state.locals]
    _native.freeze_image(
        **_ends.kinds(), of_python=_Image, first_builtins=base.first_builtins,
        namespaces=[globals(), vars(_child), vars(sys.modules["__main__"])], is_last=is_called_last,
    )
    return thread_state


def main(start: set[str]) -> NoReturn:
    """Does not return, nor do this frame's variables ever go, so there are no more of them than must be."""
    _native.serve(_preload(start))


def _preload(start: set[str]) -> list[Any]:
    """Makes the image; returns what _native.serve wants. sys.argv: -c, the package's directory, the two hooks,
    "learn=PROGRAM" or "", the number of search directories, these, the modules. start: the names in sys.modules when this
    began."""
    _native.announce()
    os.environ.pop(_native.LAUNCH_VARIABLE, None)
    base = _native.extended_image()
    is_called_last = atexit._ncallbacks() == 0
    if base is None:
        atexit.register(_native.finalize_image)
    package, before_fork, in_child, learns, count, *entries = sys.argv[1:]
    path, names = entries[:int(count)], entries[int(count):]
    refusals = _Refusals(names.pop(0)[len(_ON_ERROR):] if names and names[0].startswith(_ON_ERROR) else "")
    del sys.argv[1:]  # not for the modules
    sys.path.remove(package)
    image, start_environment, obstacle = _begin(base)
    base, described = base or image, start if base else ()
    path_at_start, sys.path[:] = base.path_for(path)
    image.names, image.search_path = (*base.names, *names), path
    program, *allowed = learns.partition("=")[2].split("\n")
    folder = _learning_folder(program, image.names, allowed) if learns else ""
    variables = ReadVariables()
    began, began_monotonic = time.time_ns(), time.monotonic()
    observer = Observer(_flush, base is image)
    finders = Finders()
    times = base.times + _import_all(names, observer, refusals)
    learned = _learn(program, folder, times, observer, allowed) if learns else None
    _lazy.resolve(refusals.leave_out)
    hooks = _find_hook(before_fork), _find_hook(in_child)
    missed, of_packages = finders.stop()
    variables.stop()
    observer.stop()
    draws = _native.drawn()
    moment = Moment(began, observer)
    image.generators = generators = _find_generators(image, base, draws, moment)
    findings = Findings(observer, draws, generators.found, began_monotonic, moment.doubts)
    _leave_no_trace(package, image.names)
    description = describe(start, sys.path, missed, described)
    path_changes = changes_of_path(path_at_start, sys.path)
    image.times, image.of_packages = times[:], base.of_packages | of_packages
    image.take_path()
    _child.remember_image(
        image.names, start_environment, _native.current_environment(), hooks[1],
        image.ignored & _ignored_signals(), path_changes, image.path_copies, image.of_packages, generators,
    )
    _child.leave_numpy_to(_native.register_twister)
    _child.see_links_by(_native.is_link_program)
    obstacle = obstacle or _observer_in_the_way()
    thread_state = _freeze(image, base, is_called_last)
    return [
        _child,
        hooks[0],
        _report(times, refusals.failed, learned, findings),
        (list(variables.names), variables.all, *description[:-1], description[-1] + kept_directories(findings)),
        os.fsencode(learned.log) if learned else b"",
        obstacle,
        [(os.fsencode(name), text.encode(errors="replace")) for name, text in findings.found],
        thread_state.restore,
        image,
    ]
