"""The extension module, shim/python/native.cpp. A test compares this with what the module has."""

from collections.abc import Iterable, Sequence
from types import ModuleType
from typing import Any, NewType, NoReturn

from ._types import Command, Environment, Handles, Path, Spawned, Status, Stream

# Capsules: of a template, and of a child.
Template = NewType("Template", object)
Process = NewType("Process", object)

__version__: str
BACKENDS: dict[str, int]
ON_STALE: dict[str, int]
# Flags of a request, as in warmfork.h.
NEW_SESSION: int
PROCESS_GROUP: int
SIGNALS_DEFAULT: int
UMASK: int
NICE: int
DETACHED: int
# These are of the contract between owner and template: forkserver/protocol.
CHANNEL_VARIABLE: str
LAUNCH_VARIABLE: str
PROGRESS_MARK: int  # a byte
LISTED_DISTRIBUTIONS: int
ASKED: tuple[str, ...]

# The owner's side: owner_template.cpp.
def open(
    python: bytes,
    *,
    preload: Sequence[bytes],
    path: Sequence[bytes],
    environment: Sequence[bytes] | None = None,
    directory: bytes | None = None,
    spares: int,
    backend: int,
    allow: Sequence[bytes],
    on_stale: int,
    variants: int,
    before_fork: bytes | None = None,
    in_child: bytes | None = None,
    options: Sequence[bytes],
    learn: bool,
    nested: bool,
    name: bytes,
) -> Template: ...
def connect(name: bytes, backend: int, /) -> Template: ...
def close(template: Template, /) -> None: ...
def wait_ready(template: Template, timeout_ms: int, /) -> None: ...
def wait_parked(template: Template, count: int, timeout_ms: int, /) -> None: ...
def set_spares(template: Template, spares: int, /) -> None: ...
def pid(template: Template, /) -> int: ...
def parked(template: Template, /) -> int: ...
def report(template: Template, /) -> str: ...
def counts(template: Template, /) -> dict[str, Any]: ...
def leave_unchecked(template: Template, /) -> None: ...

# Children: owner_spawn.cpp.
def spawn(
    from_template: Template | None,
    arguments: Command,
    spawned: list[Spawned],
    *,
    executable: Path | None = None,
    environment: Environment | None = None,
    directory: Path | None = None,
    descriptors: Sequence[int] = (),
    flags: int = 0,
    backend: int = 0,
    process_group: int = 0,
    umask: int = 0,
    signals_default: int = 0,
    nice: int = 0,
    affinity: bytes | None = None,
    limits: Sequence[int] = (),
    python_path: Sequence[str] | None = None,
) -> None: ...
def make_pipes(stdin: Stream, stdout: Stream, stderr: Stream, /) -> Handles | None: ...
def adopt(pid: int, /) -> Process: ...
def keep(handle: Process, /) -> None: ...
def wait(handle: Process, options: int, statuses: list[Status], /) -> None: ...
def send_signal(handle: Process, number: int, /) -> None: ...
def pidfd(handle: Process, /) -> int: ...
def poll_now(descriptor: int, events: int, /) -> int: ...
def is_link_program(path: bytes, /) -> bool: ...

# In a template: forkserver/python.
def announce() -> None: ...
def extended_image() -> Any: ...
def start_environment() -> dict[bytes, bytes]: ...
def current_environment() -> dict[bytes, bytes]: ...
def freeze_image(
    *,
    without_end: Iterable[type],
    finalized: Iterable[type],
    quiet: frozenset[str],
    of_python: type,
    generator: type,
    context: type,
    quiet_callbacks: list[Any],
    visited: list[tuple[type, str]],
    files: list[type],
    streams_in_memory: list[type],
    descriptors: list[type],
    fixed: list[type],
    in_one_piece: list[type],
    first_builtins: dict[str, Any] | None,
    namespaces: list[dict[str, Any]],
    is_last: bool,
) -> None: ...
def finalize_image() -> None: ...
def serve(image: list[Any], /) -> NoReturn: ...
def observe() -> tuple[int, ...]: ...
def drawn() -> list[bytes] | None: ...
def made() -> list[tuple[str, str]]: ...
def descriptors_in_the_way() -> set[int]: ...
def resume_recording() -> None: ...
def list_for(what: int, /) -> int: ...
def forget_listing(path: bytes, /) -> None: ...
def askers() -> list[tuple[str, int]]: ...
def keep_twister(capsule: Any, key: bytes, position: int, /) -> bool: ...

# A child that is forked by Python itself, and goes on as a template's.
def prepare_to_become_child(child: ModuleType, /) -> None: ...
def become_child(arguments: Sequence[bytes], descriptors: Sequence[int], mailbox: int, /) -> NoReturn: ...
