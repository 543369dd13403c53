"""What a warm child does before user code: everything that a fresh interpreter would have done.

Runs in every child, so it imports nothing then and costs little. C does the rest: see
python_host.cpp.
"""

from __future__ import annotations

import _frozen_importlib as _bootstrap
import _frozen_importlib_external as _bootstrap_external
import builtins
import os
import posix
import runpy
import signal
import sys
import time

from ._generators import NoGenerators, seed_anew
from ._modules import find_holders
from ._renewals import find_renewals, umask_holders
from ._run_module import hide_from_runpy
from ._streams import Stream

# It is the same as typing's, which children that import it would otherwise find loaded.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import CodeType
    from typing import Any, Callable, Collection, Sequence

    from .._types import Changes, Hook, PathAddition, Prepared

if sys.version_info >= (3, 13):
    import linecache  # every `python3 -c` has it

_PYTHON_IGNORES = (signal.SIGPIPE, signal.SIGXFSZ)  # of every fresh interpreter

_MULTIPROCESSING = "warmfork.multiprocessing"
_ALL_STREAMS = 0b111
_SETTABLE_BITS = sum(1 << (number - 1) for number in signal.valid_signals())  # not the two of glibc
_PYTHON_IGNORED_BITS = sum(1 << (number - 1) for number in _PYTHON_IGNORES)

_image_path: list[str] = []
_image_executable = ""
_written_by_python: Changes = {}
_written_by_c: Changes = {}
_in_child: Hook | None = None
_image_ignored = 0
# Modules that keep the directory under a name of theirs and nowhere else, and what they keep where there is none.
KEEP_DIRECTORY = (
    ("multiprocessing.process", "ORIGINAL_DIR", None), ("rich", "_IMPORT_CWD", ""),
    ("pip._vendor.rich", "_IMPORT_CWD", ""),
)
# These keep a copy of sys.argv, encoded.
KEEP_ARGUMENTS = (("mercurial.pycompat", "sysargv"),)
_path_added: Sequence[PathAddition] = ()
_path_removed: Sequence[str] = ()
_streams: tuple[Stream, ...] = ()
_are_all_on_pipes = False
_generators: Any = None
_multiprocessing: Any = None
_logging: Any = None
_directory_holders: Sequence[tuple[Any, ...]] = ()  # as KEEP_DIRECTORY, with the module itself
_arguments_kept: Sequence[list[bytes]] = ()  # by KEEP_ARGUMENTS: the lists
_path_copies: Sequence[list[str]] = ()  # that modules have made of sys.path
_renewals: Collection[Callable[[], None]] = ()
_main_holders: list[tuple[dict[str, Any], str]] = []  # where there is the template's __main__, with the name
_umask_holders: Sequence[tuple[dict[str, Any], str]] = ()  # as umask_holders has them
_needs_moment = False
_threading: Any = None
_is_link_program: Callable[[bytes], bool] | None = None  # of the template; None: there are no links to see
_preloaded: tuple[str, ...] = ()
_of_packages: Collection[str] = ()
_known_codes: dict[str, CodeType] = {}  # programs for -c that the template has compiled; by their text


def _renew_streams(pipes: int) -> None:
    """Renews the standard streams. Bit n of pipes says that descriptor n is a pipe or socket. Streams made over pipes
    fit any others as they are."""
    global _are_all_on_pipes
    for stream in _streams:
        if not (_are_all_on_pipes and pipes >> stream.number & 1):
            stream.renew()
    _are_all_on_pipes = pipes == _ALL_STREAMS


def has_safe_path() -> bool:
    """Does the interpreter put nothing in front of sys.path for the program?"""
    return bool(getattr(sys.flags, "safe_path", False) or sys.flags.isolated)


def _written(before: dict[bytes, bytes], after: dict[bytes, bytes]) -> Changes:
    """Returns what turns one environment into the other. None means removed."""
    written: Changes = {name: value for name, value in after.items() if before.get(name) != value}
    written.update((name, None) for name in before if name not in after)
    return written


