"""docs/spawn.md: each function is where it says, and calls the next one. `--write` puts the lines right."""

import os
import re
import sys
import unittest

SOURCE = os.environ.get("WARMFORK_SOURCE", os.path.join(os.path.dirname(__file__), "..", ".."))
PAGE = os.path.join(SOURCE, "docs", "spawn.md")
ROW = re.compile(r"^\| \w+ \| `(?P<name>[\w.:]+)` \| (?P<file>[\w/.]+):(?P<line>\d+) \|", re.M)
# Of the tables in which each function calls the next one.
HEAD = "| | function |"


def definition(file, name):
    """(line, text) of a function's definition in a file of the sources; None: it has none."""
    with open(os.path.join(SOURCE, file)) as opened:
        text = opened.read()
    if file.endswith(".py"):
        owner, method = name.split(".")
        begin = re.search(rf"^class {owner}\b", text, re.M).start()
        found = re.compile(rf"^    def {method}\((?:.*\n(?=     |    \)|\n))*.*", re.M).search(text, begin)
    else:
        found = re.search(rf"^\w[^\n(]*(?<![\w:]){name}\([^;{{}}]*\{{.*?^\}}", text, re.M | re.S)
    return found and (text.count("\n", 0, found.start()) + 1, found[0])


def read_page():
    with open(PAGE) as page:
        return page.read()


def ways():
    """[(function, file), ...] of the owner's half, and of the child's."""
    tables = read_page().split(HEAD)[1:3]
    return [[(row["name"], row["file"]) for row in ROW.finditer(table.partition("\n\n")[0])] for table in tables]


class Way(unittest.TestCase):
    def test_each_function_is_where_the_page_says(self):
        for row in ROW.finditer(read_page()):
            with self.subTest(row["name"]):
                found = definition(row["file"], row["name"])
                self.assertIsNotNone(found, f"{row['file']} does not define it")
                self.assertEqual(int(row["line"]), found[0], f"it has moved: {__file__} --write corrects {PAGE}")

    def test_each_function_of_the_way_calls_the_next(self):
        for way in ways():
            for (name, file), (following, _) in zip(way, way[1:]):
                called = re.split(r"\W+", following.replace(".__init__", ""))[-1]
                with self.subTest(f"{name} calls {following}"):
                    self.assertRegex(definition(file, name)[1], rf"(?<!def )\b{called}\(")

    def test_the_way_is_short(self):
        way = sum(ways(), [])
        self.assertIn(len(way), range(10, 17))
        self.assertLessEqual(len({file for _, file in way}), 7)


def write():
    def corrected(row):
        line = definition(row["file"], row["name"])[0]
        return row[0].replace(f":{row['line']} |", f":{line} |")

    text = ROW.sub(corrected, read_page())
    with open(PAGE, "w") as page:
        page.write(text)


if __name__ == "__main__":
    write() if sys.argv[1:] == ["--write"] else unittest.main()
