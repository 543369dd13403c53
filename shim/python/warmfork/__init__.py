"""Fork warm, not cold: children of a template that has its imports behind it.

    import warmfork

    with warmfork.Template(preload=["numpy"]) as template:
        child = template.popen(["python3", "-c", "import numpy; print(numpy.pi)"])
        child.wait()

`import warmfork` itself is light: what it names is loaded when it is first used (PEP 562).
"""

import sys as _sys

if "t" in getattr(_sys, "abiflags", ""):
    raise ImportError(
        f"warmfork cannot be used in a free-threaded build of Python ({_sys.executable}): its extension is made for "
        "the stable ABI, which such a build has not, and threads that run side by side are not safe to fork"
    )

_HOMES = {
    "Template": "_owner",
    "Popen": "_popen",
    "Error": "_errors",
    "TemplateError": "_errors",
    "get_context": "multiprocessing",
    "__version__": "_native",
}

# These are modules of their own, for programs that use what they extend.
_MODULES = ("aio", "multiprocessing", "tractor", "trio")

__all__ = sorted(name for name in _HOMES if name[0] != "_")


def __getattr__(name):
    from importlib import import_module

    if name in _MODULES:
        return import_module(f"{__name__}.{name}")
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{home}"), name)
    globals()[name] = value
    return value


def __dir__():
    return sorted({*globals(), *_HOMES, *_MODULES})