def remember_image(
    preloaded: Sequence[str], start_environment: dict[bytes, bytes], c_environment: dict[bytes, bytes],
    in_child: Hook | None, ignored: set[int], path_changes: tuple[list[PathAddition], list[str]],
    path_copies: Sequence[list[str]] = (), of_packages: Collection[str] = (), generators: Any = NoGenerators,
) -> None:
    """Notes the image, in the template, when preloading is done. start_environment: what the interpreter was started
    with. c_environment: what environ holds now. in_child: a function or None. ignored: signals that were so from the
    start. path_changes: what was added to sys.path, and removed. path_copies: lists that modules have made of it.
    of_packages: as of hide_from_runpy. generators: as NoGenerators."""
    global _image_path, _image_ignored, _streams, _generators, _image_executable, _in_child
    global _preloaded, _multiprocessing, _threading, _path_added, _path_removed, _of_packages
    global _written_by_python, _written_by_c, _logging, _directory_holders, _arguments_kept, _needs_moment
    global _renewals, _path_copies, _umask_holders
    _preloaded = tuple(name for name in preloaded if "=" not in name)
    _in_child = in_child
    _image_path = sys.path[:]
    _path_copies = path_copies
    _image_executable = sys.executable
    # It includes what the interpreter itself wrote: LC_CTYPE in the C locale (PEP 538).
    _written_by_python = _written(start_environment, os.environ._data)
    _written_by_c = _written(start_environment, c_environment)
    _path_added, _path_removed = path_changes
    _of_packages = of_packages
    _image_ignored = sum(1 << (number - 1) for number in ignored)
    _streams = (
        Stream("stdin", 0, "rb"),
        Stream("stdout", 1, "wb"),
        Stream("stderr", 2, "wb"),
    )
    _generators = generators
    _multiprocessing = sys.modules.get("multiprocessing.process")
    _logging = sys.modules.get("logging")
    _directory_holders = [(sys.modules[name], *kept) for name, *kept in KEEP_DIRECTORY if name in sys.modules]
    kept = [getattr(sys.modules[name], attribute, None) for name, attribute in KEEP_ARGUMENTS if name in sys.modules]
    _arguments_kept = [arguments for arguments in kept if type(arguments) is list]
    _renewals = find_renewals().values()
    _main_holders.extend(find_holders(sys.modules["__main__"]))
    _umask_holders = umask_holders()
    _needs_moment = _logging is not None or bool(_directory_holders or _umask_holders)
    if _MULTIPROCESSING in sys.modules:
        module = sys.modules[_MULTIPROCESSING]
        module.prepare_rehearsal()
        _known_codes[module.CHILD + "\n"] = module.CHILD_CODE
        text = _REHEARSAL_OF_MULTIPROCESSING + "\n"
        _known_codes[text] = compile(text, "<string>", "exec", 0, True)
    # Its first call makes the types of all syntax trees, which every child would make anew.
    compile("", "<string>", "exec")
    _threading = sys.modules.get("threading")


def see_links_by(is_link_program: Callable[[bytes], bool]) -> None:
    """Sets is_link_program, of _native: does a path lead to what stands in the place of commands?"""
    global _is_link_program
    _is_link_program = is_link_program


def leave_numpy_to(register_twister: Callable[[Any, bytes, int], bool]) -> None:
    """Leaves the generator of numpy's functions to register_twister, of _native, which seeds it by itself where it knows
    it."""
    numpy = _generators.numpy
    shared: Any = getattr(sys.modules.get("numpy.random.mtrand"), "_rand", None)
    if numpy is None or not any(generator is shared for generator in numpy.legacy):
        return
    try:
        name, key, position, has_normal, _ = shared.get_state()
        if name == "MT19937" and not has_normal and register_twister(
            shared._bit_generator.capsule, key.tobytes(), position
        ):
            numpy.legacy.remove(shared)
    except (AttributeError, ValueError):
        pass  # another numpy than we know


# It is what most programs begin with, so that a spare has its own copies of the pages that this writes to. All that it
# does beyond what a program does is paid for by each child, and by the search at its end.
_REHEARSAL = """\
import {modules}
import os, sys
os.write(1, b"")
"""

_REHEARSAL_OF_MULTIPROCESSING = f"""\
import sys
try:
    sys.modules["{_MULTIPROCESSING}"].rehearse()
except Exception:
    pass
"""


def rehearsal(pipes: int) -> str:
    """Returns the program to rehearse with. The streams are put on the pipes before."""
    _renew_streams(pipes)
    if _known_codes:
        return _REHEARSAL_OF_MULTIPROCESSING  # what children of a context come by
    return _REHEARSAL.format(modules=", ".join(["builtins", *_preloaded]))


def part_from_siblings() -> None:
    """Renews what children of one image must not share."""
    seed_anew(_generators)
    for renew in _renewals:
        renew()
    if _multiprocessing is not None:
        _multiprocessing.current_process().authkey = os.urandom(32)
    if _threading is not None:
        _threading.main_thread()._set_native_id()


