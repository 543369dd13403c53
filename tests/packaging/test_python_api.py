"""docs/python-api.md: the reference of the Python package, made from its docstrings. `--write` makes it."""

import ast
import os
import re
import sys
import textwrap
import unittest

SOURCE = os.environ.get("WARMFORK_SOURCE", os.path.join(os.path.dirname(__file__), "..", ".."))
PACKAGE = os.path.join(SOURCE, "shim", "python", "warmfork")
PAGE = os.path.join(SOURCE, "docs", "python-api.md")
# What the reference tells of: file, how its names are reached, names. None: what its __all__ has.
MODULES = (
    ("_owner.py", "warmfork", ("Template",)),
    ("_popen.py", "warmfork", ("Popen",)),
    ("_errors.py", "warmfork", ("Error", "TemplateError")),
    ("multiprocessing.py", "warmfork.multiprocessing", None),
    ("aio.py", "warmfork.aio", None),
    ("trio.py", "warmfork.trio", None),
    ("tractor.py", "warmfork.tractor", None),
    ("jupyter.py", "warmfork.jupyter", None),
)
HEAD = """\
# The Python package, name by name

Made from the docstrings, which `pydoc3 warmfork._owner` and the like show as well;
`tests/packaging/test_python_api.py --write` makes it anew, and a test compares. How it is used is told by
[getting started](getting-started.md) and *warmfork-python*(7). The types are those of the annotations: `Path`, `Command`,
`Environment`, `Stream` and `Limits` are what `subprocess` and `resource` take, see `warmfork/_types.pyi`.
"""
FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)


def parse(file):
    with open(os.path.join(PACKAGE, file)) as opened:
        return ast.parse(opened.read())


def public_names(tree):
    for node in tree.body:
        if isinstance(node, ast.Assign) and node.targets[0].id == "__all__":
            return ast.literal_eval(node.value)
    raise AssertionError("it has no __all__")


def definitions():
    """(module's name, module's docstring or None, [definition]) in the order of the page."""
    for file, module, names in MODULES:
        tree = parse(file)
        found = {node.name: node for node in tree.body if isinstance(node, (ast.ClassDef, *FUNCTIONS))}
        yield module, None if names else ast.get_docstring(tree), [found[name] for name in names or public_names(tree)]


def members(node):
    """Those of a class that have no underscore in front."""
    return [each for each in node.body if isinstance(each, FUNCTIONS) and not each.name.startswith("_")]


def is_property(node):
    return any(isinstance(each, ast.Name) and each.id == "property" for each in node.decorator_list)


def signature(node):
    """As it is written, without `self`, in lines of a page's width."""
    arguments = node.args
    if arguments.args and arguments.args[0].arg == "self":
        arguments = ast.arguments(**{**dict(ast.iter_fields(arguments)), "args": arguments.args[1:]})
    returns = "" if node.returns is None or node.name == "__init__" else f" -> {ast.unparse(node.returns)}"
    return "\n".join(textwrap.wrap(f"({ast.unparse(arguments)}){returns}", 110, subsequent_indent="    "))


def in_markdown(docstring):
    """Blocks that are indented stay so; what begins with "name: " is an item of a list."""
    lines = []
    for line in docstring.splitlines():
        item = re.match(r"(\w+(?:, \w+)?): ", line)
        lines.append(f"* **{item[1]}**: {line[item.end():]}" if item else line)
    return "\n".join(re.sub(r"(?<!\\)([*_]+)(?=\w)", r"\\\1", line) if not line.startswith(("    ", "* **")) else line
                     for line in lines)


def page():
    parts = [HEAD]
    told = None
    for module, about, nodes in definitions():
        if module != told:
            parts.append(f"## {module}\n")
            told = module
        if about:
            parts.append(in_markdown(about) + "\n")
        for node in nodes:
            is_class = isinstance(node, ast.ClassDef)
            begin = next((each for each in node.body if getattr(each, "name", "") == "__init__"), None) if is_class else node
            shown = signature(begin) if begin else f"({', '.join(ast.unparse(base) for base in node.bases)})"
            kind = "class " if is_class else "async " if isinstance(node, ast.AsyncFunctionDef) else ""
            parts.append(f"### {node.name}\n\n```python\n{kind}{node.name}{shown}\n```\n")
            parts.append(in_markdown(ast.get_docstring(node)) + "\n")
            for member in members(node) if is_class else ():
                shown = f": {ast.unparse(member.returns)}" if is_property(member) else signature(member)
                parts.append(f"#### {node.name}.{member.name}\n\n```python\n{member.name}{shown}\n```\n")
                parts.append(in_markdown(ast.get_docstring(member)) + "\n")
    return "\n".join(parts)


class Reference(unittest.TestCase):
    def test_whatever_is_public_has_a_docstring(self):
        for module, _, nodes in definitions():
            for node in nodes:
                for each in (node, *members(node)) if isinstance(node, ast.ClassDef) else (node,):
                    with self.subTest(f"{module}.{node.name}: {each.name}"):
                        self.assertTrue(ast.get_docstring(each))

    def test_each_parameter_of_a_template_and_of_a_child_is_explained(self):
        for file, name in (("_owner.py", "Template"), ("_popen.py", "Popen")):
            node = next(each for each in parse(file).body if getattr(each, "name", "") == name)
            begin = next(each for each in node.body if getattr(each, "name", "") == "__init__")
            for argument in begin.args.kwonlyargs:
                self.assertRegex(ast.get_docstring(node), rf"(?m)^{argument.arg}: ")

    def test_the_page_is_what_the_docstrings_say(self):
        with open(PAGE) as file:
            self.assertEqual(file.read(), page(), f"{__file__} --write makes it anew")


if __name__ == "__main__":
    if sys.argv[1:] == ["--write"]:
        with open(PAGE, "w") as file:
            file.write(page())
    else:
        unittest.main()
