#define PY_SSIZE_T_CLEAN
#define Py_LIMITED_API 0x03090000
#include "python/import_times.hpp"

#include <Python.h>
#include <fcntl.h>
#include <signal.h>
#include <unistd.h>

#include <chrono>
#include <cstdlib>
#include <cstring>

#include "channel/descriptor.hpp"
#include "python/python_objects.hpp"

namespace warmfork::python {
namespace {

using Clock = std::chrono::steady_clock;

// More is of no use. The line is cut off at its end, where the dependants are. protocol/README.md
// draws it.
constexpr std::size_t kMostText = 64u << 10;

pid_t reporter = 0;
const char* log_path = nullptr;
std::string imported;
thread_local Clock::duration nested{};

void note(PyObject* name, std::chrono::microseconds own) {
    Reference encoded(PyUnicode_EncodeFSDefault(name));
    const char* text = encoded ? PyBytes_AsString(encoded.get()) : nullptr;
    PyErr_Clear();
    if (!text || std::strpbrk(text, " =\n") || imported.size() > kMostText) return;
    imported += ' ' + std::string(text) + '=' + std::to_string(own.count());
}

/// Has Python's own import system loaded it? What a program loads in a way of its own, as pytest
/// does to rewrite what its plugins assert, the template would load in another way.
bool is_loaded_as_usual(PyObject* module) {
    const Reference spec(PyObject_GetAttrString(module, "__spec__"));
    const Reference loader(spec ? PyObject_GetAttrString(spec.get(), "loader") : nullptr);
    // Those of built-in and frozen modules are classes.
    PyObject* kind = loader && PyType_Check(loader.get())
                         ? loader.get()
                         : reinterpret_cast<PyObject*>(loader ? Py_TYPE(loader.get()) : nullptr);
    const Reference home(kind ? PyObject_GetAttrString(kind, "__module__") : nullptr);
    bool is_usual = false;
    for (const char* name : {"_frozen_importlib", "_frozen_importlib_external", "zipimport"})
        is_usual = is_usual || (home && PyUnicode_Check(home.get()) &&
                                PyUnicode_CompareWithASCIIString(home.get(), name) == 0);
    PyErr_Clear();
    return is_usual;
}

/// Stands in place of importlib's own function, which loads a module that is not there yet. It is
/// in C, so that no frame of it shows.
PyObject* find_and_load(PyObject* original, PyObject* arguments, PyObject* keywords) {
    if (reporter == 0) return PyObject_Call(original, arguments, keywords);
    const Clock::duration outer = std::exchange(nested, Clock::duration{});
    const auto began = Clock::now();
    Reference module(PyObject_Call(original, arguments, keywords));
    const auto taken = Clock::now() - began;
    const auto own = std::chrono::duration_cast<std::chrono::microseconds>(taken - nested);
    nested = outer + taken;
    if (module && is_loaded_as_usual(module.get())) note(PyTuple_GetItem(arguments, 0), own);
    return module.release();
}

PyCFunction as_function(PyCFunctionWithKeywords function) {
    return reinterpret_cast<PyCFunction>(reinterpret_cast<void (*)()>(function));
}

// It takes keywords, which 3.15 gives.
PyMethodDef definition{"_find_and_load_unlocked", as_function(find_and_load),
                       METH_VARARGS | METH_KEYWORDS, nullptr};

void report() {
    if (reporter != ::getpid()) return;
    imported += '\n';
    const Descriptor file(::open(log_path, O_WRONLY | O_APPEND | O_CLOEXEC));
    // A limit on the size of files does not change how the child ends.
    const auto before = ::signal(SIGXFSZ, SIG_IGN);
    // It is one write, so that children do not write into each other's lines.
    if (file && ::write(file.get(), imported.data(), imported.size()) < 0) imported.clear();
    ::signal(SIGXFSZ, before);
}

}  // namespace

bool time_imports() {
    static bool is_done = false;  // by the template that this one is a layer on
    if (std::exchange(is_done, true)) return true;
    Reference importlib(PyImport_ImportModule("_frozen_importlib"));
    if (!importlib) return false;
    PyObject* original = PyObject_GetAttrString(importlib.get(), definition.ml_name);
    if (!original) return false;
    Reference timed(PyCFunction_New(&definition, original));  // keeps the original
    Py_DECREF(original);
    return timed && PyObject_SetAttrString(importlib.get(), definition.ml_name, timed.get()) == 0;
}

void report_imports_at_exit(const std::string& path) {
    log_path = path.c_str();
    reporter = ::getpid();
    imported.clear();
    std::atexit(report);
}

}  // namespace warmfork::python