def _write(dictionary: dict[bytes, bytes], written: Changes) -> None:
    for name, value in written.items():
        if value is None:
            dictionary.pop(name, None)
        else:
            dictionary[name] = value


def set_environment(environment: dict[bytes, bytes]) -> None:
    """Sets os.environ, and replays what preloading has written. environment: bytes by bytes, what environ holds."""
    data = os.environ._data  # the same as posix.environ
    data.clear()
    data.update(environment)
    _write(data, _written_by_python)
    for name, value in _written_by_c.items():
        if value is None:
            posix.unsetenv(name)
        else:
            posix.putenv(name, value)


def _set_signals(ignored: int) -> None:
    """Sets what the signal module believes, where it differs from what the template believed."""
    for number in range(1, 65):
        bit = 1 << (number - 1)
        if ignored & bit and not _image_ignored & bit:
            signal.signal(number, signal.SIG_IGN)
        elif _image_ignored & bit and not ignored & bit and number == signal.SIGINT:
            signal.signal(number, signal.default_int_handler)
        elif _image_ignored & bit and not ignored & bit and number not in _PYTHON_IGNORES:
            signal.signal(number, signal.SIG_DFL)


def _make_main() -> Any:
    main: Any = type(sys)("__main__")
    main.__loader__ = _bootstrap.BuiltinImporter
    if sys.version_info < (3, 14):
        main.__annotations__ = {}
    main.__builtins__ = builtins
    return main


def make_ready() -> tuple[bool, bool, int, bytes, dict[str, CodeType], bool]:
    """Does the last of what can be done before the command is known. It runs in the child, where what the template has
    made is frozen, and the garbage collector would not take __main__ apart at the end."""
    main = sys.modules["__main__"] = _make_main()
    for names, name in _main_holders:
        names[name] = main
    sys.path[:] = _image_path
    # This is for C, which does by itself what else a -c over pipes needs.
    is_usual = _image_ignored == _PYTHON_IGNORED_BITS and not _path_added and not _path_removed
    return (
        _are_all_on_pipes and is_usual and _in_child is None and type(sys.path) is list
        and not _arguments_kept and not _path_copies,
        not has_safe_path(),
        _PYTHON_IGNORED_BITS | ~_SETTABLE_BITS & (1 << 64) - 1,
        os.fsencode(_image_executable or ""),
        _known_codes,
        _needs_moment,
    )


def name_program(names: dict[str, Any], path: str, is_input: bool) -> bool:
    """Writes what PyRun_SimpleFile writes into the namespace of a program before it runs. Returns whether it is to be
    taken out again."""
    is_new = "__file__" not in names
    if is_new:
        names["__file__"] = path
        if sys.version_info < (3, 15):
            names["__cached__"] = None
    if not is_input:
        names["__loader__"] = _bootstrap_external.SourceFileLoader("__main__", path)
    return is_new


def take_moment() -> None:
    """Renews what known modules have kept of the moment of their import. The directory is the child's by now."""
    if _logging is not None:
        _logging._startTime = time.time_ns() if type(_logging._startTime) is int else time.time()
    if _umask_holders:
        mask = os.umask(0o77)
        os.umask(mask)
        for names, name in _umask_holders:
            names[name] = mask
    for module, name, without_directory in _directory_holders:
        try:
            setattr(module, name, os.path.abspath(os.getcwd()))
        except OSError:
            setattr(module, name, without_directory)


def _importer_of(path: str) -> Any:
    """Returns the importer of what is to be run, or None. A directory or an archive can be run too."""
    for hook in sys.path_hooks:
        try:
            return hook(path)
        except ImportError:
            continue
    return None


def _insert_path(entry: str) -> None:
    if not has_safe_path():
        sys.path.insert(0, entry)


def _find_executable(program: str) -> str:
    """Returns sys.executable of an interpreter that was called so; is_plain_path of eligibility.cpp holds."""
    if program.startswith("/"):
        return os.path.normpath(program) if sys.version_info >= (3, 11) else program
    if "/" in program:
        return _absolute(program[2:] if program.startswith("./") else program)
    for directory in os.environ.get("PATH", "").split(":"):
        path = os.path.join(directory, program)
        if os.path.isfile(path) and os.access(path, os.X_OK):
            if not (_is_link_program and _is_link_program(os.fsencode(path))):
                return path
    return ""


def _absolute(path: str) -> str:
    """Makes a path absolute as python3 does. Where the directory is gone, it stays as it is."""
    try:
        is_here = path == "." and sys.version_info >= (3, 11)
        return os.getcwd() if is_here else os.path.join(os.getcwd(), path)
    except OSError:
        return path


