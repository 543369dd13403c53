"""The program's main module in the template of multiprocessing's method "warmfork".

It is imported there once, in what a child of the method "spawn" would find itself in, less its name and its key
for authentication. A child has it from the template where it would find itself in the same; else, and where the
import has looked at the name or has changed what is prepared, the child imports it itself, as by "spawn". What a
child opens for its own children is described as the image that it came from, where that is as good for them.
"""

from __future__ import annotations

import marshal
import os
import sys
from multiprocessing import context, process, spawn, util

from ._errors import Unsuitable

# It is the same as typing's, whose import would cost every start.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    Preparation = dict[str, Any]  # as multiprocessing.spawn makes it

# Longer arguments are refused by the kernel.
_LONGEST = 100_000
# What of the preparation children have of their own, and what a main module sees nothing of.
_OF_ONE_CHILD = ("name", "authkey", "log_to_stderr", "log_level")

# What the image has, where it was made for a main module.
_main: Any = None  # it is not there where it could not be imported, or is not suitable
_made_with: Any = None
_description = ""
_asks_for_method = False


def _common_to_children(preparation: Preparation) -> Preparation:
    return {key: value for key, value in preparation.items() if key not in _OF_ONE_CHILD}


def _is_made_for(preparation: Preparation) -> bool:
    """Would the main module of the image find itself in the same by this? In the first process the start method is
    another one than in its children, which matters where it has been asked for."""
    common, made_with = _common_to_children(preparation), dict(_made_with)
    if not _asks_for_method:
        del common["start_method"], made_with["start_method"]
    return common == made_with


def described() -> list[str]:
    """Returns, in the owner, what its template preloads for it: a list, which is empty where children import no
    main."""
    preparation = _common_to_children(spawn.get_preparation_data(""))
    names = [preparation[key] for key in ("init_main_from_name", "init_main_from_path") if key in preparation]
    # multiprocessing leaves that of a package alone, too.
    if not names or names[0].endswith(".__main__"):
        return []
    if _made_with is not None and _is_made_for(preparation):  # in a child, for its own children
        return [f"{__name__}={_description}"]
    method = preparation["start_method"]  # from CPython 3.14.10 on None where none has been asked for
    preparation["start_method"] = method and str(method)
    try:
        text = marshal.dumps(preparation, 2).hex()
    except ValueError:  # the program has put something of its own there
        return []
    return [f"{__name__}={text}"] if len(text) < _LONGEST else []


class _Named:
    """Takes the place of the class of current_process(), and notes whether its name is asked for."""

    @staticmethod
    def of(current: Any) -> Any:
        class Named(type(current)):
            is_asked = False

            @property
            def _name(self) -> Any:
                Named.is_asked = True
                return self.__dict__["_name"]

            @_name.setter
            def _name(self, name: Any) -> None:
                Named.is_asked = True
                self.__dict__["_name"] = name

        return Named


class _AskedMethod:
    """Takes the place of the class of multiprocessing's default context, and notes whether its method is asked for."""

    @staticmethod
    def of(default: Any) -> Any:
        class AskedMethod(type(default)):
            is_asked = False

            @property
            def _actual_context(self) -> Any:
                AskedMethod.is_asked = True
                return self.__dict__["_actual_context"]

            @_actual_context.setter
            def _actual_context(self, method: Any) -> None:
                self.__dict__["_actual_context"] = method

        return AskedMethod


def _state() -> dict[str, Any]:
    current = process.current_process()
    return {
        "path": sys.path[:], "arguments": sys.argv[:], "directory": os.getcwd(), "key": bytes(current.authkey),
        "start method": context._default_context.__dict__["_actual_context"],
        "log": (util._log_to_stderr, util._logger),
    }


def _restore(state: dict[str, Any], arguments: list[str]) -> None:
    sys.path[:], sys.argv = state["path"], arguments
    os.chdir(state["directory"])
    context._default_context._actual_context = state["start method"]
    process.current_process().authkey = state["key"]


def preload(description: str) -> None:
    """Preloads it, in the template. Raises what the import raises, and Unsuitable."""
    global _main, _made_with, _description, _asks_for_method
    preparation = _common_to_children(marshal.loads(bytes.fromhex(description)))
    _made_with, _description = preparation, description
    if (preparation["dir"], preparation["orig_dir"]) != (os.getcwd(), process.ORIGINAL_DIR):
        raise Unsuitable("its directory is another one")
    before, arguments = _state(), sys.argv
    current, own = process.current_process(), sys.modules["__main__"]
    default, kinds = context._default_context, (type(current), type(context._default_context))
    named, method = _Named.of(current), _AskedMethod.of(default)
    try:
        current._inheriting = True
        _prepare(preparation)
        prepared = _state()
        current.__class__, default.__class__ = named, method
        _import(preparation)
        changed = [name for name, value in _state().items() if value != prepared[name]]
    except BaseException:
        sys.modules.pop("__mp_main__", None)
        raise
    finally:
        current.__class__, default.__class__ = kinds
        del current._inheriting
        del spawn.old_main_modules[:]
        sys.modules["__main__"] = own
        _restore(before, arguments)
    if named.is_asked:
        changed.append("name of the process, or asks for it")
    if changed:
        sys.modules.pop("__mp_main__", None)
        raise Unsuitable(f"it changes the {changed[0]}")
    # None stands for one that multiprocessing leaves alone, such as ipython's.
    _main, _asks_for_method = sys.modules.get("__mp_main__"), method.is_asked


def _prepare(preparation: Preparation) -> None:
    """Prepares it as spawn.prepare prepares a child."""
    sys.path[:] = preparation["sys_path"]
    sys.argv = preparation["sys_argv"][:]  # which modules may keep
    spawn.set_start_method(preparation["start_method"], force=True)


def _import(preparation: Preparation) -> None:
    if "init_main_from_name" in preparation:
        spawn._fixup_main_from_name(preparation["init_main_from_name"])
    else:
        spawn._fixup_main_from_path(preparation["init_main_from_path"])


def take(preparation: Preparation) -> None:
    """Takes, in a child, ahead of spawn.prepare, the template's main module if it is right for the child, or forgets it
    if not."""
    if _main is None or sys.modules.get("__mp_main__") is not _main:
        return
    if _is_made_for(preparation):
        sys.modules["__main__"] = _main
    else:
        del sys.modules["__mp_main__"]
