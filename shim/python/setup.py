"""The wheel: CMake builds the package as a folder, which is what goes in.

WARMFORK_BUILD names a finished build; without it there is a new one, in build-wheel at the top of the tree.
"""

import os
import re
import shutil
import subprocess
import sys

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(os.path.dirname(HERE))
BUILD = os.path.join(ROOT, "build-wheel")
PROGRAMS = ("_command", "_native.abi3.so", "_libexec/warmfork-keeper", "_libexec/libwarmfork-preload.so",
            "_libexec/warmfork-exec", "_libexec/libwarmfork-exec.so", "_libexec/warmforkd", "bench/parked", "bench/native")


def version():
    with open(os.path.join(ROOT, "CMakeLists.txt")) as file:
        return re.search(r"project\(warmfork VERSION (\S+)", file.read())[1]


class BuildPackage(build_ext):
    def run(self):
        cmake = os.environ.get("WARMFORK_BUILD") or self.build_with_cmake()
        package = os.path.join(self.build_lib, "warmfork")
        shutil.rmtree(package, ignore_errors=True)
        shutil.copytree(os.path.join(cmake, "python", "warmfork"), package,
                        ignore=shutil.ignore_patterns("__pycache__", "stamp"))
        shutil.copy2(os.path.join(cmake, "bin", "warmfork"), os.path.join(package, "_command"))
        if shutil.which("strip"):
            subprocess.run(["strip", "--strip-debug", *PROGRAMS], cwd=package, check=True)

    def build_with_cmake(self):
        folder = os.path.join(BUILD, "cmake")
        generator = ["-G", "Ninja"] if shutil.which("ninja") else []
        subprocess.run(
            ["cmake", "-S", ROOT, "-B", folder, *generator, "-DCMAKE_BUILD_TYPE=Release", "-DWARMFORK_TESTS=OFF",
             f"-DPython3_EXECUTABLE={sys.executable}"], check=True,
        )
        subprocess.run(["cmake", "--build", folder, "--parallel", str(os.cpu_count())], check=True)
        return folder


os.makedirs(BUILD, exist_ok=True)
setup(
    version=version(),
    packages=[],
    ext_modules=[Extension("warmfork._native", sources=[])],
    cmdclass={"build_ext": BuildPackage},
    options={"bdist_wheel": {"py_limited_api": "cp39"}, "build": {"build_base": BUILD},
             "egg_info": {"egg_base": BUILD}},
)
