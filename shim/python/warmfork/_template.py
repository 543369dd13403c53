"""What runs in a template: import the modules, then serve. Started by warmfork_template_open."""

import gc
import os
import posix
import runpy  # noqa: F401  every `python3 -m` needs it
import sys
import time

if sys.version_info >= (3, 13):
    import linecache  # noqa: F401  every `python3 -c` has it


class _ReadVariables:
    """Notes which variables are read from os.environ, and is taken out of the way again."""

    def __init__(self):
        self.names = set()
        self.all = False
        environ_type = self._type = type(os.environ)
        recorder = self

        class Recorder(environ_type):
            def __getitem__(self, key):
                try:
                    recorder.names.add(self.encodekey(key))
                except TypeError:
                    pass  # of a wrong type: it is told so below
                return environ_type.__getitem__(self, key)

            def __iter__(self):
                recorder.all = True
                return environ_type.__iter__(self)

            def __len__(self):
                recorder.all = True
                return environ_type.__len__(self)

            def __repr__(self):
                recorder.all = True
                return environ_type.__repr__(self)

        for environ in (os.environ, os.environb):
            environ.__class__ = Recorder

    def stop(self):
        for environ in (os.environ, os.environb):
            environ.__class__ = self._type


def _import_all(names):
    """Imports the modules; returns how long each took, in seconds."""
    from importlib import import_module

    times = []
    for name in names:
        began = time.perf_counter()
        kind, separator, main = name.partition("=")
        if separator:
            _import_main(kind, main)
        else:
            import_module(name)
        times.append((name, time.perf_counter() - began))
    return times


def _import_main(kind, main):
    """The owner's main module under the name that multiprocessing's children know it by, as their own
    set-up would import it. Where it fails they are left to it, and to the traceback."""
    from multiprocessing import process, spawn

    own = sys.modules["__main__"]
    process.current_process()._inheriting = True
    try:
        getattr(spawn, f"_fixup_{kind[5:]}")(main)
    except BaseException:
        sys.modules.pop("__mp_main__", None)
    finally:
        del process.current_process()._inheriting
        del spawn.old_main_modules[:]
        sys.modules["__main__"] = own


def _report(times):
    # By hand: importing json would show in every child.
    quoted = [(name.replace("\\", "\\\\").replace('"', '\\"'), seconds) for name, seconds in times]
    imports = ", ".join(f'{{"module": "{name}", "seconds": {seconds:.6f}}}' for name, seconds in quoted)
    version = sys.version.split()[0]
    return f'{{"python": "{version}", "imports": [{imports}]}}'


def _leave_no_trace(package, names):
    """A child that imports warmfork finds it, or does not find it, as a cold one would; except where it is
    to be preloaded itself."""
    own = [name for name in sys.modules if name.partition(".")[0] == "warmfork"]
    if any(name.startswith("warmfork.") for name in names):
        own = [f"warmfork.{name}" for name in ("_template", "_child")]
    else:
        for directory in (package, os.path.join(package, "warmfork")):
            sys.path_importer_cache.pop(directory, None)
    for name in own:
        del sys.modules[name]


def _files_of(module):
    archive = getattr(getattr(module, "__loader__", None), "archive", None)
    if isinstance(archive, str):
        return [archive]
    files = (getattr(module, "__file__", None), getattr(module, "__cached__", None))
    return [file for file in files if isinstance(file, str)]


def _describe(start, path):
    """Of what is imported: its files, where it was looked for, and which modules a file beside a script
    would come before. start: the modules that every interpreter has from the beginning."""
    sources, places, shadowable = set(), {}, set()
    for name, module in list(sys.modules.items()):
        origin = getattr(getattr(module, "__spec__", None), "origin", None)
        if name == "__main__" or origin in ("built-in", "frozen"):
            continue
        sources.update(os.path.abspath(file) for file in _files_of(module))
        parent, _, leaf = name.rpartition(".")
        if not parent and name not in start:
            shadowable.add(f"{name}={os.path.abspath(getattr(module, '__file__', None) or '')}")
        entries = getattr(sys.modules.get(parent), "__path__", ()) if parent else path
        for entry in list(entries):
            if isinstance(entry, str):
                places.setdefault(os.path.abspath(entry), set()).add(leaf)
    return (
        [os.fsencode(file) for file in sources],
        [(os.fsencode(place), [os.fsencode(name) for name in names]) for place, names in places.items()],
        [os.fsencode(name) for name in shadowable],
    )


def _started_with(environment):
    """Without what the owner put in for the template."""
    environment.pop(b"WARMFORK_CHANNEL", None)
    preloaded = environment.pop(b"LD_PRELOAD", b"").partition(b":")[2]
    return {**environment, b"LD_PRELOAD": preloaded} if preloaded else environment


def _find_hook(name):
    """The function that "module:function" names; None: no hook."""
    if not name:
        return None
    from importlib import import_module

    module, _, function = name.partition(":")
    found = import_module(module)
    for part in function.split("."):
        found = getattr(found, part)
    return found


def main(start):
    """sys.argv: -c, the package's directory, the two hooks, the number of search directories, these, the
    modules. start: the names in sys.modules when the interpreter had started."""
    from . import _child, _native

    package, before_fork, in_child, count = *sys.argv[1:4], int(sys.argv[4])
    path, names = sys.argv[5 : 5 + count], sys.argv[5 + count :]
    start_environment = _started_with(_native.start_environment())
    sys.path.remove(package)
    if not _child.has_safe_path():
        del sys.path[0]  # of -c; a child puts its own there
    own_path = sys.path[:]
    sys.path[:] = path + [entry for entry in own_path if entry not in path]
    variables = _ReadVariables()
    times = _import_all(names)
    before_fork, in_child = _find_hook(before_fork), _find_hook(in_child)
    variables.stop()
    _leave_no_trace(package, names)
    sources, places, shadowable = _describe(start, sys.path)
    sys.path[:] = own_path
    _child.remember_image(names, start_environment, _native.current_environment(), in_child)
    sys.stdout.flush()
    sys.stderr.flush()
    gc.collect()
    gc.freeze()
    _native.serve(
        _child,
        before_fork,
        _report(times),
        (list(variables.names), variables.all, sources, places, shadowable),
    )
