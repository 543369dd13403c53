// warmfork._native: the C ABI for Python, and the Python side of a template. Stable ABI of
// CPython 3.9.
#define PY_SSIZE_T_CLEAN
#define Py_LIMITED_API 0x03090000
#include <Python.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdint>
#include <optional>

#include "finalization.hpp"
#include "link/real_program.hpp"
#include "observation.hpp"
#include "owner/benchmark.hpp"
#include "owner/waiting.hpp"
#include "python_child.hpp"
#include "python_objects.hpp"
#include "warmfork.h"

namespace warmfork::python {
namespace {

constexpr const char* kTemplateCapsule = "warmfork.template";
constexpr const char* kProcessCapsule = "warmfork.process";

/// Raises warmfork's error type with (errno, text, stage, stage name, detail).
PyObject* raise(const warmfork_failure& failure) {
    if (PyErr_Occurred()) return nullptr;  // a signal's handler, which has broken the call off
    Reference package(PyImport_ImportModule("warmfork._errors"));
    Reference make(package ? PyObject_GetAttrString(package.get(), "make_error") : nullptr);
    if (!make) return nullptr;
    Reference error(PyObject_CallFunction(make.get(), "isisi", failure.error_number, failure.text,
                                          static_cast<int>(failure.stage),
                                          warmfork_stage_name(failure.stage), failure.detail));
    if (error) PyErr_SetObject(reinterpret_cast<PyObject*>(Py_TYPE(error.get())), error.get());
    return nullptr;
}

/// Lets go of the GIL for a wait, in which handlers of signals run nevertheless: where one raises,
/// the wait is broken off.
class Wait {
  public:
    Wait()
        : state_(PyEval_SaveThread()), interruption_([this] {
              PyEval_RestoreThread(state_);
              const bool has_raised = PyErr_CheckSignals() != 0;
              state_ = PyEval_SaveThread();
              return has_raised;
          }) {}
    Wait(const Wait&) = delete;
    Wait& operator=(const Wait&) = delete;
    ~Wait() { PyEval_RestoreThread(state_); }

  private:
    PyThreadState* state_;
    Interruption interruption_;
};

/// What a capsule holds. Touched with the GIL held only. A template that is closed while other
/// threads use it is freed by the last of them.
struct Handle {
    warmfork_template* self;
    bool is_of_service = false;
    int users = 0;
    bool is_closed = false;
};

void free_template(Handle& handle) {
    Py_BEGIN_ALLOW_THREADS warmfork_template_close(handle.self);
    Py_END_ALLOW_THREADS handle.self = nullptr;
}

void delete_handle(PyObject* capsule) {
    auto* handle = static_cast<Handle*>(PyCapsule_GetPointer(capsule, kTemplateCapsule));
    if (handle->self) free_template(*handle);
    delete handle;
}

/// The template of a capsule, for as long as this lives; null with an exception set if it is none,
/// or closed.
class InUse {
  public:
    explicit InUse(PyObject* capsule) {
        auto* handle = static_cast<Handle*>(PyCapsule_GetPointer(capsule, kTemplateCapsule));
        if (!handle) return;
        if (handle->is_closed) {
            PyErr_SetString(PyExc_ValueError, "the template is closed");
            return;
        }
        handle_ = handle;
        ++handle_->users;
    }
    InUse(const InUse&) = delete;
    InUse& operator=(const InUse&) = delete;
    ~InUse() {
        if (handle_ && --handle_->users == 0 && handle_->is_closed) free_template(*handle_);
    }

    warmfork_template* get() const { return handle_ ? handle_->self : nullptr; }
    bool is_of_service() const { return handle_->is_of_service; }
    explicit operator bool() const { return handle_ != nullptr; }

