"""`python3 -m` of a module that has been preloaded."""

from __future__ import annotations

import runpy
import sys

# It is the same as typing's, which children that import it would otherwise find loaded.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection
    from typing import Any


class ModulesOfPackages:
    """The first of the finders while modules are preloaded: notes those that are imported while a package around
    them is."""

    def __init__(self) -> None:
        self.names: set[str] = set()

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> None:
        package = name.rpartition(".")[0]
        while package:
            if getattr(getattr(sys.modules.get(package), "__spec__", None), "_initializing", False):
                self.names.add(name)
            package = package.rpartition(".")[0]
        return None


def hide_from_runpy(module: str, of_packages: Collection[str]) -> None:
    """Hides a preloaded module while runpy looks, which warns of one that its package has imported before it is run.
    of_packages: the names of those that their package does import."""
    find: Any = getattr(runpy, "_get_module_details", None)
    if find is None:
        return  # another runpy than the known ones: it is left as it is
    hidden = {
        name: sys.modules.pop(name)
        for name in (module, module + ".__main__")
        if "." in name and name in sys.modules and name not in of_packages
        and not hasattr(sys.modules[name], "__path__")
    }
    if not hidden:
        return

    def find_hidden(*arguments: Any) -> Any:
        setattr(runpy, "_get_module_details", find)
        try:
            return find(*arguments)
        finally:
            sys.modules.update(hidden)

    setattr(runpy, "_get_module_details", find_hidden)