def dedented(text: str) -> str:
    """Returns a text of -c as CPython runs it from 3.14 on: without what all of its lines begin with, of spaces and tabs.
    Lines of nothing else do not count, and are empty then. What cannot be encoded stays, as the error tells a place in
    it."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return text
    lines = [(line, line.lstrip(" \t")) for line in text.split("\n")]
    indents = [line[: len(line) - len(rest)] for line, rest in lines if rest]
    first, last = min(indents, default=""), max(indents, default="")  # what these two share, all do
    same = 0
    while same < len(first) and first[same] == last[same]:
        same += 1
    return "\n".join([line[same:] if rest else "" for line, rest in lines]) if same else text


def show_source(code: CodeType, source: str) -> None:
    """Has tracebacks show the lines of -c, as they do since 3.13. The import of linecache looks into the directory, up
    to 3.14."""
    if not has_safe_path() and sys.version_info < (3, 15):
        _bootstrap_external.PathFinder._path_importer_cache("")
    # 3.13.0 knows the text by the file's name, later ones by the code.
    key = code if hasattr(linecache, "_interactive_cache") else "<string>"  # type: ignore[name-defined]
    linecache._register_code(key, source, "<string>")  # type: ignore[name-defined]


def _change_path() -> None:
    """Changes sys.path as importing the preloaded modules does. The program's own entry is there by then."""
    path = sys.path
    for entry in _path_removed:
        if entry in path:
            path.remove(entry)
    for before, entry in _path_added:
        if before is None:
            place = 0
        elif before == "":
            place = 0 if has_safe_path() else 1
        else:
            place = path.index(before) + 1 if before in path else len(path)  # also for ...
        path.insert(place, entry)


def _prepare_script(program: str, script: str) -> Prepared:
    path = _absolute(script)
    if _importer_of(path) is not None:
        sys.path.insert(0, path)
        return runpy._run_module_as_main, ("__main__", False)
    _insert_path(os.path.dirname(os.path.realpath(script)))
    return "file", path, program


def _run_hook() -> None:
    global _in_child
    hook: Any
    hook, _in_child = _in_child, None
    hook()


def _set_list(name: str, items: list[str]) -> None:
    """Sets a list in sys. Modules may have the list itself."""
    if type(getattr(sys, name, None)) is list:
        getattr(sys, name)[:] = items
    else:
        setattr(sys, name, items[:])


def prepare(
    arguments: list[str], kind: str, index: int, operand: str, ignored: int, pipes: int, is_rehearsal: bool,
) -> Prepared:
    """Brings the interpreter into the state in which python3 begins its command line; the environment is
    set already. kind: of the program, as PythonCommand has it, with the index of its argument and the
    operand. ignored: signals, bit n-1 is signal n. pipes: bit n, descriptor n is a pipe or socket.
    Returns ("text", source), ("file", path, program), ("stdin", None), or (function, arguments) to call."""
    if not (_are_all_on_pipes and pipes == _ALL_STREAMS):
        _renew_streams(pipes)
    ignored &= _SETTABLE_BITS
    if ignored | _image_ignored != _PYTHON_IGNORED_BITS:
        _set_signals(ignored)
    if hasattr(sys, "orig_argv"):
        _set_list("orig_argv", arguments)
    is_image_executable = arguments[0] == _image_executable
    sys.executable = _image_executable if is_image_executable else _find_executable(arguments[0])
    _set_list("argv", arguments[index:] or [""])
    if kind == "text":
        sys.argv[0] = "-c"
        _insert_path("")
        prepared: Prepared = "text", operand + "\n"
    elif kind == "module":
        sys.argv[0] = "-m"
        try:
            _insert_path(os.getcwd())
        except OSError:
            _insert_path("")
        if not is_rehearsal:
            hide_from_runpy(operand, _of_packages)
        prepared = runpy._run_module_as_main, (operand,)
    elif kind == "stdin":
        _insert_path("")
        prepared = "stdin", None
    else:
        prepared = _prepare_script(arguments[0], operand)
    for kept in _arguments_kept:
        kept[:] = map(os.fsencode, sys.argv)
    if _path_added or _path_removed:
        _change_path()
    if operand + "\n" not in _known_codes:  # multiprocessing has not the path of its command line
        for copy in _path_copies:
            copy[:] = sys.path
    if _in_child is not None and not is_rehearsal:
        _run_hook()
    return prepared