  private:
    Handle* handle_ = nullptr;
};

/// Bytes or None, as text that lives as long as the object. False with an exception set.
bool optional_text(PyObject* object, const char*& ret_text) {
    char* text = nullptr;
    if (object != Py_None && PyBytes_AsStringAndSize(object, &text, nullptr) < 0) return false;
    ret_text = text;
    return true;
}

/// open(python, preload, path, environment or None, directory or None, spares, backend, allow,
/// on_stale, variants, before_fork or None, in_child or None, options, learn, nested, name) ->
/// template
PyObject* open(PyObject*, PyObject* arguments) {
    const char* python;
    PyObject *preload_list, *path_list, *environment_list, *allow_list;
    PyObject *directory_bytes, *before_fork_bytes, *in_child_bytes, *options_list;
    int spares, backend, on_stale;
    unsigned int variants;
    int learn, nested;
    const char* name;
    if (!PyArg_ParseTuple(arguments, "yOOOOiiOiIOOOppy", &python, &preload_list, &path_list,
                          &environment_list, &directory_bytes, &spares, &backend, &allow_list,
                          &on_stale, &variants, &before_fork_bytes, &in_child_bytes, &options_list,
                          &learn, &nested, &name))
        return nullptr;
    StringArray preload, path, environment, allow, python_options;
    const char *directory, *before_fork, *in_child;
    if (!optional_text(directory_bytes, directory) ||
        !optional_text(before_fork_bytes, before_fork) ||
        !optional_text(in_child_bytes, in_child) || !preload.read(preload_list) ||
        !path.read(path_list) || !environment.read(environment_list) || !allow.read(allow_list) ||
        !python_options.read(options_list))
        return nullptr;
    warmfork_template_options options;
    warmfork_template_options_init(&options);
    options.python = python;
    options.preload = preload.get();
    options.python_path = path.get();
    options.environment = environment.get();
    options.directory = directory;
    options.spares = spares;
    options.backend = static_cast<warmfork_backend>(backend);
    options.allow = allow.get();
    options.python_options = python_options.get();
    options.on_stale = static_cast<warmfork_on_stale>(on_stale);
    options.variants = variants;
    options.before_fork = before_fork;
    options.in_child = in_child;
    options.learn = static_cast<std::uint32_t>(learn);
    options.nested = static_cast<std::uint32_t>(nested);
    options.name = name;
    warmfork_template* self;
    warmfork_failure failure;
    int error;
    Py_BEGIN_ALLOW_THREADS error = warmfork_template_open(&options, &self, &failure);
    Py_END_ALLOW_THREADS return error
        ? raise(failure)
        : PyCapsule_New(new Handle{self}, kTemplateCapsule, delete_handle);
}

/// connect(name, backend) -> template
PyObject* connect(PyObject*, PyObject* arguments) {
    const char* name;
    int backend;
    if (!PyArg_ParseTuple(arguments, "yi", &name, &backend)) return nullptr;
    warmfork_template* self;
    warmfork_failure failure;
    int error;
    Py_BEGIN_ALLOW_THREADS error =
        warmfork_template_connect(name, static_cast<warmfork_backend>(backend), &self, &failure);
    Py_END_ALLOW_THREADS return error
        ? raise(failure)
        : PyCapsule_New(new Handle{self, true}, kTemplateCapsule, delete_handle);
}

/// close(template): ends it; again is fine.
PyObject* close(PyObject*, PyObject* capsule) {
    auto* handle = static_cast<Handle*>(PyCapsule_GetPointer(capsule, kTemplateCapsule));
    if (!handle) return nullptr;
    const bool is_first = !handle->is_closed;
    handle->is_closed = true;
    if (is_first && handle->users == 0) free_template(*handle);
    Py_RETURN_NONE;
}

/// The fields of a spawn's tuple, in order; see warmfork/_owner.py. Strings, paths and bytes are
/// encoded as the file system's names are.
struct SpawnArguments {
    PyObject* capsule;
    PyObject* arguments;
    PyObject* executable;
    PyObject* environment;
    PyObject* directory;
    PyObject* descriptors;
    unsigned int flags;
    int backend;
    int process_group;
    unsigned int file_mode_mask;
    unsigned long long signals_default;
    int nice;
    PyObject* affinity;
    PyObject* limits;
    PyObject* python_path;
    PyObject* spawned;
};

/// Pairs of integers, flat: (source, target, source, target, ...). Source -1: no pair.
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

/// Triples, flat: (resource, soft, hard, ...).
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

warmfork_process* process_of(PyObject* capsule) {
    return static_cast<warmfork_process*>(PyCapsule_GetPointer(capsule, kProcessCapsule));
}

void delete_process(PyObject* capsule) {
    warmfork_process_free(process_of(capsule));
}

/// What a child of the service is waited for and signalled by; None for a child of this process.
PyObject* handle_of(warmfork_process* process, const std::optional<InUse>& from) {
    const bool is_served =
        from && from->is_of_service() && warmfork_process_backend(process) == WARMFORK_BACKEND_WARM;
    PyObject* handle =
        is_served ? PyCapsule_New(process, kProcessCapsule, delete_process) : nullptr;
    if (!handle) warmfork_process_free(process);
    if (handle || is_served) return handle;
    Py_RETURN_NONE;
}

/// spawn(template or None, ..., list): a tuple (pid, backend, reason, reason text, handle or None)
/// is in the list when this returns, also when it returns with the exception of a signal's handler:
/// then the child is not lost.
PyObject* spawn(PyObject*, PyObject* tuple) {
    SpawnArguments given{};
    if (!PyArg_ParseTuple(tuple, "OOOOOOIiiIKiOOOO", &given.capsule, &given.arguments,
                          &given.executable, &given.environment, &given.directory,
                          &given.descriptors, &given.flags, &given.backend, &given.process_group,
                          &given.file_mode_mask, &given.signals_default, &given.nice,
                          &given.affinity, &given.limits, &given.python_path, &given.spawned))
        return nullptr;
    std::optional<InUse> self;
    if (given.capsule != Py_None && !self.emplace(given.capsule)) return nullptr;
    EncodedStrings arguments, environment, paths, python_path;
    const char *executable, *directory;
    std::vector<warmfork_descriptor> descriptors;
    std::vector<warmfork_limit> limits;
    if (!paths.add_optional(given.executable, executable) ||
        !paths.add_optional(given.directory, directory) || !arguments.add_all(given.arguments) ||
        !environment.add_variables(given.environment) ||
        (given.python_path != Py_None && !python_path.add_all(given.python_path)) ||
        !read_descriptors(given.descriptors, descriptors) || !read_limits(given.limits, limits))
        return nullptr;

    warmfork_request request;
    warmfork_request_init(&request);
    request.flags = given.flags;
    request.backend = static_cast<warmfork_backend>(given.backend);
    request.arguments = arguments.get();
    request.executable = executable;
    request.environment = environment.get();
    request.directory = directory;
    request.descriptors = descriptors.data();
    request.descriptor_count = descriptors.size();
    request.signals_default = given.signals_default;
    request.process_group = given.process_group;
    request.file_mode_mask = given.file_mode_mask;
    request.nice = given.nice;
    request.limits = limits.data();
    request.limit_count = limits.size();
    request.python_path = python_path.get();
    char* affinity = nullptr;
    Py_ssize_t affinity_size = 0;
    if (given.affinity != Py_None) {
        if (PyBytes_AsStringAndSize(given.affinity, &affinity, &affinity_size) < 0) return nullptr;
        request.affinity = affinity;
        request.affinity_size = static_cast<std::size_t>(affinity_size);
    }

    warmfork_process* process;
    warmfork_failure failure;
    int error;
    {
        const Wait wait;
        error = warmfork_spawn_many(self ? self->get() : nullptr, &request, 1, &process, &failure);
    }
    if (error) return raise(failure);
    // Of a handler that has raised in the moment of success.
    PyObject *type, *value, *traceback;
    PyErr_Fetch(&type, &value, &traceback);
    const char* text;
    const warmfork_reason reason = warmfork_process_reason(process, &text);
    Reference said(Py_BuildValue("iiss", warmfork_process_pid(process),
                                 static_cast<int>(warmfork_process_backend(process)),
                                 warmfork_reason_name(reason), text));
    Reference handle(handle_of(process, self));
    if (!said || !handle) return nullptr;
    Reference more(Py_BuildValue("(O)", handle.get()));
    Reference result(more ? PySequence_Concat(said.get(), more.get()) : nullptr);
    if (!result || PyList_Append(given.spawned, result.get()) < 0) return nullptr;
    if (!type) Py_RETURN_NONE;
    PyErr_Restore(type, value, traceback);
    return nullptr;
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

/// keep(pid): a child that subprocess has started ends with this process.
PyObject* keep(PyObject*, PyObject* number) {
    const long pid = PyLong_AsLong(number);
    if (pid == -1 && PyErr_Occurred()) return nullptr;
    warmfork_failure failure;
    int error;
    Py_BEGIN_ALLOW_THREADS error = warmfork_keep(static_cast<pid_t>(pid), &failure);
    Py_END_ALLOW_THREADS if (error) return raise(failure);
    Py_RETURN_NONE;
}

/// leave_unchecked(template): see owner/benchmark.hpp.
PyObject* leave_unchecked(PyObject*, PyObject* capsule) {
    const InUse self(capsule);
    if (!self) return nullptr;
    warmfork_leave_unchecked(self.get());
    Py_RETURN_NONE;
}

/// wait(pid, options, list): os.waitpid, whose result is in the list when this returns, also when
/// it returns with the exception of a signal's handler: then the status is not lost.
PyObject* wait(PyObject*, PyObject* tuple) {
    int pid, options;
    PyObject* list;
    if (!PyArg_ParseTuple(tuple, "iiO", &pid, &options, &list)) return nullptr;
    int status = 0, reaped;
    do {
        Py_BEGIN_ALLOW_THREADS reaped = ::waitpid(pid, &status, options);
        Py_END_ALLOW_THREADS
    } while (reaped < 0 && errno == EINTR && PyErr_CheckSignals() == 0);
    if (reaped < 0) return PyErr_Occurred() ? nullptr : PyErr_SetFromErrno(PyExc_OSError);
    if (reaped > 0) {
        Reference result(Py_BuildValue("ii", reaped, status));
        if (!result || PyList_Append(list, result.get()) < 0) return nullptr;
    }
    Py_RETURN_NONE;
}

/// wait_served(handle, options, list): the same of a child of the service. Raises OSError with
/// EOWNERDEAD where the status died with the service.
PyObject* wait_served(PyObject*, PyObject* tuple) {
    PyObject* capsule;
    int options;
    PyObject* list;
    if (!PyArg_ParseTuple(tuple, "OiO", &capsule, &options, &list)) return nullptr;
    warmfork_process* process = process_of(capsule);
    if (!process) return nullptr;
    // Looked at first: a signal interrupts this, and its handler runs.
    pollfd ended{warmfork_process_pidfd(process), POLLIN, 0};
    int ready = 1;
    while (!(options & WNOHANG)) {
        Py_BEGIN_ALLOW_THREADS ready = ::poll(&ended, 1, -1);
        Py_END_ALLOW_THREADS if (ready >= 0) break;
        if (errno != EINTR) return PyErr_SetFromErrno(PyExc_OSError);
        if (PyErr_CheckSignals() != 0) return nullptr;
    }
    int status, error;
    Py_BEGIN_ALLOW_THREADS error = warmfork_process_wait(process, options, &status, nullptr);
    Py_END_ALLOW_THREADS if (error == -EAGAIN) Py_RETURN_NONE;
    if (error) {
        errno = -error;
        return PyErr_SetFromErrno(PyExc_OSError);
    }
    Reference result(Py_BuildValue("ii", warmfork_process_pid(process), status));
    if (!result || PyList_Append(list, result.get()) < 0) return nullptr;
    Py_RETURN_NONE;
}

/// signal_served(handle, number)
PyObject* signal_served(PyObject*, PyObject* tuple) {
    PyObject* capsule;
    int number;
    if (!PyArg_ParseTuple(tuple, "Oi", &capsule, &number)) return nullptr;
    warmfork_process* process = process_of(capsule);
    if (!process) return nullptr;
    if (const int error = warmfork_process_signal(process, number)) {
        errno = -error;
        return PyErr_SetFromErrno(PyExc_OSError);
    }
    Py_RETURN_NONE;
}

/// pidfd(handle) -> a descriptor that is the caller's to close
PyObject* pidfd(PyObject*, PyObject* capsule) {
    warmfork_process* process = process_of(capsule);
    if (!process) return nullptr;
    const int copy = ::fcntl(warmfork_process_pidfd(process), F_DUPFD_CLOEXEC, 0);
    return copy < 0 ? PyErr_SetFromErrno(PyExc_OSError) : PyLong_FromLong(copy);
}

/// poll_now(descriptor, events) -> what poll(2) finds without waiting. Not by select.poll, which
/// green-thread libraries take away.
PyObject* poll_now(PyObject*, PyObject* tuple) {
    int descriptor;
    short events;
    if (!PyArg_ParseTuple(tuple, "ih", &descriptor, &events)) return nullptr;
    pollfd polled{descriptor, events, 0};
    if (::poll(&polled, 1, 0) < 0) return PyErr_SetFromErrno(PyExc_OSError);
    return PyLong_FromLong(polled.revents);
}

/// wait_ready(template, timeout_ms)
PyObject* wait_ready(PyObject*, PyObject* tuple) {
    PyObject* capsule;
    int timeout;
    if (!PyArg_ParseTuple(tuple, "Oi", &capsule, &timeout)) return nullptr;
    const InUse self(capsule);
    if (!self) return nullptr;
    warmfork_failure failure;
    int error;
    {
        const Wait wait;
        error = warmfork_template_wait_ready(self.get(), timeout, &failure);
    }
    if (error) return raise(failure);
    Py_RETURN_NONE;
}

/// wait_parked(template, count, timeout_ms)
PyObject* wait_parked(PyObject*, PyObject* tuple) {
    PyObject* capsule;
    unsigned int count;
    int timeout;
    if (!PyArg_ParseTuple(tuple, "OIi", &capsule, &count, &timeout)) return nullptr;
    const InUse self(capsule);
    if (!self) return nullptr;
    warmfork_failure failure;
    int error;
    {
        const Wait wait;
        error = warmfork_template_wait_parked(self.get(), count, timeout, &failure);
    }
    if (error) return raise(failure);
    Py_RETURN_NONE;
}

PyObject* set_spares(PyObject*, PyObject* tuple) {
    PyObject* capsule;
    int spares;
    if (!PyArg_ParseTuple(tuple, "Oi", &capsule, &spares)) return nullptr;
    const InUse self(capsule);
    if (!self) return nullptr;
    const int error = warmfork_template_set_spares(self.get(), spares);
    if (error) {
        errno = -error;
        return PyErr_SetFromErrno(PyExc_OSError);
    }
    Py_RETURN_NONE;
}

PyObject* pid(PyObject*, PyObject* capsule) {
    const InUse self(capsule);
    return self ? PyLong_FromLong(warmfork_template_pid(self.get())) : nullptr;
}

PyObject* parked(PyObject*, PyObject* capsule) {
    const InUse self(capsule);
    return self ? PyLong_FromUnsignedLong(warmfork_template_parked(self.get())) : nullptr;
}

PyObject* report(PyObject*, PyObject* capsule) {
    const InUse self(capsule);
    if (!self) return nullptr;
    char* json;
    warmfork_failure failure;
    int error;
    {
        const Wait wait;
        error = warmfork_template_report(self.get(), &json, &failure);
    }
    if (error) return raise(failure);
    PyObject* text = PyUnicode_FromString(json);
    std::free(json);
    return text;
}

PyObject* counts(PyObject*, PyObject* capsule) {
    const InUse self(capsule);
    if (!self) return nullptr;
    warmfork_counts counts{};
    counts.size = sizeof counts;
    warmfork_template_counts(self.get(), &counts);
    Reference reasons(PyDict_New());
    for (int reason = 0; reasons && reason < WARMFORK_REASON_COUNT; ++reason) {
        if (counts.cold_by_reason[reason] == 0) continue;
        Reference number(PyLong_FromUnsignedLongLong(counts.cold_by_reason[reason]));
        PyDict_SetItemString(reasons.get(),
                             warmfork_reason_name(static_cast<warmfork_reason>(reason)),
                             number.get());
    }
    return Py_BuildValue("{sKsKsKsKsO}", "handed_off", counts.handed_off, "forked", counts.forked,
                         "cold", counts.cold, "template_starts", counts.template_starts, "reasons",
                         reasons.get());
}

PyObject* is_link_program(PyObject*, PyObject* path) {
    const char* text = PyBytes_AsString(path);
    return text ? PyBool_FromLong(warmfork::link::is_link_program(text)) : nullptr;
}

PyMethodDef methods[] = {
    {"open", open, METH_VARARGS, nullptr},
    {"close", close, METH_O, nullptr},
    {"connect", connect, METH_VARARGS, nullptr},
    {"keep", keep, METH_O, nullptr},
    {"make_pipes", make_pipes, METH_VARARGS, nullptr},
    {"spawn", spawn, METH_VARARGS, nullptr},
    {"leave_unchecked", leave_unchecked, METH_O, nullptr},
    {"wait", wait, METH_VARARGS, nullptr},
    {"wait_served", wait_served, METH_VARARGS, nullptr},
    {"signal_served", signal_served, METH_VARARGS, nullptr},
    {"pidfd", pidfd, METH_O, nullptr},
    {"poll_now", poll_now, METH_VARARGS, nullptr},
    {"wait_ready", wait_ready, METH_VARARGS, nullptr},
    {"wait_parked", wait_parked, METH_VARARGS, nullptr},
    {"set_spares", set_spares, METH_VARARGS, nullptr},
    {"pid", pid, METH_O, nullptr},
    {"parked", parked, METH_O, nullptr},
    {"report", report, METH_O, nullptr},
    {"counts", counts, METH_O, nullptr},
    {"announce", announce, METH_NOARGS, nullptr},
    {"serve", serve, METH_O, nullptr},
    {"freeze_image", reinterpret_cast<PyCFunction>(reinterpret_cast<void*>(freeze_image)),
     METH_VARARGS | METH_KEYWORDS, nullptr},
    {"finalize_image", finalize_image, METH_NOARGS, nullptr},
    {"observe", observe, METH_NOARGS, nullptr},
    {"drawn", drawn, METH_NOARGS, nullptr},
    {"resume_recording", resume_recording, METH_NOARGS, nullptr},
    {"is_link_program", is_link_program, METH_O, nullptr},
    {"list_for", list_for, METH_O, nullptr},
    {"forget_listing", forget_listing, METH_O, nullptr},
    {"askers", askers, METH_NOARGS, nullptr},
    {"start_environment", start_environment, METH_NOARGS, nullptr},
    {"extended_image", extended_image, METH_NOARGS, nullptr},
    {"current_environment", current_environment, METH_NOARGS, nullptr},
    {"keep_twister", keep_twister, METH_VARARGS, nullptr},
    {"prepare_to_become_child", prepare_to_become_child, METH_O, nullptr},
    {"become_child", become_child, METH_VARARGS, nullptr},
    {nullptr, nullptr, 0, nullptr}};

int add_version(PyObject* module) {
    return PyModule_AddStringConstant(module, "__version__", WARMFORK_VERSION);
}

PyModuleDef_Slot slots[] = {{Py_mod_exec, reinterpret_cast<void*>(add_version)}, {0, nullptr}};

PyModuleDef definition{PyModuleDef_HEAD_INIT,
                       "warmfork._native",
                       nullptr,
                       0,
                       methods,
                       slots,
                       nullptr,
                       nullptr,
                       nullptr};

}  // namespace
}  // namespace warmfork::python

PyMODINIT_FUNC PyInit__native() {
    return PyModuleDef_Init(&warmfork::python::definition);
}
