"""warmfork profile: what importing modules costs, and what a template of them would save.

Imports the modules one after the other in this process, and notes of each module that is loaded on the way its
time, the memory that it makes resident, and of each that was asked for what a fork costs after it, and so the life of
each child.
"""

from __future__ import annotations

import argparse
import html
import importlib
import json
import os
import resource
import sys
import time
from importlib.machinery import ModuleSpec, PathFinder

# It is the same as typing's, whose import would cost every start.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from types import ModuleType
    from typing import Any

    # A module: its name ("module"), the modules that it has loaded ("imports"), "seconds", "bytes", and, where it was
    # asked for, "fork_seconds".
    Node = dict[str, Any]

_PAGE = os.sysconf("SC_PAGE_SIZE")
_FORKS = 9
_SAVES_LITTLE = 0.001  # seconds
_COSTS_MUCH = 0.1  # of what it saves, in what each fork takes longer


def _resident() -> int:
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * _PAGE


def _used() -> float:
    """Returns the processor time of this process and its children, in seconds."""
    return sum(sum(resource.getrusage(of)[:2]) for of in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))


def _fork_seconds() -> float:
    """Returns what both use of the processors until a child that ends at once is reaped, as the median."""
    times = []
    for _ in range(_FORKS):
        began = _used()
        pid = os.fork()
        if pid == 0:
            os._exit(0)
        os.waitpid(pid, 0)
        times.append(_used() - began)
    return sorted(times)[_FORKS // 2]


class _Loader:
    """Loads as another loader does, and takes its time."""

    def __init__(self, loader: Any, profile: Profile) -> None:
        self._loader = loader
        self._profile = profile
        self._created = 0.0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._loader, name)

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        """Takes time as well: the library of an extension module is mapped here."""
        began = time.perf_counter()
        try:
            module: ModuleType | None = self._loader.create_module(spec)
            return module
        finally:
            self._created = time.perf_counter() - began

    def exec_module(self, module: ModuleType) -> None:
        with self._profile.measured(module.__name__, self._created):
            self._loader.exec_module(module)


class _Measure:
    def __init__(self, profile: Profile, node: Node) -> None:
        self._profile = profile
        self._node = node

    def __enter__(self) -> None:
        self._profile.stack[-1]["imports"].append(self._node)
        self._profile.stack.append(self._node)
        self._began, self._resident = time.perf_counter(), _resident()

    def __exit__(self, *_: object) -> None:
        self._node["seconds"] += time.perf_counter() - self._began
        self._node["bytes"] = max(0, _resident() - self._resident)
        self._profile.stack.pop()


class Profile:
    """The first of the finders while it measures."""

    def __init__(self) -> None:
        self.root: Node = {"module": "", "imports": [], "seconds": 0.0, "bytes": 0}
        self.stack = [self.root]

    def measured(self, name: str, seconds: float = 0.0) -> _Measure:
        """seconds: what it took already."""
        return _Measure(self, {"module": name, "imports": [], "seconds": seconds, "bytes": 0})

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None,
    ) -> ModuleSpec | None:
        spec = PathFinder.find_spec(name, path, target)
        if spec is not None and hasattr(spec.loader, "exec_module"):
            spec.loader = _Loader(spec.loader, self)  # type: ignore[assignment]
        return spec

    def run(self, names: Iterable[str]) -> Node:
        sys.meta_path.insert(0, self)
        fork = _fork_seconds()
        for name in names:
            with self.measured(f"import {name}"):
                importlib.import_module(name)
            node = self.root["imports"][-1]
            after = _fork_seconds()
            node["fork_seconds"], fork = after - fork, after
        sys.meta_path.remove(self)
        for key in ("seconds", "bytes"):
            self.root[key] = sum(node[key] for node in self.root["imports"])
        self.root["fork_seconds"] = fork
        return self.root


def _advice(node: Node) -> str:
    if node["seconds"] < _SAVES_LITTLE:
        return "saves next to nothing"
    if node["fork_seconds"] > _COSTS_MUCH * node["seconds"]:
        return "makes forks dearer: worth making lazy"
    return "worth preloading"


def _print_tree(node: Node, least: float, depth: int = 0) -> None:
    for child in sorted(node["imports"], key=lambda each: -each["seconds"]) if depth else node["imports"]:
        if child["seconds"] < least and depth:
            continue
        line = f"{child['seconds'] * 1000:9.1f} ms {child['bytes'] / 1e6:8.1f} MB  {'  ' * depth}{child['module']}"
        if depth == 0:
            line += f"   ({child['fork_seconds'] * 1e6:+.0f} µs a fork; {_advice(child)})"
        print(line)
        _print_tree(child, least, depth + 1)


_WIDTH, _ROW = 1200, 18


def flame_graph(root: Node) -> str:
    """Returns the tree as an SVG that opens in a browser: width is time, and each box tells its module."""
    boxes: list[str] = []
    deepest = 0

    def add(node: Node, left: float, depth: int) -> None:
        nonlocal deepest
        deepest = max(deepest, depth)
        width = node["seconds"] / (root["seconds"] or 1) * _WIDTH
        if width < 0.5:
            return
        name = node["module"] or "all"
        title = f"{name}: {node['seconds'] * 1000:.1f} ms, {node['bytes'] / 1e6:.1f} MB"
        text = html.escape(name) if width > 7 * len(name) else ""
        boxes.append(
            f'<g><title>{html.escape(title)}</title><rect x="{left:.1f}" y="{depth * _ROW}" width="{width:.1f}"'
            f' height="{_ROW - 1}" fill="hsl({30 - min(node["seconds"] / (root["seconds"] or 1), 1) * 30:.0f},80%,65%)"/>'
            f'<text x="{left + 3:.1f}" y="{depth * _ROW + 13}">{text}</text></g>'
        )
        for child in node["imports"]:
            add(child, left, depth + 1)
            left += child["seconds"] / (root["seconds"] or 1) * _WIDTH

    add(root, 0.0, 0)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {(deepest + 1) * _ROW}"'
        ' font-family="sans-serif" font-size="11">' + "".join(boxes) + "</svg>\n"
    )


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="warmfork profile", description="What importing modules costs.",
        epilog="--python FILE, before all others: the interpreter (default: python3).",
    )
    parser.add_argument("--preload", required=True, metavar="M,...", help="modules to import, in this order")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a tree")
    parser.add_argument("--svg", metavar="FILE", help="write a flame graph that a browser shows")
    parser.add_argument("--least", type=float, default=1.0, metavar="MS", help="leave out what took less (default: 1)")
    options = parser.parse_args(arguments)
    try:
        root = Profile().run([name for name in options.preload.split(",") if name])
    except ImportError as error:
        parser.exit(1, f"warmfork profile: {error}\n")
    if options.svg:
        with open(options.svg, "w") as file:
            file.write(flame_graph(root))
    if options.json:
        json.dump(root, sys.stdout, indent=1)
        print()
    else:
        print(f"{'time':>12} {'memory':>11}  module")
        _print_tree(root, options.least / 1000)
        print(f"{root['seconds'] * 1000:9.1f} ms {root['bytes'] / 1e6:8.1f} MB  altogether; "
              f"a fork of it {root['fork_seconds'] * 1e6:.0f} µs")


if __name__ == "__main__":
    main()
