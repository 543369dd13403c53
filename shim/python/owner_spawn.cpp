#define PY_SSIZE_T_CLEAN
#define Py_LIMITED_API 0x03090000
#include "owner_spawn.hpp"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cstdint>
#include <optional>
#include <vector>

#include "library/process_access.hpp"
#include "native_call.hpp"
#include "owner_template.hpp"
#include "python/python_objects.hpp"
#include "warmfork.h"

namespace warmfork::python {
namespace {

constexpr const char* kProcessCapsule = "warmfork.process";

/// How often a child is looked at, in milliseconds, where nothing tells that it has ended.
constexpr int kLookPeriod = 10;

/// Reads pairs of integers, flat: (source, target, source, target, ...). A pair whose source is -1
/// is left out.
bool read_descriptors(PyObject* sequence, std::vector<warmfork_descriptor>& ret_descriptors) {
    const Py_ssize_t size = PySequence_Size(sequence);
    for (Py_ssize_t i = 0; i + 1 < size; i += 2) {
        long source, target;
        if (!read_integer(sequence, i, source) || !read_integer(sequence, i + 1, target))
            return false;
        if (source == -1) continue;
        ret_descriptors.push_back({static_cast<int>(source), static_cast<int>(target)});
    }
    return size >= 0;
}

/// Reads triples, flat: (resource, soft, hard, ...).
bool read_limits(PyObject* sequence, std::vector<warmfork_limit>& ret_limits) {
    const Py_ssize_t size = PySequence_Size(sequence);
    for (Py_ssize_t i = 0; i + 2 < size; i += 3) {
        long resource, soft, hard;
        if (!read_integer(sequence, i, resource) || !read_integer(sequence, i + 1, soft) ||
            !read_integer(sequence, i + 2, hard))
            return false;
        // RLIM_INFINITY is -1 in Python's resource module.
        ret_limits.push_back({static_cast<std::uint32_t>(resource),
                              static_cast<std::uint64_t>(soft), static_cast<std::uint64_t>(hard)});
    }
    return size >= 0;
}

/// A request, and what it points to.
class SpawnRequest {
  public:
    /// Returns false with an exception set. `arguments` and `names` must outlive this.
    bool read(PyObject* arguments, PyObject* names);

    PyObject* from = nullptr;     ///< the template's capsule, or None
    PyObject* spawned = nullptr;  ///< a list
    warmfork_request request;

  private:
    bool point_to_values();

