"""What the gate is to be asked about: what preloading has done that each child would do anew, or have otherwise.

A finding is a name, "identity:MODULE", "output:MODULE", "program:MODULE" or "directory:./NAME", by which it can be
allowed, and a text. What a module has from the directory is for each spawn to ask about: a child in the same one has
nothing otherwise. What it writes there is a finding: each child would write.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
import sys

from .. import _native
from . import _child, _kept
from ._modules import attributes_of, is_standard
from ._renewals import find_renewals
from ._seeds import told
from .._errors import Unsuitable

# It is the same as typing's, which children that import it would otherwise find loaded.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import Any

    from .._types import Finding, Kept
    from ._observer import Observer, Seen

# These write what they read by programs into a cache, which cold children read.
_HARMLESS_PROGRAMS = ("matplotlib.font_manager",)
# The first keeps when it last looked at resolv.conf, which it does again after a while. The second keeps the name of
# the semaphore by which it has tried whether there are any, and which is gone. The third keeps the time that it writes
# into comments of the C code which it generates (scipy imports it by looking through all of numpy). The fourth keeps
# from when on it counts in messages for those who look for its faults.
_HARMLESS_MODULES = (
    "eventlet.support.greendns", "joblib._multiprocessing_helpers", "numpy.f2py.rules", "jedi.debug",
)
# Libraries that keep a state of their own, of which they make ids.
_LIBRARIES_WITH_STATE = ("libuuid.so",)
_LONGEST_OUTPUT = 80
_TEMPORARY = "has made {path} when it was imported, and each child would make a temporary one of its own"
_MADE = "{name} was made or changed when {modules} was imported, and each child would do so in its own directory"
_UNSEEN = "has had random bytes from a file, or too many to note, and what it keeps of them cannot be seen"
_PUT_RIGHT = [(name, attribute, "directory") for name, attribute, _ in _child.KEEP_DIRECTORY] + [
    (name, attribute, "arguments") for name, attribute in _child.KEEP_ARGUMENTS
]


class Findings:
    """found: [(name, text)]. in_directory: names of modules that keep the directory of the template, or a path in it.
    asked: [(module, kinds)], of what is not kept as far as can be seen. libraries:
    [(path, kinds)], of which nobody can see what they keep."""

    def __init__(
        self, observer: Observer, draws: list[bytes], ours: Iterable[Any], began: float, doubts: list[tuple[Any, str]],
    ) -> None:
        """ours: objects that are put right in each child. began: time.monotonic() at the first import. doubts: as of
        Moment."""
        _stop_resource_tracker()
        _kept.put_right()
        kept = _kept.find_monotonic(began)
        seen = {**observer.at_start, **observer.seen}
        for name, names in _kept.find_kept(seen, observer.arguments.only, draws, ours).items():
            kept.setdefault(name, {}).update(names)
        self.found: list[Finding] = []
        self.asked: list[tuple[str, list[str]]] = []
        self.libraries: list[tuple[str, list[str]]] = []
        _take_right(kept)
        self.in_directory = _take_directory(kept)
        self._add_modules(observer.seen, kept)
        for name, path in observer.left_behind().items():
            self.found.append((f"identity:{name}", f"{name} {_TEMPORARY.format(path=path)}"))
        if places := observer.arguments.give_back():
            self.found.append(("identity:sys", f"a module keeps sys.argv of the process that imports it, in a {places[0]}"))
        if doubts:
            self.found.append(("identity:random", told(*doubts[0])))
        self.found += _made_files(observer)
        self.found += _of_process()
        for path, kinds in _asking_libraries():
            name = os.path.basename(path)
            if not _has_state(name, kinds) and not name.startswith(("python", "libpython", "libwarmfork", "_native.")):
                self.libraries.append((path, kinds))

    def _add_modules(self, seen: dict[str, Seen], kept: Kept) -> None:
        for name, names in kept.items():
            if name in _HARMLESS_MODULES:
                continue
            where = ", ".join(f"{_kept.described(kind)} in {name}.{attribute}" for attribute, kind in names.items())
            keeps = "may keep" if {_kept.UNSEARCHED, _kept.UNTOLD}.intersection(names.values()) else "keeps"
            self.found.append((f"identity:{name}", f"{name} {keeps} what it took from the process: {where}"))
        for name, of_module in seen.items():
            if of_module["output"]:
                self.found.append((f"output:{name}", f"{name} wrote {_beginning(of_module)!r} when it was imported"))
            if of_module["program"] and name not in _HARMLESS_PROGRAMS:
                text = f"a program was started when {name} was imported, and what it read is not known"
                self.found.append((f"program:{name}", text))
            if of_module[_kept.UNSEEN] and not is_standard(name) and _has_python_unseen():
                self.found.append((f"identity:{name}", f"{name} {_UNSEEN}"))
            kinds = [kind for kind in _kept.KEPT if of_module[kind]]
            if kinds and not is_standard(name):
                self.asked.append((name, kinds))


def _made_files(observer: Observer) -> list[Finding]:
    """Those that are there, by a relative path: [(name, text)]."""
    modules = [name for name, of_module in observer.seen.items() if of_module["file"]]
    if not modules:
        return []
    names, are_all = made_files(observer.is_temporary)
    texts = {name: name for name in names}
    if not are_all:
        texts["*"] = "more than can be noted"
    return [(f"directory:./{name}", _MADE.format(name=text, modules=", ".join(modules))) for name, text in texts.items()]


def made_files(is_temporary: Callable[[str], bool] = lambda path: False) -> tuple[list[str], bool]:
    """Returns the names, relative paths, of those of this directory that have been made or changed until now, and whether
    these are all. What is open still is the gate's to find, and of a directory it is enough that it is there."""
    names: list[str] = []
    made, are_all = _native.made()
    try:
        here = os.getcwd()
    except FileNotFoundError:
        return names, are_all  # what was made in it is gone with it
    still_open = set(map(_identity_of, _native.descriptors_in_the_way())) if made else ()
    for path, name in made:
        identity = _identity_of(path)
        is_there = identity is not None and identity not in still_open
        if path == f"{here}/{name}" and is_there and not is_temporary(path):
            names.append(name)
    return names, are_all


