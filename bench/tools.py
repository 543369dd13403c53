"""What `warmfork bench commands` runs: tools of Debian, each on files of its own."""

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Tool:
    """One command. names: of the program, the first one that is installed counts; files: {name: text}, of the
    directory that it is run in; setup: commands that have been run there before, as those of a user have."""

    row: str
    names: tuple
    arguments: tuple
    files: dict = field(default_factory=dict)
    setup: tuple = ()
    package: str = ""  # of Debian; empty: named as the row
    allow: tuple = ()  # of what its template has otherwise, and this command does not use
    preload: tuple = ()  # of tools that end by os._exit, and so do not say what they have imported


_MODULE = '''import os
import sys


def area(width: int, height: int) -> int:
    return width * height


class Box:
    def __init__(self, width: int, height: int) -> None:
        self.width = width
        self.height = height

    def area(self) -> int:
        return area(self.width, self.height)


if __name__ == "__main__":
    print(Box(len(sys.argv), 2).area(), os.getpid() > 0)
'''

_TEST = '''import pytest


@pytest.mark.parametrize("number", [1, 2, 3])
def test_squares(number):
    assert number ** 2 == number * number
'''

_SETTINGS = '''SECRET_KEY = "not secret"
INSTALLED_APPS = ["django.contrib.auth", "django.contrib.contenttypes", "django.contrib.sessions"]
DATABASES = {"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}}
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
'''

_MESON_PROJECT = '''project('example', version: '1')
configure_file(input: 'input', output: 'output', configuration: {'name': 'value'})
'''

_PLAYBOOK = '''- hosts: localhost
  gather_facts: false
  tasks:
    - debug: {msg: hello}
'''

TOOLS = (
    Tool("black", ("black",), ("-q", "module.py"), {"module.py": _MODULE.replace("'", '"').replace(": int", ":int")}),
    Tool("mypy", ("mypy",), ("module.py",), {"module.py": _MODULE}, (("mypy", "module.py"),),
         preload=("mypy.main", "mypy.build")),
    Tool("pytest", ("pytest-3", "pytest"), ("-qq", "test_module.py"), {"test_module.py": _TEST}, package="python3-pytest"),
    Tool("django", ("django-admin",), ("check", "--pythonpath", ".", "--settings", "settings"),
         {"settings.py": _SETTINGS}, package="python3-django"),
    Tool("hg", ("hg",), ("log",), {"file": "text\n"},
         (("hg", "init"), ("hg", "commit", "-q", "-A", "-u", "user", "-d", "0 0", "-m", "first")), package="mercurial"),
    Tool("pip", ("pip3", "pip"), ("list", "--disable-pip-version-check"), package="python3-pip", allow=("directory:pip",)),
    Tool("ipython", ("ipython3", "ipython"), ("--no-banner", "-c", "print(6 * 7)"), package="ipython3"),
    Tool("sphinx", ("sphinx-build",), ("-q", ".", "out"),
         {"conf.py": 'project = "x"\n', "index.rst": "Title\n=====\n\nText.\n"}, package="python3-sphinx"),
    Tool("isort", ("isort",), ("-q", "module.py"), {"module.py": "import sys\nimport os\nfrom json import loads, dumps\n"},
         allow=("directory:isort",)),
    Tool("bandit", ("bandit",), ("-q", "--exit-zero", "module.py"), {"module.py": _MODULE}),
    Tool("ansible", ("ansible-playbook",), ("-i", "localhost,", "-c", "local", "site.yml"), {"site.yml": _PLAYBOOK},
         allow=("directory:ansible",)),
    Tool("numpy", ("python3",), ("-c", "import numpy; print(numpy.arange(10.0).sum())"), package="python3-numpy"),
    Tool("pandas", ("python3",), ("-c", "import pandas; print(pandas.DataFrame({'a': [1, 2]}).describe())"),
         package="python3-pandas"),
    Tool("torch", ("python3",), ("-c", "import torch; print(torch.ones(3, 3).sum())"), package="python3-torch"),
    Tool("sklearn", ("python3",),
         ("-c", "from sklearn.linear_model import Ridge; print(Ridge().fit([[0], [1]], [1, 3]).coef_)"),
         package="python3-sklearn"),
    Tool("aws", ("aws",), ("configure", "list"), package="awscli"),
    Tool("pylint", ("pylint",), ("--persistent=n", "--exit-zero", "module.py"), {"module.py": _MODULE}),
    Tool("yt-dlp", ("yt-dlp",), ("--list-extractors",)),
    Tool("meson", ("meson",), ("setup", "out"), {"meson.build": _MESON_PROJECT, "input": "@name@\n"}),
)
