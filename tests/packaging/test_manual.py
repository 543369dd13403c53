"""The manual pages: well-formed, and complete in what can be counted."""

import glob
import os
import re
import subprocess
import unittest

from support import BUILD, SOURCE, commands, environment, find, run

SOURCES = sorted(glob.glob(f"{SOURCE}/packaging/man/*.scd"))
PAGES = f"{BUILD}/packaging/man"
SECTIONS = {"1": ("NAME", "SYNOPSIS", "DESCRIPTION", "EXIT STATUS", "ENVIRONMENT", "FILES", "EXAMPLES", "SEE ALSO"),
            "3": ("NAME", "LIBRARY", "SYNOPSIS", "DESCRIPTION", "EXAMPLES", "SEE ALSO"),
            "5": ("NAME", "DESCRIPTION", "EXAMPLES", "SEE ALSO"),
            "7": ("NAME", "DESCRIPTION", "EXAMPLES", "SEE ALSO"),
            "8": ("NAME", "SYNOPSIS", "DESCRIPTION", "EXIT STATUS", "ENVIRONMENT", "FILES", "EXAMPLES",
                  "SEE ALSO")}


def read(file):
    with open(file) as source:
        return source.read()


class Manual(unittest.TestCase):
    def test_pages_are_formatted_without_a_warning(self):
        for source in SOURCES:
            page = os.path.join(PAGES, os.path.basename(source)[:-len(".scd")])
            done = subprocess.run(["man", "--warnings", "-E", "UTF-8", "-l", "-Tutf8", "-Z", page],
                                  stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
                                  env=environment(LC_ALL="C.UTF-8", MANROFFSEQ="", MANWIDTH="80"))
            # A word as long as its cell of a table is no fault.
            warnings = [line for line in done.stderr.splitlines() if not line.endswith("cannot adjust line")]
            self.assertEqual((done.returncode, warnings), (0, []), page)

    def test_pages_have_the_sections_of_their_kind(self):
        for source in SOURCES:
            headings = re.findall(r"^# (.*)", read(source), re.M)
            self.assertLessEqual(set(SECTIONS[source[-len("1.scd")]]), set(headings), source)

    def test_pages_that_are_referred_to_exist(self):
        names = {os.path.basename(source)[:-len(".scd")] for source in SOURCES}
        for source in SOURCES:
            for name, section in re.findall(r"\*(\w*warmfork[\w.-]*)\*\((\d)\)", read(source)):
                self.assertTrue(f"{name}.{section}" in names or os.path.exists(f"{PAGES}/{name}.{section}"),
                                f"{source} refers to {name}({section})")

    def test_each_command_has_the_options_of_its_help(self):
        parts = re.split(r"^##? ", read(f"{SOURCE}/packaging/man/warmfork.1.scd"), flags=re.M)
        documented = {"": set()}
        for part in parts:
            heading, _, text = part.partition("\n")
            options = set(re.findall(r"^\*(?:-\w\*, \*)?(--[a-z-]+)\*", text, re.M))
            if heading == "OPTIONS":
                documented[""] = options
            elif heading.startswith("warmfork "):
                documented[heading[len("warmfork "):]] = options
        everywhere = {"--help"}
        for command, options in commands().items():
            if command == "bench":  # its one option is explained with the first kind
                documented[command], documented["bench serial"] = {"--python"}, documented["bench serial"] - {"--python"}
            self.assertIn(command, documented)
            wanted = options if command == "" else options - everywhere
            self.assertEqual(documented[command], wanted, f"warmfork {command}")

    def test_the_page_of_the_service_has_the_options_of_its_help(self):
        shown = run([find(f"{BUILD}/libexec", "warmforkd"), "--help"])
        documented = re.findall(r"^\*(?:-\w\*, \*)?(--[a-z-]+)\*", read(f"{SOURCE}/packaging/man/warmforkd.8.scd"), re.M)
        self.assertEqual(set(documented), set(re.findall(r"^ +(?:-\w, ?)?(--[a-z-]+)", shown, re.M)))

    def test_the_page_of_the_configuration_has_its_keys(self):
        keys = read(f"{SOURCE}/forkserver/service/configuration_keys.cpp")
        names = set(re.findall(r'make_(?:daemon_)?key\("([a-z_.]+)"', keys)) | set(re.findall(r'name = "([a-z_]+)"', keys))
        self.assertGreater(len(names), 20)
        page = read(f"{SOURCE}/packaging/man/warmfork.toml.5.scd")
        for name in names:
            self.assertIn(f"*{name.rpartition('.')[2]}*", page)

    def test_each_function_of_the_header_has_a_page(self):
        header = read(f"{SOURCE}/shim/include/warmfork.h")
        functions = set(re.findall(r"^WARMFORK_EXPORT [^(]*?(warmfork_\w+)\(", header, re.M))
        self.assertGreater(len(functions), 20)
        for function in functions:
            self.assertTrue(os.path.exists(f"{PAGES}/{function}.3"), function)

    def test_each_stage_reason_and_flag_of_the_header_is_explained(self):
        header = read(f"{SOURCE}/shim/include/warmfork.h")
        library, spawn = (read(f"{SOURCE}/packaging/man/{name}.3.scd") for name in ("libwarmfork", "warmfork_spawn"))
        for stage in re.findall(r"WARMFORK_STAGE_(\w+) = [1-9]", header):
            self.assertRegex(library, rf"\\?_{stage}\*")
        for reason in re.findall(r"WARMFORK_REASON_(?!COUNT)(\w+) = ", header):
            self.assertIn(f" {reason.lower().replace('_', '-')}\n:", spawn)
        for flag in re.findall(r"define (WARMFORK_\w+) \(1u <<", header):
            self.assertIn(f"*{flag}*", spawn)

    def test_each_environment_variable_of_the_code_is_in_the_command_s_page(self):
        found = subprocess.run(["grep", "-rhoE", r"getenv\(\"WARMFORK_\w+\"", f"{SOURCE}/shim"], capture_output=True,
                               text=True).stdout
        page = read(f"{SOURCE}/packaging/man/warmfork.1.scd")
        for variable in set(re.findall(r"WARMFORK_\w+", found)):
            self.assertIn(f"*{variable}*", page)


if __name__ == "__main__":
    unittest.main()
