"""`python3 -m` of a module that has been preloaded."""

import runpy
import sys


class ModulesOfPackages:
    """The first of the finders while modules are preloaded: notes those that are imported while a package around
    them is."""

    def __init__(self):
        self.names = set()

    def find_spec(self, name, path=None, target=None):
        package = name.rpartition(".")[0]
        while package:
            if getattr(getattr(sys.modules.get(package), "__spec__", None), "_initializing", False):
                self.names.add(name)
            package = package.rpartition(".")[0]
        return None


def hide_from_runpy(module, of_packages):
    """Hides a preloaded module while runpy looks, which warns of one that its package has imported before it is run.
    of_packages: the names of those that their package does import."""
    find = getattr(runpy, "_get_module_details", None)
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

    def find_hidden(*arguments):
        setattr(runpy, "_get_module_details", find)
        try:
            return find(*arguments)
        finally:
            sys.modules.update(hidden)

    setattr(runpy, "_get_module_details", find_hidden)
