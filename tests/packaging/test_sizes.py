"""How long sources and their functions are: what is longer is not read from top to bottom."""

import ast
import glob
import os
import re
import unittest

from support import SOURCE

LONGEST_FILE, LONGEST_FUNCTION = 450, 60
TOPS = ("forkserver", "shim", "bench")
# What may be the beginning of a function, whose body begins with the next brace at the end of a line, and ends with
# the first one at the beginning of a line.
BEGIN = re.compile(r"(?!namespace|class|struct|enum|extern|union|using|typedef)[A-Za-z\[~].*\(|template <.*>$")


def sources(*suffixes, tops=TOPS):
    for top in tops:
        for suffix in suffixes:
            for path in glob.glob(f"{SOURCE}/{top}/**/*{suffix}", recursive=True):
                with open(path) as file:
                    yield os.path.relpath(path, SOURCE), file.read()


def functions_of_python(text):
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            yield node.lineno, node.end_lineno - node.lineno + 1


def functions_of_cpp(text):
    begin = is_open = None
    for number, line in enumerate(text.splitlines(), 1):
        if begin is None and BEGIN.match(line):
            begin, is_open = number, False
        if begin and not is_open:
            is_open = line.endswith("{")
            if line.endswith((";", "}")):  # a declaration, or all of it on a line
                begin = None
        elif begin and line.startswith("}"):
            yield begin, number - begin + 1
            begin = None


class Sizes(unittest.TestCase):
    def test_no_file_is_too_long(self):
        lengths = {path: text.count("\n") for path, text in sources(".cpp", ".hpp", ".c", ".h", ".py", tops=(*TOPS, "tests"))}
        self.assertGreater(len(lengths), 200)
        self.assertEqual({path: length for path, length in lengths.items() if length > LONGEST_FILE}, {})

    def test_no_function_is_too_long(self):
        found = [
            (path, line, length)
            for suffix, functions in ((".py", functions_of_python), (".cpp", functions_of_cpp), (".hpp", functions_of_cpp))
            for path, text in sources(suffix) for line, length in functions(text)
        ]
        self.assertGreater(len(found), 2000)
        self.assertEqual([each for each in found if each[2] > LONGEST_FUNCTION], [])


if __name__ == "__main__":
    unittest.main()