def _identity_of(file: str | int) -> tuple[int, int] | None:
    """Of a path or descriptor; None: there is none, or it is a directory."""
    try:
        status = os.fstat(file) if isinstance(file, int) else os.lstat(file)
    except OSError as error:
        if error.errno not in (errno.ENOENT, errno.ENOTDIR, errno.EBADF):
            raise
        return None
    return None if stat.S_ISDIR(status.st_mode) else (status.st_dev, status.st_ino)


def _of_process() -> list[Finding]:
    """Returns [(name, text)] of those that are of this process rather than of a module."""
    found = []
    if programs := _running_programs():
        found.append(("program:", f"a program that was started while preloading still runs: {', '.join(programs)}"))
    for path, kinds in _asking_libraries():
        name = os.path.basename(path)
        if _has_state(name, kinds):
            found.append((f"identity:{name}", f"{name} has made an id, and would go on from there"))
    return found


def _asking_libraries() -> list[tuple[str, list[str]]]:
    """Returns [(path, kinds)]: what libraries have asked the process for."""
    return [
        (path, [kind for number, kind in enumerate(_native.ASKED) if bits >> number & 1])
        for path, bits in _native.askers()
    ]


def _has_python_unseen() -> bool:
    """Has it been Python code? Of a library nobody can see what it keeps in any case: `libraries` tells of it."""
    names = [os.path.basename(path) for path, kinds in _asking_libraries() if _kept.UNSEEN in kinds]
    return any(".so" not in name or name.startswith("libpython") for name in names)


def _has_state(name: str, kinds: list[str]) -> bool:
    return name.startswith(_LIBRARIES_WITH_STATE) and "random bytes" in kinds


def _take_right(kept: Kept) -> None:
    """Takes out what each child has put right."""
    for name, attribute, kind in (*_PUT_RIGHT, *((*names, "random bytes") for names in find_renewals())):
        attributes = kept.get(name, {})
        if attributes.get(attribute) == kind:
            del attributes[attribute]
            if not attributes:
                del kept[name]


def _take_directory(kept: Kept) -> list[str]:
    """Takes the directory out of what is kept, and returns the names of the modules that keep it."""
    names = []
    for name, attributes in list(kept.items()):
        rest = {attribute: kind for attribute, kind in attributes.items() if kind != "directory"}
        if len(rest) < len(attributes):
            names.append(name)
        kept[name] = rest
        if not rest:
            del kept[name]
    return names


def _running_programs() -> list[str]:
    """Returns the command lines of this process's children, zombies too, or a word for them where they cannot be
    listed."""
    try:
        os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return []
    return [_command_line(pid) for pid in _children()] or ["which one cannot be told"]


def _children() -> list[str]:
    """Returns their process ids, as texts; none where they cannot be listed."""
    with contextlib.suppress(OSError), open(f"/proc/self/task/{os.getpid()}/children") as children:
        return children.read().split()
    return []


def _stop_resource_tracker() -> None:
    """Stops multiprocessing's tracker, which runs on for whoever has tried a lock at import. What still has a lock has
    a shared mapping, which the gate finds; a child starts a tracker of its own, or has its parent's, as a cold one
    does. It ends when nobody has its pipe. Another child could have it, and would be waited for, so it must be the only
    one."""
    tracker = attributes_of(sys.modules.get("multiprocessing.resource_tracker")).get("_resource_tracker")
    stop, pid = getattr(tracker, "_stop", None), getattr(tracker, "_pid", None)
    if stop is not None and _children() == [str(pid)]:
        stop()


def _command_line(pid: str) -> str:
    for name in ("cmdline", "comm"):  # a zombie has the second alone
        with contextlib.suppress(OSError), open(f"/proc/{pid}/{name}", "rb") as file:
            if text := file.read().replace(b"\0", b" ").decode(errors="replace").strip():
                return text[:_LONGEST_OUTPUT]
    return pid


def _beginning(of_module: Seen) -> str:
    """Of what a module has written: it is still in the file that takes the template's output. One that has opened that
    anew has begun at its beginning."""
    begin = of_module.output_at if of_module.output_at < os.fstat(1).st_size else 0
    text = os.pread(1, min(of_module["output"], _LONGEST_OUTPUT), begin)
    return text.decode(errors="replace").strip().partition("\n")[0]


def leave_to_children(observer: Observer, name: str) -> None:
    """Was there anything at the import of this module? It is forgotten, then, so that children import it anew; raises
    Unsuitable."""
    done = ["it makes a temporary file"] if name in observer.left_behind() else []
    seen = observer.seen.pop(name, None)
    if seen is not None:
        kept = _kept.find_kept({name: seen}, observer.arguments.only, _native.drawn()).get(name, {})
        # The main module is prepared for one directory: see _main_module.py.
        done += [f"it keeps the {kind}" for kind in kept.values() if kind != "directory"]
        whats = {
            "output": "it writes something",
            "program": "it starts a program",
            "file": "it makes files",
            _kept.UNSEEN: "it has random bytes that nobody has seen",
        }
        done += [what for kind, what in whats.items() if seen[kind]]
    if done:
        sys.modules.pop(name, None)
        raise Unsuitable(done[0])
