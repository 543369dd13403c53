"""The owner's side: templates, and Popen objects for what is spawned from them."""

import errno
import os
import signal
import subprocess
import sys
import time
import warnings

from . import _green, _native, _request, _subprocess
from ._children import Child
from ._errors import Error, TemplateError

_ON_ERROR = ("ignore", "warn", "fail")

# What subprocess does first in each Popen: it reaps children that had not ended when their object was dropped.
_reap_abandoned = getattr(_subprocess.module, "_cleanup", lambda: None)

_LIFETIMES = {"owner": 0, "detached": _native.DETACHED}

# Parameters with which subprocess raises nothing once it has the pipes, whatever their values.
_UNFAILING = {"executable", "stdin", "stdout", "stderr", "cwd", "env", "start_new_session", "text"}
# How long a spawn waits for a template, in seconds.
_READY_PATIENCE = 15


def _backend_number(backend):
    if backend is None:
        return 0
    try:
        return _native.BACKENDS[backend]
    except KeyError:
        raise ValueError(f"backend must be one of {', '.join(_native.BACKENDS)}, not {backend!r}") from None


def _environment_block(environment):
    if environment is None:
        return None
    block = []
    for name, value in environment.items():
        name = os.fsencode(name)
        if b"=" in name:
            raise ValueError("illegal environment variable name")
        block.append(name + b"=" + os.fsencode(value))
    return block


def _main_file():
    """Of this program; "": it has none."""
    file = getattr(sys.modules.get("__main__"), "__file__", None)
    return os.path.abspath(file) if isinstance(file, str) else ""


def _milliseconds(timeout):
    return -1 if timeout is None else max(0, round(timeout * 1000))


def end_spawned(spawned):
    """Ends the child of a spawn that was interrupted when it was there. spawned: _native.spawn's list."""
    for pid, *_, served in spawned:
        if served:
            _native.signal_served(served, signal.SIGKILL)
            _native.wait_served(served, 0, [])
        else:
            os.kill(pid, signal.SIGKILL)
            _native.wait(pid, 0, [])
    del spawned[:]


_UNKNOWN = "the interpreter's subprocess is another one than warmfork knows"


