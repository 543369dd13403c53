"""What an image is made from: variables, files, where they were looked for, and what that did to the search path."""

from __future__ import annotations

import os
import sys

from ._modules import attributes_of
from ._run_module import ModulesOfPackages

# It is the same as typing's, which children that import it would otherwise find loaded.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator
    from typing import Any

    from .._types import Description, PathAddition
    from ._findings import Findings


class ReadVariables:
    """Notes which variables are read from os.environ, and is taken out of the way again."""

    def __init__(self) -> None:
        self.names: set[bytes] = set()
        self.all = False
        environ_type: Any = type(os.environ)
        self._type = environ_type
        recorder = self

        class Recorder(environ_type):
            def __getitem__(self, key: Any) -> Any:
                try:
                    recorder.names.add(self.encodekey(key))
                except TypeError:
                    pass  # it is of a wrong type, and is told so below
                return environ_type.__getitem__(self, key)

            # Whoever writes a variable loses what was there before.
            def __setitem__(self, key: Any, value: Any) -> None:
                environ_type.__setitem__(self, key, value)
                recorder.names.add(self.encodekey(key))

            def __delitem__(self, key: Any) -> None:
                recorder.names.add(self.encodekey(key))
                environ_type.__delitem__(self, key)

            def __iter__(self) -> Iterator[Any]:
                recorder.all = True
                return environ_type.__iter__(self)

            def __len__(self) -> int:
                recorder.all = True
                return environ_type.__len__(self)

            def __repr__(self) -> str:
                recorder.all = True
                return environ_type.__repr__(self)

        for environ in (os.environ, os.environb):
            environ.__class__ = Recorder

    def stop(self) -> None:
        for environ in (os.environ, os.environb):
            environ.__class__ = self._type


class MissedModules:
    """The last of the finders, which notes what none of the others has found."""

    def __init__(self) -> None:
        self.names: set[str] = set()

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> None:
        self.names.add(name)
        return None


class Finders:
    """Those that look on while modules are imported."""

    def __init__(self) -> None:
        self._missed, self._of_packages = MissedModules(), ModulesOfPackages()
        sys.meta_path.insert(0, self._of_packages)
        sys.meta_path.append(self._missed)

    def stop(self) -> tuple[set[str], set[str]]:
        """Returns the names of the modules that were not found, and of those that their packages have imported."""
        finder: Any
        for finder in (self._of_packages, self._missed):
            sys.meta_path.remove(finder)
        return self._missed.names, self._of_packages.names


def _sources_of(attributes: dict[str, Any]) -> tuple[str, str]:
    """Returns the file, and the cache, that a module comes from."""
    archive = getattr(attributes.get("__loader__"), "archive", None)
    file: Any = archive if isinstance(archive, str) else attributes.get("__file__")
    cache = attributes.get("__cached__") or getattr(attributes.get("__spec__"), "cached", None)  # from 3.15 on
    # Some modules name a file that never existed.
    has_file = isinstance(file, str) and os.path.exists(file)
    return os.path.abspath(file) if has_file else "", os.path.abspath(cache) if isinstance(cache, str) else ""


def _lies_where_its_name_says(name: str, file: str) -> bool:
    """Does it lie where its name says? Otherwise a finder of somebody's own has found it, as with distutils from within
    setuptools, and no file on the search path would come before it."""
    folder, base = os.path.split(file or "")
    stem = base.partition(".")[0]
    return not file or name == (os.path.basename(folder) if stem == "__init__" else stem)


def _parts_of(attributes: dict[str, Any]) -> list[str]:
    """The directories of a namespace package, in their order; none of other modules."""
    try:
        return [] if attributes.get("__file__") else list(filter(os.path.isabs, attributes.get("__path__", ())))
    except TypeError:
        return []  # a module that only looks like a package


def describe(start: Collection[str], path: list[str], missed: Iterable[str], described: Collection[str] = ()) -> Description:
    """Describes what is imported: its files, where it was looked for, and which modules a file beside a script would
    come before. start: the modules that every interpreter has from the beginning. missed: names that were looked for
    and not found; a file that is new might be. described: modules that need not be."""
    sources: set[str] = set()
    caches: set[str] = set()
    places: dict[str, set[str]] = {}
    shadowable: set[str] = set()
    looked_for: dict[str, dict[str, Any]] = {name: {} for name in (*missed, "sitecustomize", "usercustomize")}
    looked_for.update(
        (name, attributes_of(module)) for name, module in list(sys.modules.items()) if name not in described
    )
    for name, attributes in looked_for.items():
        origin = getattr(attributes.get("__spec__"), "origin", None)
        if name == "__main__" or origin in ("built-in", "frozen"):
            continue
        file, cache = _sources_of(attributes)
        sources.add(file)
        caches.add(cache)
        parent, _, leaf = name.rpartition(".")
        is_at_start = name in start or name in ("sitecustomize", "usercustomize")
        if not parent and not is_at_start and _lies_where_its_name_says(name, file):
            shadowable.add(f"{name}={file}")
            shadowable.update(f"{name}/{number:03}={part}" for number, part in enumerate(_parts_of(attributes)))
        try:
            entries = list(attributes_of(sys.modules.get(parent)).get("__path__", ())) if parent else path
        except TypeError:
            continue  # a module that only looks like a package
        for entry in entries:
            if isinstance(entry, str):
                places.setdefault(os.path.abspath(entry), set()).add(leaf)
    return (
        [os.fsencode(file) for file in sources if file],
        [os.fsencode(cache) for cache in caches if cache],
        [(os.fsencode(place), [os.fsencode(name) for name in names]) for place, names in places.items()],
        [os.fsencode(name) for name in shadowable],
    )


def kept_directories(findings: Findings) -> list[bytes]:
    """Returns where those modules lie of which children have something else in another directory: see ImageFacts."""
    return [os.fsencode(f".{name}={os.getcwd()}") for name in findings.in_directory]


def changes_of_path(before: list[str], after: list[str]) -> tuple[list[PathAddition], list[str]]:
    """Returns what preloading has added to sys.path, as pairs of an entry and the one that it came behind, and what it
    has removed. None: at the beginning; "": behind the program's own entry; ...: at the end."""

    def behind(entry: Any, entries: list[str]) -> list[PathAddition]:
        return [*zip((entry, *entries), entries)]

    for start in range(len(after) - len(before) + 1):
        end = start + len(before)
        if after[start:end] == before:
            return behind(None, after[:start]) + behind(..., after[end:]), []
    added = [
        ("" if entry == before[0] else entry, new)
        for entry, new in behind(None, after) if new not in before
    ]
    return added, [entry for entry in before if entry not in after]
