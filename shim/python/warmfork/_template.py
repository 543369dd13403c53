"""What runs in a template: import the modules, then serve. Started by warmfork_template_open."""

import gc
import os
import runpy  # noqa: F401  every `python3 -m` needs it
import sys
import time


def _import_all(names):
    """Imports the modules; returns how long each took, in seconds."""
    from importlib import import_module

    times = []
    for name in names:
        began = time.perf_counter()
        import_module(name)
        times.append((name, time.perf_counter() - began))
    return times


def _report(times):
    # By hand: importing json would show in every child.
    imports = ", ".join(f'{{"module": "{name}", "seconds": {seconds:.6f}}}' for name, seconds in times)
    version = sys.version.split()[0]
    return f'{{"python": "{version}", "imports": [{imports}]}}'


def _leave_no_trace(package):
    """A child that imports warmfork finds it, or does not find it, as a cold one would."""
    for directory in (package, os.path.join(package, "warmfork")):
        sys.path_importer_cache.pop(directory, None)
    for name in [name for name in sys.modules if name.partition(".")[0] == "warmfork"]:
        del sys.modules[name]


def main():
    """sys.argv: -c, the package's directory, the number of search directories, these, the modules."""
    from . import _child, _native

    start_environment = _native.start_environment()
    package, count = sys.argv[1], int(sys.argv[2])
    path, names = sys.argv[3 : 3 + count], sys.argv[3 + count :]
    sys.path.remove(package)
    if not getattr(sys.flags, "safe_path", False):
        del sys.path[0]  # of -c; a child puts its own there
    own_path = sys.path[:]
    sys.path[:] = path + [entry for entry in own_path if entry not in path]
    times = _import_all(names)
    sys.path[:] = own_path
    _child.remember_image(names, start_environment)
    _leave_no_trace(package)
    sys.stdout.flush()
    sys.stderr.flush()
    gc.collect()
    gc.freeze()
    try:
        _native.serve(_child, _report(times))
    except RuntimeError as error:
        # The owner has the reason already, by the channel or by this line.
        os.write(2, f"{error}\n".encode())
        sys.exit(1)
