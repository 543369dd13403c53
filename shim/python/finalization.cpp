#define PY_SSIZE_T_CLEAN
#define Py_LIMITED_API 0x03090000
#include "finalization.hpp"

#include <dlfcn.h>
#include <unistd.h>

#include <array>
#include <cstring>
#include <new>
#include <unordered_set>
#include <utility>
#include <vector>

#include "frozen_image.hpp"
#include "python_objects.hpp"

namespace warmfork::python {
namespace {

// The interpreter's own, before a program can put others in their place.
PyObject *unfreeze_function, *is_enabled_function, *is_finalizing_function, *collector_callbacks;

std::vector<PyObject*> own_namespaces;

/// Does `finalize_image` run after all else that atexit calls?
bool is_called_last = false;

/// Of a child: made after all that is frozen. Null: this is no child.
PyObject* first_own_object = nullptr;

/// Null with an exception set.
PyObject* keep_attribute(PyObject* module, const char* name) {
    const Reference attribute(PyObject_GetAttrString(module, name));
    if (attribute) keep_until_finalized(attribute.get());
    return attribute.get();
}

/// False with an exception set.
bool find_functions() {
    const Reference collector(PyImport_ImportModule("gc")), sys(PyImport_ImportModule("sys"));
    return collector && sys && (unfreeze_function = keep_attribute(collector.get(), "unfreeze")) &&
           (is_enabled_function = keep_attribute(collector.get(), "isenabled")) &&
           (collector_callbacks = keep_attribute(collector.get(), "callbacks")) &&
           (is_finalizing_function = keep_attribute(sys.get(), "is_finalizing"));
}

bool is_true(PyObject* function) {
    const Reference result(PyObject_CallObject(function, nullptr));
    return result.get() == Py_True;
}

/// As a cold child's, everything will be taken apart.
void unfreeze() {
    Reference(PyObject_CallObject(unfreeze_function, nullptr));
    first_own_object = nullptr;
    let_go();
    for (PyObject* dictionary : std::exchange(own_namespaces, {})) {
        PyDict_Clear(dictionary);
        Py_DECREF(dictionary);
    }
}

/// Outside of the stable ABI, and the same since Python 2.
using ThreadHead = PyThreadState* (*)(PyInterpreterState*);
using NextThread = PyThreadState* (*)(PyThreadState*);

/// Daemon threads run on for a moment.
bool has_other_threads() {
    const auto head =
        reinterpret_cast<ThreadHead>(::dlsym(RTLD_DEFAULT, "PyInterpreterState_ThreadHead"));
    const auto next = reinterpret_cast<NextThread>(::dlsym(RTLD_DEFAULT, "PyThreadState_Next"));
    return !head || !next || next(head(PyInterpreterState_Get()));
}

/// Has the program put another in its place? That may hold output that nothing else flushes.
bool is_other_stream(const char* name, std::size_t descriptor) {
    PyObject* stream = PySys_GetObject(name);  // borrowed
    return stream && stream != Py_None && stream != stream_of_image(descriptor);
}

bool has_other_streams() {
    return is_other_stream("stdout", STDOUT_FILENO) || is_other_stream("stderr", STDERR_FILENO) ||
           is_other_stream("__stdout__", STDOUT_FILENO) ||
           is_other_stream("__stderr__", STDERR_FILENO);
}

enum class Image {
    has_ends,           ///< or may have
    has_no_ends,        ///< it can stay as it is
    frozen_by_program,  ///< with its own objects, by gc.freeze(): nothing ends, as in a cold child
};

// As `look_at_image` found it.
std::unordered_set<PyObject*> modules_of_image;
bool collection_can_run_code = false;

void find_modules(const ImageSearch& search) {
    PyObject *name, *module;
    modules_of_image.clear();
    for (Py_ssize_t position = 0; PyDict_Next(PyImport_GetModuleDict(), &position, &name, &module);)
        // The interpreter knows these two by themselves.
        if (PyModule_Check(module) && !search.is_own(module) &&
            PyUnicode_CompareWithASCIIString(name, "sys") != 0 &&
            PyUnicode_CompareWithASCIIString(name, "builtins") != 0)
            modules_of_image.insert(module);
}

Image look_at_image() try {
    if (!can_search_image() || has_other_streams()) return Image::has_ends;
    ImageSearch search;
    if (search.is_too_large()) return Image::has_ends;
    if (!search.is_own(first_own_object)) return Image::frozen_by_program;
    if (search.finds_end()) return Image::has_ends;
    find_modules(search);
    collection_can_run_code = search.can_run_code();
    return Image::has_no_ends;
} catch (const std::bad_alloc&) {
    return Image::has_ends;
}

/// The interpreter, which takes all modules apart, will not see those of the image.
void hide_modules() {
    PyObject* modules = PyImport_GetModuleDict();  // borrowed
    PyObject *name, *module;
    for (Py_ssize_t position = 0; PyDict_Next(modules, &position, &name, &module);) {
        if (!modules_of_image.contains(module)) continue;
        Py_INCREF(module);
        PyDict_SetItem(modules, name, Py_None);  // there is such a key, so it cannot fail
    }
}

std::array<PyObject*, 2> streams_to_flush;

void flush_streams(PyObject*) {
    for (PyObject* stream : streams_to_flush) {
        if (!stream) continue;
        Reference(PyObject_CallMethod(stream, "flush", nullptr));
        PyErr_Clear();  // nor does the end of a stream tell
        Py_DECREF(stream);
    }
}

/// What is still printed while modules are taken apart is written out when the stream comes to its
/// end, but the image may refer to it as well. Of what sys holds this comes to its end last.
void flush_streams_at_end() {
    streams_to_flush = {PySys_GetObject("__stdout__"), PySys_GetObject("__stderr__")};
    for (PyObject* stream : streams_to_flush) Py_XINCREF(stream);
    const Reference last(PyCapsule_New(&streams_to_flush, nullptr, flush_streams));
    if (last) PySys_SetObject("warmfork", last.get());
    PyErr_Clear();
}

/// Can something run after the image was looked at that hangs more on it?
bool may_change = false;

/// In gc.callbacks: Py_FinalizeEx collects garbage first, whose __del__ finds all modules.
PyObject* after_collection(PyObject*, PyObject* arguments) {
    const char* phase;
    PyObject* facts;
    if (!PyArg_ParseTuple(arguments, "sO", &phase, &facts)) return nullptr;
    if (!first_own_object || std::strcmp(phase, "stop") != 0 || !is_true(is_finalizing_function))
        Py_RETURN_NONE;
    switch (may_change ? look_at_image() : Image::has_no_ends) {
        case Image::has_ends:
            unfreeze();
            break;
        case Image::has_no_ends:
            hide_modules();
            flush_streams_at_end();
            break;
        case Image::frozen_by_program:
            break;
    }
    first_own_object = nullptr;
    Py_RETURN_NONE;
}

/// False if there will be none.
bool await_collection() {
    static PyMethodDef definition{"after_collection", after_collection, METH_VARARGS, nullptr};
    may_change = !is_called_last || has_other_threads() || collection_can_run_code;
    const Reference callback(PyCFunction_New(&definition, nullptr));
    return is_true(is_enabled_function) && callback &&
           PyList_Append(collector_callbacks, callback.get()) == 0;
}

}  // namespace

PyObject* freeze_image(PyObject*, PyObject* arguments) {
    PyObject *types, *of_python, *idle_generators, *namespaces;
    int is_last;
    if (!PyArg_ParseTuple(arguments, "OOOOp", &types, &of_python, &idle_generators, &namespaces,
                          &is_last))
        return nullptr;
    if (!unfreeze_function) {
        is_called_last = is_last;
        if (!find_functions()) return nullptr;
    }
    first_own_object = nullptr;
    for (Py_ssize_t i = 0; i < PyList_Size(namespaces); ++i) {
        own_namespaces.push_back(PyList_GetItem(namespaces, i));
        Py_INCREF(own_namespaces.back());
    }
    if (!freeze(types, of_python, idle_generators)) return nullptr;
    Py_RETURN_NONE;
}

bool begin_own_objects() {
    first_own_object = PyList_New(0);
    return first_own_object != nullptr;
}

PyObject* finalize_image(PyObject*, PyObject*) {
    if (!first_own_object) Py_RETURN_NONE;
    // With a frame this is not Py_FinalizeEx, but atexit._run_exitfuncs: the program goes on, and
    // this is not called again. And what the program has unfrozen we may still refer to.
    const bool cannot_wait = PyEval_GetFrame() || (can_search_image() && is_unfrozen());
    switch (cannot_wait ? Image::has_ends : look_at_image()) {
        case Image::has_no_ends:
            if (await_collection()) break;
            PyErr_Clear();
            [[fallthrough]];
        case Image::has_ends:
            unfreeze();
            break;
        case Image::frozen_by_program:
            break;
    }
    Py_RETURN_NONE;
}

}  // namespace warmfork::python
