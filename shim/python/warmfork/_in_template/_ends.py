"""How objects end. A template says so to the search in a child, which looks for ends that somebody could see."""

from __future__ import annotations

import _contextvars
import _thread
import _weakref
import gc
import sys
import types
from abc import ABCMeta

from ._modules import attributes_of

# It is the same as typing's, which children that import it would otherwise find loaded.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

# All types of these modules, where they are loaded. Others say that they are of the module builtins as well.
_MODULES_WITHOUT_END = (
    "builtins", "types", "_collections_abc", "_collections", "_functools", "itertools", "_operator", "_weakref",
    "_thread", "_contextvars", "_queue", "_sre", "re", "_typing", "typing", "_decimal", "array", "_random", "_struct",
    "_json", "_multiprocessing",
)
# Types that C code has defined and that say that they are of these modules, or have these names, also where a child
# loads them.
_QUIET = frozenset((
    "_ctypes", "_csv", "_pickle", "_elementtree", "pyexpat", "_zoneinfo", "zoneinfo", "zlib", "_bz2", "_lzma",
    "_hashlib", "_md5", "_sha1", "_sha2", "_sha256", "_sha512", "_sha3", "_blake2", "select", "mmap", "unicodedata",
    "_decimal", "decimal", "array", "_random", "_struct", "_json", "itertools", "_operator", "operator", "_queue",
    "ast", "re", "functools", "collections", "typing", "_thread", "_weakref", "contextvars",
    "datetime.timedelta", "datetime.date", "datetime.timezone", "datetime.tzinfo", "builtins.builtin_method",
    # These are names of capsules, by which modules in C find each other.
    "datetime.datetime_CAPI", "_socket.CAPI", "_curses._C_API",
    # ctypes has the first in the place of a class's dictionary, contextvars the next in that of a context's. A module
    # in C is made from a moduledef; a field of a structure says that it is of ctypes itself.
    "builtins.StgDict", "builtins.hamt", "builtins.hamt_bitmap_node", "builtins.hamt_array_node",
    "builtins.hamt_collision_node", "builtins.moduledef", "ctypes.CField",
))
# Those types of the module datetime that refer to nothing else that a program can give them.
_TIMES_WITHOUT_END = ("timedelta", "date", "timezone", "tzinfo")


def kinds() -> dict[str, Any]:
    """Returns the kinds as `freeze_image` takes them."""
    io = sys.modules["_io"]
    without_end, finalized = _types_by_end()
    return {
        "without_end": without_end, "finalized": finalized, "quiet": _QUIET,
        "generator": types.GeneratorType, "context": _contextvars.Context,
        "quiet_callbacks": _removing_callbacks(), "visited": _visited_attributes(), "files": _file_types(),
        "streams_in_memory": [io.BytesIO, io.StringIO], "descriptors": _descriptor_types(),
        "fixed": _fixed_types(), "in_one_piece": _types_in_one_piece(),
    }


def _types_by_end() -> tuple[list[type], list[type]]:
    """Returns the types whose objects end as what they hold does, and otherwise as the end of the process would have
    it, and those of which that is so when their finalizer has been called."""
    found = {type(sys.modules["_collections_abc"].Hashable._abc_impl)}
    for name in _MODULES_WITHOUT_END:
        values = attributes_of(sys.modules.get(name)).values()
        found.update(value for value in values if issubclass(type(value), type))
    times = attributes_of(sys.modules.get("datetime"))
    found.update(times[name] for name in _TIMES_WITHOUT_END if name in times)
    if "functools" in sys.modules:
        cached = sys.modules["functools"].lru_cache(1)(int)
        cached()
        found.update(
            type(link) for part in gc.get_referents(cached) if type(part) is dict for link in part.values()
        )
    found.update(kind for kind, _ in _known_to_a_thread_local())
    io = sys.modules["_io"]
    found.add(io.IncrementalNewlineDecoder)
    if "re" in sys.modules:
        found.add(type(sys.modules["re"].compile("").match))  # of methods that know the class that has them
    finalized = [kind for kind in found if hasattr(kind, "__del__")] + _file_types()
    without_end = [kind for kind in found if kind.__name__ != "PyCapsule" and not hasattr(kind, "__del__")]
    without_end += [io.BytesIO, io.StringIO]  # these are closed at their end, which writes nowhere
    array = attributes_of(sys.modules.get("numpy")).get("ndarray")
    if isinstance(array, type):
        without_end.append(array)  # children seed numpy's generators, which have some
    if "multiprocessing.connection" in sys.modules:
        without_end.append(sys.modules["multiprocessing.connection"].Connection)  # it closes its descriptor
    return without_end, finalized


def _visited_attributes() -> list[tuple[type, str]]:
    """Returns [(type, name)] of what objects that the collector does not know refer to, where a program may have chosen
    it."""
    times = attributes_of(sys.modules.get("datetime"))
    found = [(times[name], "tzinfo") for name in ("datetime", "time") if name in times]
    return [*found, (types.CodeType, "co_consts")]


def _file_types() -> list[type]:
    io = sys.modules["_io"]
    return [
        io.FileIO, io.BufferedReader, io.BufferedWriter, io.BufferedRandom, io.TextIOWrapper
    ]


def _descriptor_types() -> list[type]:
    """Returns types of what classes have in their dictionaries, and that can be called, though no code of a program
    is."""
    return [types.WrapperDescriptorType, types.MethodDescriptorType, types.ClassMethodDescriptorType, staticmethod]


def _fixed_types() -> list[type]:
    """Returns types whose objects refer to the same as long as they live."""
    return [
        tuple, frozenset, _weakref.ref, types.MethodType, types.WrapperDescriptorType, types.MethodDescriptorType,
        types.ClassMethodDescriptorType, types.GetSetDescriptorType, types.MemberDescriptorType,
    ]


def _types_in_one_piece() -> list[type]:
    """Returns types whose objects keep all their references within the size that their type tells."""
    return [
        staticmethod, classmethod, property, types.FunctionType, types.CellType, types.BuiltinFunctionType,
    ]


def _removing_callbacks() -> list[Any]:
    """Returns the callbacks of weak references by which the module abc remembers classes, and a thread's values their
    owner. They do nothing but remove what is gone."""

    class Remembering(metaclass=ABCMeta):
        pass

    class Remembered:
        pass

    issubclass(Remembered, Remembering)
    callbacks = [reference.__callback__ for reference in _weakref.getweakrefs(Remembered)]
    callbacks += [callback for _, callback in _known_to_a_thread_local()]
    return list(filter(None, callbacks))  # the class that Remembered is derived from knows it by one without


def _known_to_a_thread_local() -> list[tuple[type, Any]]:
    """Returns (type, callback) of the weak references by which a threading.local knows what each thread has there."""
    local = _thread._local()
    local.value = None
    return [
        (type(reference()), reference.__callback__)
        for part in gc.get_referents(local) if type(part) in (dict, set) for reference in part
        if isinstance(reference, _weakref.ref)
    ]


def first_builtins() -> dict[str, Any] | None:
    """Returns what the interpreter makes of builtins at its end: a copy from its start, which it alone knows."""
    current = vars(sys.modules["builtins"])
    for found in gc.get_objects():
        # There is another one, without exceptions.
        if type(found) is dict and found is not current and "__build_class__" in found and "KeyError" in found:
            return dict(found)
    return None