class Popen(*_subprocess.BASES):
    """A subprocess.Popen whose child comes from a template.

    The parameters are those of subprocess.Popen, and:

    template: a Template; without one the child is started cold.
    backend: "auto" (the default: warm where it can be, else cold), "warm" (or an error) or "cold".
    lifetime: "owner" (the child ends with this process: SIGTERM, then SIGKILL) or "detached".
    nice: the child's nice value. affinity: the CPUs it may use. limits: {resource: (soft, hard)}.

    The attributes are those of subprocess.Popen, and:

    backend: "warm" or "cold". reason: why it was cold, a sentence; "" if it is warm.
    reason_code: the same as one word ("environment", "gate", ...); "none" if it is warm.

    A status that somebody else has taken (a wait for any child), or that died with the service, which was
    killed, raises ChildProcessError, its errno ECHILD or EOWNERDEAD.
    """

    backend = None
    reason = ""
    reason_code = "none"

    _spawned = ()  # one (pid, backend, reason code, reason, handle)
    _child = None  # the Child, once its end is of interest
    _early_handles = None  # until subprocess asks for them

    def __init__(
        self,
        args,
        *positional,
        template=None,
        backend=None,
        lifetime="owner",
        nice=None,
        affinity=None,
        limits=None,
        **keywords,
    ):
        _reap_abandoned()
        self._template = template
        self._backend_number, self._wanted_backend = _backend_number(backend), backend
        if lifetime not in _LIFETIMES:
            raise ValueError(f"lifetime must be owner or detached, not {lifetime!r}")
        self._flags = _LIFETIMES[lifetime] | (0 if nice is None else _native.NICE)
        self._nice = nice or 0
        self._affinity = _request.affinity_mask(affinity)
        self._limits = _request.flat_limits(limits)
        if not _subprocess.IS_KNOWN:
            self._refuse(_UNKNOWN)
            _subprocess.initialize(self, args, *positional, **keywords)
            self._note_cold(_UNKNOWN)
            return
        is_refused = keywords.get("stdout") is subprocess.STDOUT
        is_late = positional or not template or not keywords.keys() <= _UNFAILING or is_refused or self._is_altered()
        if not is_late:  # the child starts ahead of what subprocess does for this process alone
            self._spawn_early(args, **keywords)
        try:
            _subprocess.initialize(self, args, *positional, **keywords)
        except BaseException:  # no memory, Ctrl-C
            self._take_back()
            raise

    def _is_altered(self):
        """Is this a subclass that has a say in what follows?"""
        kind = type(self)
        return kind._get_handles is not Popen._get_handles or kind._execute_child is not Popen._execute_child

    def _spawn_early(
        self, args, executable=None, stdin=None, stdout=None, stderr=None, cwd=None, env=None,
        start_new_session=False, text=None,
    ):
        handles = _native.make_pipes(stdin, stdout, stderr)
        if handles is None:  # something else than pipes is asked for
            self.pipesize = -1  # as subprocess sets it
            handles = super()._get_handles(stdin, stdout, stderr)
        self._early_handles = handles
        try:
            self._spawn(args, executable, cwd, env, handles, start_new_session=start_new_session)
        except BaseException:
            self._close_early_handles()
            raise

    def _close_early_handles(self):
        handles, self._early_handles = self._early_handles, None
        self._close_pipe_fds(*handles)
        for number in (handles[1], handles[2], handles[4]):
            if number != -1:
                os.close(number)

    def _take_back(self):
        """Ends a child whose Popen could not be finished."""
        if self._early_handles:
            self._close_early_handles()
        if self._spawned:
            end_spawned(self._spawned)
            self._child_created = False

    def _get_handles(self, stdin, stdout, stderr):
        handles, self._early_handles = self._early_handles, None
        return handles or super()._get_handles(stdin, stdout, stderr)

    def _close_pipe_fds(self, p2cread, p2cwrite, c2pread, c2pwrite, errread, errwrite):
        if -1 in (p2cwrite, c2pread, errread):
            super()._close_pipe_fds(p2cread, p2cwrite, c2pread, c2pwrite, errread, errwrite)
            return
        # Three pipes, without the stack of callbacks that subprocess closes them by: the child may be waiting
        # for the processor that this runs on.
        self._closed_child_pipe_fds = True
        for number in (p2cread, c2pwrite, errwrite):
            os.close(number)

    # The parameters of subprocess's own, which passes them by position: alike from 3.9 on, the last one
    # since 3.11.
    def _execute_child(
        self, args, executable, preexec_fn, close_fds, pass_fds, cwd, env, startupinfo, creationflags,
        shell, p2cread, p2cwrite, c2pread, c2pwrite, errread, errwrite, restore_signals, gid, gids, uid,
        umask, start_new_session, *process_group,
    ):
        handles = p2cread, p2cwrite, c2pread, c2pwrite, errread, errwrite
        obstacle = ""
        if self._spawned:
            pass  # started early: never again, whatever is asked for here
        elif shell:
            obstacle = "shell=True runs a shell"
        elif preexec_fn is not None:
            obstacle = "preexec_fn runs in a forked copy of the caller"
        elif not close_fds:
            obstacle = "close_fds=False hands over every inheritable descriptor"
        elif uid is not None or gid is not None or gids is not None:
            obstacle = "another user or group is set at exec"
        if obstacle:
            self._refuse(obstacle)
            super()._execute_child(
                args, executable, preexec_fn, close_fds, pass_fds, cwd, env, startupinfo,
                creationflags, shell, *handles, restore_signals, gid, gids, uid, umask,
                start_new_session, *process_group,
            )
            self._note_cold(obstacle)
            return

        try:
            if not self._spawned:
                self._spawn(
                    args, executable, cwd, env, handles, pass_fds, restore_signals, umask,
                    start_new_session, *process_group,
                )
            self.pid, self.backend, self.reason_code, self.reason, served = self._spawned[0]
            self._child = Child(self.pid, served)
            self._child_created = True
        finally:
            self._close_pipe_fds(*handles)

    def _note_cold(self, obstacle):
        """Of a child that subprocess has started."""
        self.backend, self.reason, self.reason_code = "cold", obstacle, "command-line"
        self._awaited()
        if self._flags & _native.DETACHED:
            return
        try:
            _native.keep(self.pid)
        except BaseException:
            self.kill()
            self.wait()
            raise

    def _spawn(
        self, args, executable, cwd, env, handles, pass_fds=(), restore_signals=True, umask=-1,
        start_new_session=False, process_group=-1,
    ):
        if self._template and self._chosen_backend() != "cold":
            self._template._wait_first()
        if type(args) is not list:
            args = [args] if isinstance(args, (str, bytes, os.PathLike)) else list(args)
        program = args[0] if executable is None else executable
        sys.audit("subprocess.Popen", program, args, cwd, env)
        if cwd is not None and not os.fspath(cwd):
            raise _request.system_error(errno.ENOENT, cwd)
        descriptors = _request.descriptor_pairs(handles, pass_fds)
        flags = _request.flag_bits(self._flags, restore_signals, umask, start_new_session, process_group)
        self._spawned = []
        try:
            _native.spawn(
                self._template._handle if self._template else None, args, self._spawned,
                executable=executable, environment=env, directory=cwd, descriptors=descriptors, flags=flags,
                backend=self._backend_number, process_group=max(process_group, 0), umask=max(umask, 0) & 0o777,
                signals_default=_request.PYTHON_IGNORES, nice=self._nice, affinity=self._affinity,
                limits=self._limits,
            )
            if self._template:
                self._template._warn_after(self._spawned)
        except Error as error:
            _request.raise_familiar(error, cwd, program)
        except BaseException:  # Ctrl-C, behind the child's back
            end_spawned(self._spawned)
            raise

    def _refuse(self, obstacle):
        """What subprocess alone can do is cold, and has none of warmfork's own parameters."""
        if self._chosen_backend() == "warm":
            raise OSError(errno.ENOTSUP, f"cannot be served warm: {obstacle}")
        if self._flags & _native.NICE or self._affinity or self._limits:
            raise ValueError(f"nice, affinity and limits cannot be given here: {obstacle}")

    def _chosen_backend(self):
        if self._wanted_backend:
            return self._wanted_backend
        if self._template and self._template.backend:
            return self._template.backend
        return os.environ.get("WARMFORK_BACKEND", "auto")

    # A status is never made up: subprocess takes one that was lost for zero.

    def _internal_poll(self, _deadstate=None, *_):
        if self.returncode is None and _deadstate is None:
            self._awaited().let_reap()
        if self.returncode is None and self._waitpid_lock.acquire(False):
            try:
                if self.returncode is None:
                    pid, status = self._try_wait(os.WNOHANG)
                    if pid == self.pid:
                        self._handle_exitstatus(status)
            except ChildProcessError:
                if _deadstate is None:
                    raise
                self.returncode = _deadstate
            finally:
                self._waitpid_lock.release()
        return self.returncode

    def _awaited(self):
        """The Child; first asked for where subprocess has started it."""
        if self._child is None:
            self._child = Child(self.pid)
        return self._child

    def _try_wait(self, wait_flags):
        return self._awaited().take_status(wait_flags)

    def _wait(self, timeout):
        if self._awaited().green is None:
            return super()._wait(timeout)
        # No lock is held while others run: they may wait for the same child.
        status = self._child.wait_green(self._internal_poll, timeout)
        if status is None:
            raise subprocess.TimeoutExpired(self.args, timeout)
        return status

    def send_signal(self, sig):
        if not self._awaited().served:
            return super().send_signal(sig)
        if self.poll() is None:
            try:
                _native.signal_served(self._child.served, sig)
            except ProcessLookupError:
                pass  # it has ended, and its status is about to come
        return None

    def _open_pidfd(self):
        """Of the child; the caller's to close. It is readable when the child has ended."""
        return self._awaited().open_pidfd()


