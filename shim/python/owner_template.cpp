#define PY_SSIZE_T_CLEAN
#define Py_LIMITED_API 0x03090000
#include "owner_template.hpp"

#include <errno.h>

#include <cstdint>
#include <cstdlib>
#include <utility>
#include <vector>

#include "native_call.hpp"
#include "owner/benchmark.hpp"
#include "python/python_objects.hpp"

namespace warmfork::python {

/// What a capsule holds. It is touched only with the GIL held. A template that is closed while
/// other threads use it is freed by the last of them.
struct Handle {
    warmfork_template* self;
    int users = 0;
    bool is_closed = false;
};

namespace {

constexpr const char* kTemplateCapsule = "warmfork.template";

int raise_error(void* object) {
    const Reference error(static_cast<PyObject*>(object));
    PyErr_SetObject(reinterpret_cast<PyObject*>(Py_TYPE(error.get())), error.get());
    return -1;
}

/// Closes a template where nothing can be raised. What a handler of a signal raises meanwhile
/// breaks the wait off, and comes as soon as the main thread, whose the handlers are, runs Python
/// again.
void free_template(Handle& handle) {
    LateError of_call;
    {
        const Wait wait;
        warmfork_template_close(std::exchange(handle.self, nullptr));
    }
    if (PyErr_Occurred()) {
        PyObject *type, *error, *traceback;
        PyErr_Fetch(&type, &error, &traceback);
        PyErr_NormalizeException(&type, &error, &traceback);
        Py_XDECREF(type);
        Py_XDECREF(traceback);
        if (Py_AddPendingCall(raise_error, error) < 0) Py_XDECREF(error);
    }
    Py_XDECREF(of_call.or_none());
}

void delete_handle(PyObject* capsule) {
    auto* handle = static_cast<Handle*>(PyCapsule_GetPointer(capsule, kTemplateCapsule));
    if (handle->self) free_template(*handle);
    delete handle;
}

/// Is the template open? Returns false with an exception set.
bool is_open(const Handle& handle) {
    if (handle.is_closed) PyErr_SetString(PyExc_ValueError, "the template is closed");
    return !handle.is_closed;
}

PyObject* capsule_of(warmfork_template* self) {
    return PyCapsule_New(new Handle{self}, kTemplateCapsule, delete_handle);
}

/// Takes bytes or None as text that lives as long as the object. Returns false with an exception
/// set.
bool optional_text(PyObject* object, const char*& ret_text) {
    char* text = nullptr;
    if (object != Py_None && PyBytes_AsStringAndSize(object, &text, nullptr) < 0) return false;
    ret_text = text;
    return true;
}

/// The capsule of what `call` opens. Where a handler has raised in the moment of success nothing
/// stays open.
template <typename Call>
PyObject* open_waiting(Call call) {
    warmfork_template* self;
    warmfork_failure failure;
    int error;
    {
        const Wait wait;
        error = call(&self, &failure);
        if (!error && was_interrupted()) warmfork_template_close(self);
    }
    if (error) return raise(failure);
    return PyErr_Occurred() ? nullptr : capsule_of(self);
}

/// Calls of the ABI which wait, without the GIL.
template <typename Call>
PyObject* call_waiting(PyObject* capsule, Call call) {
    const InUse self(capsule);
    if (!self) return nullptr;
    warmfork_failure failure;
    int error;
    {
        const Wait wait([&self] { return self.is_still_open(); });
        error = call(self.get(), &failure);
    }
    if (error) return raise(failure);
    // It was broken off in the moment of success, or has been closed since.
    if (PyErr_Occurred() || !self.is_still_open()) return nullptr;
    Py_RETURN_NONE;
}

}  // namespace

InUse::InUse(PyObject* capsule) {
    auto* handle = static_cast<Handle*>(PyCapsule_GetPointer(capsule, kTemplateCapsule));
    if (!handle || !is_open(*handle)) return;
    handle_ = handle;
    ++handle_->users;
}

InUse::~InUse() {
    if (handle_ && --handle_->users == 0 && handle_->is_closed) free_template(*handle_);
}

bool InUse::is_still_open() const {
    return is_open(*handle_);
}

warmfork_template* InUse::get() const {
    return handle_ ? handle_->self : nullptr;
}

/// open(python, *, preload, path, environment=None, directory=None, spares, backend, allow,
/// on_stale, variants, before_fork=None, in_child=None, options, learn, nested, name) -> template.
/// Text is bytes, encoded as the file system's names are.
PyObject* open(PyObject*, PyObject* arguments, PyObject* names) {
    static const char* const keywords[] = {
        "python",  "preload", "path",     "environment", "directory",   "spares",
        "backend", "allow",   "on_stale", "variants",    "before_fork", "in_child",
        "options", "learn",   "nested",   "name",        nullptr};
    warmfork_template_options options;
    warmfork_template_options_init(&options);
    PyObject *preload_list, *path_list, *allow_list, *options_list;
    PyObject *environment_list = Py_None, *directory = Py_None;
    PyObject *before_fork = Py_None, *in_child = Py_None;
    int spares, backend, on_stale, learn, nested;
    unsigned int variants;
    if (!PyArg_ParseTupleAndKeywords(arguments, names, "y$OOOOiiOiIOOOppy",
                                     const_cast<char**>(keywords), &options.python, &preload_list,
                                     &path_list, &environment_list, &directory, &spares, &backend,
                                     &allow_list, &on_stale, &variants, &before_fork, &in_child,
                                     &options_list, &learn, &nested, &options.name))
        return nullptr;
    StringArray preload, path, environment, allow, python_options;
    if (!optional_text(directory, options.directory) ||
        !optional_text(before_fork, options.before_fork) ||
        !optional_text(in_child, options.in_child) || !preload.read(preload_list) ||
        !path.read(path_list) || !environment.read(environment_list) || !allow.read(allow_list) ||
        !python_options.read(options_list))
        return nullptr;
    options.preload = preload.get();
    options.python_path = path.get();
    options.environment = environment.get();
    options.spares = spares;
    options.backend = static_cast<warmfork_backend>(backend);
    options.allow = allow.get();
    options.python_options = python_options.get();
    options.on_stale = static_cast<warmfork_on_stale>(on_stale);
    options.variants = variants;
    options.learn = static_cast<std::uint32_t>(learn);
    options.nested = static_cast<std::uint32_t>(nested);
    return open_waiting([&](warmfork_template** ret_self, warmfork_failure* failure) {
        return warmfork_template_open(&options, ret_self, failure);
    });
}

/// connect(name, backend) -> template
PyObject* connect(PyObject*, PyObject* arguments) {
    const char* name;
    int backend;
    if (!PyArg_ParseTuple(arguments, "yi", &name, &backend)) return nullptr;
    return open_waiting([&](warmfork_template** ret_self, warmfork_failure* failure) {
        return warmfork_template_connect(name, static_cast<warmfork_backend>(backend), ret_self,
                                         failure);
    });
}

/// close(template) ends it; again is fine.
PyObject* close(PyObject*, PyObject* capsule) {
    auto* handle = static_cast<Handle*>(PyCapsule_GetPointer(capsule, kTemplateCapsule));
    if (!handle) return nullptr;
    const bool is_first = !handle->is_closed;
    handle->is_closed = true;
    if (is_first && handle->users == 0) {
        const Wait wait;
        warmfork_template_close(std::exchange(handle->self, nullptr));
    }
    if (PyErr_Occurred()) return nullptr;
    Py_RETURN_NONE;
}

/// wait_ready(template, timeout_ms)
PyObject* wait_ready(PyObject*, PyObject* arguments) {
    PyObject* capsule;
    int timeout;
    if (!PyArg_ParseTuple(arguments, "Oi", &capsule, &timeout)) return nullptr;
    return call_waiting(capsule, [&](warmfork_template* self, warmfork_failure* failure) {
        return warmfork_template_wait_ready(self, timeout, failure);
    });
}

/// wait_parked(template, count, timeout_ms)
PyObject* wait_parked(PyObject*, PyObject* arguments) {
    PyObject* capsule;
    unsigned int count;
    int timeout;
    if (!PyArg_ParseTuple(arguments, "OIi", &capsule, &count, &timeout)) return nullptr;
    return call_waiting(capsule, [&](warmfork_template* self, warmfork_failure* failure) {
        return warmfork_template_wait_parked(self, count, timeout, failure);
    });
}

/// set_spares(template, spares). Raises OSError.
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

/// pid(template) -> int
PyObject* pid(PyObject*, PyObject* capsule) {
    const InUse self(capsule);
    return self ? PyLong_FromLong(warmfork_template_pid(self.get())) : nullptr;
}

/// parked(template) -> int
PyObject* parked(PyObject*, PyObject* capsule) {
    const InUse self(capsule);
    return self ? PyLong_FromUnsignedLong(warmfork_template_parked(self.get())) : nullptr;
}

/// report(template) -> str, of JSON
PyObject* report(PyObject*, PyObject* capsule) {
    char* json = nullptr;
    const Reference done(
        call_waiting(capsule, [&](warmfork_template* self, warmfork_failure* failure) {
            return warmfork_template_report(self, &json, failure);
        }));
    PyObject* text = done ? PyUnicode_FromString(json) : nullptr;
    std::free(json);
    return text;
}

/// counts(template) -> {kind: number of spawns, "reasons": {reason: number}}
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

/// leave_unchecked(template): see owner/benchmark.hpp.
PyObject* leave_unchecked(PyObject*, PyObject* capsule) {
    const InUse self(capsule);
    if (!self) return nullptr;
    warmfork_leave_unchecked(self.get());
    Py_RETURN_NONE;
}

}  // namespace warmfork::python
