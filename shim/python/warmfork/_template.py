"""What runs in a template: import the modules, then serve. Started by warmfork_template_open."""

import gc
import os
import posix
import runpy  # noqa: F401  every `python3 -m` needs it
import sys
import time


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

            # What was there before is gone for who writes.
            def __setitem__(self, key, value):
                environ_type.__setitem__(self, key, value)
                recorder.names.add(self.encodekey(key))

            def __delitem__(self, key):
                recorder.names.add(self.encodekey(key))
                environ_type.__delitem__(self, key)

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


class _MissedModules:
    """The last of the finders: notes what none of the others has found."""

    def __init__(self):
        self.names = set()

    def find_spec(self, name, path=None, target=None):
        self.names.add(name)
        return None


def _attributes(module):
    """Of a module; never what it computes when it is asked."""
    try:
        return object.__getattribute__(module, "__dict__")
    except AttributeError:
        return {}


def _sources_of(attributes):
    """The file, and the cache, that a module comes from."""
    archive = getattr(attributes.get("__loader__"), "archive", None)
    file = archive if isinstance(archive, str) else attributes.get("__file__")
    cache = attributes.get("__cached__")
    # Some modules name a file that never was.
    has_file = isinstance(file, str) and os.path.exists(file)
    return os.path.abspath(file) if has_file else "", os.path.abspath(cache) if isinstance(cache, str) else ""


def _describe(start, path, missed):
    """Of what is imported: its files, where it was looked for, and which modules a file beside a script
    would come before. start: the modules that every interpreter has from the beginning. missed: names that
    were looked for and not found; a file that is new might be."""
    sources, caches, places, shadowable = set(), set(), {}, set()
    looked_for = {name: {} for name in (*missed, "sitecustomize", "usercustomize")}
    looked_for.update((name, _attributes(module)) for name, module in list(sys.modules.items()))
    for name, attributes in looked_for.items():
        origin = getattr(attributes.get("__spec__"), "origin", None)
        if name == "__main__" or origin in ("built-in", "frozen"):
            continue
        file, cache = _sources_of(attributes)
        sources.add(file)
        caches.add(cache)
        parent, _, leaf = name.rpartition(".")
        if not parent and name not in start and name not in ("sitecustomize", "usercustomize"):
            shadowable.add(f"{name}={file}")
        try:
            entries = list(_attributes(sys.modules.get(parent)).get("__path__", ())) if parent else path
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
    own_path = sys.path[:]
    sys.path[:] = path + [entry for entry in own_path if entry not in path]
    variables, missed = _ReadVariables(), _MissedModules()
    sys.meta_path.append(missed)
    times = _import_all(names)
    before_fork, in_child = _find_hook(before_fork), _find_hook(in_child)
    sys.meta_path.remove(missed)
    variables.stop()
    _leave_no_trace(package, names)
    description = _describe(start, sys.path, missed.names)
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
        (list(variables.names), variables.all, *description),
    )