    PyObject* command_ = nullptr;
    PyObject *executable_ = Py_None, *environment_ = Py_None, *directory_ = Py_None;
    PyObject *descriptors_ = nullptr, *affinity_ = Py_None, *limits_ = nullptr;
    PyObject* python_path_ = Py_None;
    EncodedStrings encoded_command_, encoded_environment_, paths_, encoded_python_path_;
    std::vector<warmfork_descriptor> descriptor_pairs_;
    std::vector<warmfork_limit> limit_values_;
};

bool SpawnRequest::read(PyObject* arguments, PyObject* names) {
    static const char* const keywords[] = {
        "from_template", "arguments", "spawned", "executable",    "environment", "directory",
        "descriptors",   "flags",     "backend", "process_group", "umask",       "signals_default",
        "nice",          "affinity",  "limits",  "python_path",   nullptr};
    warmfork_request_init(&request);
    int backend = WARMFORK_BACKEND_DEFAULT, process_group = 0, mask = 0;
    unsigned long long signals_default = 0;
    if (!PyArg_ParseTupleAndKeywords(
            arguments, names, "OOO|$OOOOIiiiKiOOO", const_cast<char**>(keywords), &from, &command_,
            &spawned, &executable_, &environment_, &directory_, &descriptors_, &request.flags,
            &backend, &process_group, &mask, &signals_default, &request.nice, &affinity_, &limits_,
            &python_path_))
        return false;
    request.backend = static_cast<warmfork_backend>(backend);
    request.signals_default = signals_default;
    // Which is none where it is negative: the flags say so.
    request.process_group = std::max(process_group, 0);
    request.file_mode_mask = static_cast<std::uint32_t>(mask & 0777);
    return point_to_values();
}

bool SpawnRequest::point_to_values() {
    char* affinity = nullptr;
    Py_ssize_t affinity_size = 0;
    if (!paths_.add_optional(executable_, request.executable) ||
        !paths_.add_optional(directory_, request.directory) ||
        !encoded_command_.add_all(command_) || !encoded_environment_.add_variables(environment_) ||
        (python_path_ != Py_None && !encoded_python_path_.add_all(python_path_)) ||
        (descriptors_ && !read_descriptors(descriptors_, descriptor_pairs_)) ||
        (limits_ && !read_limits(limits_, limit_values_)) ||
        (affinity_ != Py_None && PyBytes_AsStringAndSize(affinity_, &affinity, &affinity_size) < 0))
        return false;
    request.arguments = encoded_command_.get();
    request.environment = encoded_environment_.get();
    request.descriptors = descriptor_pairs_.data();
    request.descriptor_count = descriptor_pairs_.size();
    request.affinity = affinity;
    request.affinity_size = static_cast<std::size_t>(affinity_size);
    request.limits = limit_values_.data();
    request.limit_count = limit_values_.size();
    request.python_path = encoded_python_path_.get();
    return true;
}

warmfork_process* process_of(PyObject* capsule) {
    return static_cast<warmfork_process*>(PyCapsule_GetPointer(capsule, kProcessCapsule));
}

void delete_process(PyObject* capsule) {
    warmfork_process_free(process_of(capsule));
}

/// What a child is waited for and signalled by, which its number may not be: it may be another's.
PyObject* handle_of(warmfork_process* process) {
    PyObject* handle = PyCapsule_New(process, kProcessCapsule, delete_process);
    if (!handle) warmfork_process_free(process);
    return handle;
}

/// (pid, backend's name, reason, reason text, handle, is it a child of the service?)
PyObject* describe(warmfork_process* process) {
    const Reference handle(handle_of(process));
    if (!handle) return nullptr;
    const char* text;
    const warmfork_reason reason = warmfork_process_reason(process, &text);
    return Py_BuildValue("isssOO", warmfork_process_pid(process),
                         warmfork_backend_name(warmfork_process_backend(process)),
                         warmfork_reason_name(reason), text, handle.get(),
                         warmfork_is_served(process) ? Py_True : Py_False);
}

/// Waits until a child has ended, or somebody else has reaped it, or a moment where no descriptor
/// is free. Nothing is taken, so that Python's handlers of signals may run meanwhile. False with an
/// exception set.
bool await_end(warmfork_process* process) {
    // The handle of a child of the service has one in any case. Another would have one from here
    // on, for as long as somebody refers to it: CPython 3.14 never frees some of what a thread with
    // little stack has referred to.
    const bool is_served = warmfork_is_served(process);
    const Descriptor own = is_served ? Descriptor() : warmfork_open_pidfd(process);
    const bool is_full = !is_served && !own && errno == EMFILE;
    const int pidfd = is_served ? warmfork_process_pidfd(process) : own.get();
    const auto id = static_cast<id_t>(pidfd);
    // Not by the number, which may be another child's.
    const bool is_polled = is_served || is_full;
    const int milliseconds = pidfd >= 0 ? -1 : kLookPeriod;
    pollfd ended{pidfd, POLLIN, 0};
    siginfo_t info;
    while (pidfd >= 0 || is_full) {
        int result;
        Py_BEGIN_ALLOW_THREADS result = is_polled ? ::poll(&ended, 1, milliseconds)
                                                  : ::waitid(P_PIDFD, id, &info, WEXITED | WNOWAIT);
        Py_END_ALLOW_THREADS if (result >= 0 || errno == ECHILD) break;
        if (errno != EINTR) {
            PyErr_SetFromErrno(PyExc_OSError);
            return false;
        }
        if (PyErr_CheckSignals() != 0) return false;
    }
    return true;
}

}  // namespace

/// spawn(template or None, arguments, list, *, executable=None, environment=None, directory=None,
/// descriptors=(), flags=0, backend=0, process_group=0, umask=0, signals_default=0, nice=0,
/// affinity=None, limits=(), python_path=None): a tuple (pid, backend, reason, reason text, handle,
/// is it the service's?) is in the list when this returns, also when it returns with the exception
/// of a signal's handler: then the child is not lost.
PyObject* spawn(PyObject*, PyObject* arguments, PyObject* names) {
    SpawnRequest given;
    std::optional<InUse> self;
    if (!given.read(arguments, names) || (given.from != Py_None && !self.emplace(given.from)))
        return nullptr;
    warmfork_process* process;
    warmfork_failure failure;
    int error;
    {
        const Wait wait;
        error = warmfork_spawn_many(self ? self->get() : nullptr, &given.request, 1, &process,
                                    &failure);
    }
    if (error) return raise(failure);
    LateError raised;
    const Reference result(describe(process));
    if (!result || PyList_Append(given.spawned, result.get()) < 0) return nullptr;
    return raised.or_none();
}

/// make_pipes(stdin, stdout, stderr) -> what subprocess.Popen._get_handles returns for these; None,
/// and nothing made, where one is neither None nor subprocess.PIPE.
PyObject* make_pipes(PyObject*, PyObject* tuple) {
    static PyObject* pipe = PyLong_FromLong(-1);
    int ends[6] = {-1, -1, -1, -1, -1, -1};
    for (Py_ssize_t i = 0; i < 3; ++i) {
        PyObject* wanted = PyTuple_GetItem(tuple, i);
        if (!wanted) return nullptr;
        if (wanted != pipe && wanted != Py_None) Py_RETURN_NONE;
    }
    for (Py_ssize_t i = 0; i < 3; ++i) {
        if (PyTuple_GetItem(tuple, i) != pipe || ::pipe2(ends + 2 * i, O_CLOEXEC) == 0) continue;
        const int error = errno;
        for (int end : ends)
            if (end >= 0) ::close(end);
        errno = error;
        return PyErr_SetFromErrno(PyExc_OSError);
    }
    return Py_BuildValue("iiiiii", ends[0], ends[1], ends[2], ends[3], ends[4], ends[5]);
}

/// adopt(pid) -> the handle of a child that subprocess has just started
PyObject* adopt(PyObject*, PyObject* number) {
    const long pid = PyLong_AsLong(number);
    if (pid == -1 && PyErr_Occurred()) return nullptr;
    warmfork_process* process = warmfork_adopt(static_cast<pid_t>(pid));
    return process ? handle_of(process) : PyErr_NoMemory();
}

/// give_to_keeper(handle): a child that was adopted ends with this process.
PyObject* give_to_keeper(PyObject*, PyObject* capsule) {
    const warmfork_process* process = process_of(capsule);
    if (!process) return nullptr;
    warmfork_failure failure;
    int error;
    {
        const Wait wait;
        error = warmfork_keep_adopted(process, &failure);
    }
    if (error) return raise(failure);
    if (PyErr_Occurred()) return nullptr;
    Py_RETURN_NONE;
}

/// wait(handle, options, list): os.waitpid, whose result is in the list when this returns, also
/// when it returns with the exception of a signal's handler: then the status is not lost. Raises
/// OSError with EOWNERDEAD where the status died with the service.
PyObject* wait(PyObject*, PyObject* tuple) {
    PyObject* capsule;
    int options;
    PyObject* list;
    if (!PyArg_ParseTuple(tuple, "OiO", &capsule, &options, &list)) return nullptr;
    warmfork_process* process = process_of(capsule);
    if (!process) return nullptr;
    const bool may_wait = !(options & WNOHANG);
    // How a child of the service has ended may be told later.
    const int remaining = warmfork_is_served(process) ? options : WNOHANG;
    int status, error;
    do {
        if (may_wait && !await_end(process)) return nullptr;
        const Wait wait;
        error = warmfork_process_wait(process, remaining, &status, nullptr);
    } while (may_wait && error == -EAGAIN);
    if (error && PyErr_Occurred()) return nullptr;
    if (error == -EAGAIN) Py_RETURN_NONE;
    if (error) {
        errno = -error;
        return PyErr_SetFromErrno(PyExc_OSError);
    }
    LateError raised;
    const Reference result(Py_BuildValue("ii", warmfork_process_pid(process), status));
    if (!result || PyList_Append(list, result.get()) < 0) return nullptr;
    return raised.or_none();
}

/// send_signal(handle, number): raises ProcessLookupError where the child has been reaped.
PyObject* send_signal(PyObject*, PyObject* tuple) {
    PyObject* capsule;
    int number;
    if (!PyArg_ParseTuple(tuple, "Oi", &capsule, &number)) return nullptr;
    const warmfork_process* process = process_of(capsule);
    if (!process) return nullptr;
    if (const int error = warmfork_signal_by_anyone(process, number)) {
        errno = error;
        return PyErr_SetFromErrno(PyExc_OSError);
    }
    Py_RETURN_NONE;
}

/// pidfd(handle) -> a descriptor that is the caller's to close
PyObject* pidfd(PyObject*, PyObject* capsule) {
    const warmfork_process* process = process_of(capsule);
    if (!process) return nullptr;
    const int own = warmfork_open_pidfd(process).release();
    return own < 0 ? PyErr_SetFromErrno(PyExc_OSError) : PyLong_FromLong(own);
}

/// poll_now(descriptor, events) -> what poll(2) finds without waiting. Green-thread libraries take
/// select.poll away.
PyObject* poll_now(PyObject*, PyObject* tuple) {
    int descriptor;
    short events;
    if (!PyArg_ParseTuple(tuple, "ih", &descriptor, &events)) return nullptr;
    pollfd polled{descriptor, events, 0};
    if (::poll(&polled, 1, 0) < 0) return PyErr_SetFromErrno(PyExc_OSError);
    return PyLong_FromLong(polled.revents);
}

}  // namespace warmfork::python