if not _subprocess.IS_KNOWN:
    for _name in _subprocess.INTERFACE.keys() & vars(Popen).keys():
        delattr(Popen, _name)


def search_path():
    """sys.path, whatever the directory is."""
    return [os.path.abspath(entry) for entry in sys.path]


class Template:
    """A process that imports modules once, and children that begin with them imported.

    preload: names of modules, imported in this order. They are looked for as this process would.
    The first one or two spawns do not wait for them: they are cold (reason "restarting"), as that is the sooner.
    wait_ready() and backend="warm" wait.
    python: the interpreter. spares: parked children to keep, -1 for as many as are used (1 to 8).
    env: the template's environment; None: this process's, at each start. cwd: its directory.
    backend: the default for popen and run. allow: exceptions from the fork-safety gate,
    "thread:NAME", "descriptor:PREFIX" or "mapping:PREFIX"; and "identity:MODULE", "output:MODULE" or
    "program:MODULE", of a module that keeps what it took from the process that imports it (its id, the time, the
    arguments, random bytes), that writes something when it is imported, or for which a program is started;
    "directory:MODULE" or "directory:./NAME", of what is not the same in a child's directory.

    on_stale: what a spawn does after a file that the image came from has changed: "cold" (until a new
    image is ready), "wait" for it, or "serve" the old image meanwhile.
    variants: how many images are kept beside the first, for interpreter options and for other values of
    the variables that preloading reads; the least recently used one goes.
    before_fork, in_child: hooks, "module:function", called in the template before each fork, and in each
    child right before its program.

    on_error: what a module is that cannot be imported: "fail" (TemplateError from the first use), or left out, with
    "warn" (a RuntimeWarning as well) or "ignore"; report()["host"]["failed"] names it. None: "fail", and "ignore"
    for the main module, which multiprocessing's children import themselves then.

    learn: children report, when they end, which modules they imported that the image lacked; what most of
    them import is preloaded in the next image (report()["host"]["learned"] tells), as far as its start comes no
    later for it than a child's is earlier. Remembered under $XDG_STATE_HOME/warmfork, for each program: name, or
    None: its main file. Such a template opens in the background: until it is ready spawns are cold, unless
    backend="warm" or wait_ready() wait for it.

    nested: each child keeps a parked copy of the template, as a child of its own; the first template that
    it opens with the same arguments needs no preloading.

    options: of the interpreter, for the first image: what most command lines have ("-B").

    Template("NAME") is a template of this user's service (warmforkd) instead, which outlives this process; its
    files say what it is, so that only `backend` can be given. A service is started where none runs. Its children
    are the service's: getppid() tells so, os.waitpid does not see them, Popen's methods do. They end with this
    process unless detached. What a child of the service cannot be is started cold by this process.

    A context manager; close() ends the template (one of the service it only lets go of) and leaves its children
    alone.
    """

    def __init__(
        self, preload=(), *, python=None, spares=-1, env=None, cwd=None, backend=None, allow=(),
        on_stale="cold", variants=4, before_fork=None, in_child=None, options=(), learn=False,
        nested=False, on_error=None, name=None,
    ):
        self._has_waited = self._warns = self._learns = False
        self._search_path = None  # of the service's nothing is known
        if isinstance(preload, str):
            self._connect(preload, locals())
            return
        if on_stale not in _native.ON_STALE:
            raise ValueError(f"on_stale must be one of {', '.join(_native.ON_STALE)}, not {on_stale!r}")
        if on_error not in (None, *_ON_ERROR):
            raise ValueError(f"on_error must be one of {', '.join(_ON_ERROR)}, not {on_error!r}")
        self.backend = backend
        self._warns, self._learns = on_error == "warn", learn
        self.preload = list(preload)
        self._search_path = search_path()
        self._python = python or sys.executable
        self._handle = _native.open(
            os.fsencode(self._python),
            preload=[os.fsencode(name) for name in ([f"on_error={on_error}"] if on_error else []) + self.preload],
            path=[os.fsencode(entry) for entry in self._search_path],
            environment=_environment_block(env),
            directory=None if cwd is None else os.fsencode(cwd),
            spares=spares,
            backend=_backend_number(backend),
            allow=[os.fsencode(entry) for entry in allow],
            on_stale=_native.ON_STALE[on_stale],
            variants=variants,
            before_fork=None if before_fork is None else os.fsencode(before_fork),
            in_child=None if in_child is None else os.fsencode(in_child),
            options=[os.fsencode(option) for option in options],
            learn=learn,
            nested=nested,
            name=os.fsencode(_main_file() if name is None else name),
        )

    def _connect(self, name, arguments):
        """To the service's template of this name. arguments: all those of __init__."""
        for other, default in Template.__init__.__kwdefaults__.items():
            if other != "backend" and arguments[other] != default:
                raise TypeError(
                    f"{other}= cannot be given for the service's template {name!r}: its file says what it is "
                    f"(warmfork template edit {name}). A module of this name is preload=[{name!r}]"
                )
        self.backend = arguments["backend"]
        self._handle = _native.connect(os.fsencode(name), _backend_number(self.backend))

    def popen(self, args, *positional, **keywords):
        """A warmfork.Popen from this template; parameters as there."""
        return Popen(args, *positional, template=self, **keywords)

    def run(
        self, args, *positional, input=None, capture_output=False, timeout=None, check=False, **keywords
    ):
        """As subprocess.run, from this template."""
        if input is not None:
            if keywords.get("stdin") is not None:
                raise ValueError("stdin and input arguments may not both be used.")
            keywords["stdin"] = subprocess.PIPE
        if capture_output:
            if keywords.get("stdout") is not None or keywords.get("stderr") is not None:
                raise ValueError("stdout and stderr arguments may not be used with capture_output.")
            keywords["stdout"] = keywords["stderr"] = subprocess.PIPE
        with self.popen(args, *positional, **keywords) as process:
            try:
                stdout, stderr = process.communicate(input, timeout=timeout)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
                raise
            except BaseException:
                process.kill()
                raise
            status = process.poll()
        completed = subprocess.CompletedProcess(process.args, status, stdout, stderr)
        if check:
            completed.check_returncode()
        return completed

    def wait_ready(self, timeout=None):
        """Waits, seconds, until the modules are imported. Raises TemplateError where they cannot be.
        Signals are handled meanwhile."""
        green = _green.library()
        if green:
            self._wait_green(green, timeout)
        else:
            _native.wait_ready(self._handle, _milliseconds(timeout))
        self._warn_of_failed()

    def _wait_green(self, green, timeout):
        """Until it is ready, with other green threads running meanwhile."""
        deadline = None if timeout is None else time.monotonic() + timeout
        while True:
            try:
                return _native.wait_ready(self._handle, 0)
            except TemplateError as error:
                is_late = deadline is not None and time.monotonic() >= deadline
                if error.errno != errno.ETIMEDOUT or is_late:
                    raise
            green.sleep(0.01)

    def _wait_first(self):
        """Ahead of the first spawn, which waits as long, but would keep all green threads waiting."""
        opens_in_the_background = self._learns and self.backend != "warm"
        green = None if self._has_waited or opens_in_the_background else _green.library()
        self._has_waited = True
        if green:
            try:
                self._wait_green(green, _READY_PATIENCE)
            except TemplateError:
                pass  # the spawn says it, or is cold

    def _warn_of_failed(self):
        """Once, of what has been left out, by a template that is ready."""
        if self._warns:
            self._warns = False
            for failed in self.report()["host"]["failed"]:
                text = f"{failed['module']} could not be preloaded: {failed['reason']}"
                warnings.warn(text, RuntimeWarning, stacklevel=3)

    def _warn_after(self, spawned):
        """spawned: _native.spawn's list. Only a warm child tells that the template is ready."""
        if self._warns and spawned[0][1] == "warm":
            self._warn_of_failed()

    def wait_parked(self, count=1, timeout=None):
        """Waits, seconds, until so many children are parked and the template sleeps. Signals are handled
        meanwhile."""
        _native.wait_parked(self._handle, count, _milliseconds(timeout))

    def set_spares(self, spares):
        """Changes how many children are kept parked; -1: as many as are used. OSError (ENOTSUP) of a template of
        the service, whose file says how many."""
        _native.set_spares(self._handle, spares)

    @property
    def pid(self):
        """The template's process id; 0 while there is none, and of the service's while no child of it is held."""
        return _native.pid(self._handle)

    @property
    def parked(self):
        """How many children are parked now; of the service's, for this process."""
        return _native.parked(self._handle)

    @property
    def counts(self):
        """Spawns by kind, and cold ones by reason."""
        return _native.counts(self._handle)

    def report(self):
        """What the template looks like from inside, as a dictionary."""
        import json

        return json.loads(_native.report(self._handle))

    def close(self):
        _native.close(self._handle)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()
