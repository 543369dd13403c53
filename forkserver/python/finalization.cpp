#define PY_SSIZE_T_CLEAN
#define Py_LIMITED_API 0x03090000
#include "python/finalization.hpp"

#include <dlfcn.h>
#include <unistd.h>

#include <new>
#include <utility>
#include <vector>

#include "python/departure.hpp"
#include "python/frozen_image.hpp"
#include "python/image_pages.hpp"
#include "python/python_objects.hpp"

namespace warmfork::python {
namespace {

// These are the interpreter's own, taken before a program can put others in their place.
PyObject *unfreeze_function, *count_function, *collect_function, *collector_callbacks,
    *debug_function, *trace_function, *profile_function;

std::vector<PyObject*> own_namespaces;

/// Does `finalize_image` run after all else that atexit calls?
bool is_called_last = false;

/// The first object that a child made after all that is frozen. It is null where this is no child.
PyObject* first_own_object = nullptr;

/// Returns null with an exception set.
PyObject* keep_attribute(PyObject* module, const char* name) {
    const Reference attribute(PyObject_GetAttrString(module, name));
    if (attribute) keep_until_finalized(attribute.get());
    return attribute.get();
}

/// Returns false with an exception set.
bool find_functions() {
    const Reference gc(PyImport_ImportModule("gc")), sys(PyImport_ImportModule("sys"));
    return gc && sys && (unfreeze_function = keep_attribute(gc.get(), "unfreeze")) &&
           (count_function = keep_attribute(gc.get(), "get_freeze_count")) &&
           (collect_function = keep_attribute(gc.get(), "collect")) &&
           (collector_callbacks = keep_attribute(gc.get(), "callbacks")) &&
           (debug_function = keep_attribute(gc.get(), "get_debug")) &&
           (trace_function = keep_attribute(sys.get(), "gettrace")) &&
           (profile_function = keep_attribute(sys.get(), "getprofile"));
}

/// This is outside of the stable ABI, and the same since Python 2.
using ThreadHead = PyThreadState* (*)(PyInterpreterState*);
using NextThread = PyThreadState* (*)(PyThreadState*);

/// Are there other threads? Daemon threads run on for a moment.
bool has_other_threads() {
    const auto head =
        reinterpret_cast<ThreadHead>(::dlsym(RTLD_DEFAULT, "PyInterpreterState_ThreadHead"));
    const auto next = reinterpret_cast<NextThread>(::dlsym(RTLD_DEFAULT, "PyThreadState_Next"));
    return !head || !next || next(head(PyInterpreterState_Get()));
}

/// Would a second flush of it do nothing? Some objects stand for a file, and have what that has.
bool flushes_as_file(PyObject* stream) {
    const Reference flush(PyObject_GetAttrString(stream, "flush"));
    PyErr_Clear();
    return flush && PyCFunction_Check(flush.get()) && is_file(PyCFunction_GetSelf(flush.get()));
}

/// Has something been put in its place that would notice how often it is flushed?
bool is_other_stream(const char* name, std::size_t descriptor) {
    PyObject* stream = PySys_GetObject(name);  // borrowed
    return stream && stream != Py_None && stream != stream_of_image(descriptor) &&
           !flushes_as_file(stream);
}

bool has_other_streams() {
    return is_other_stream("stdout", STDOUT_FILENO) || is_other_stream("stderr", STDERR_FILENO) ||
           is_other_stream("__stdout__", STDOUT_FILENO) ||
           is_other_stream("__stderr__", STDERR_FILENO);
}

/// Does it return anything but None, 0 and the like?
bool tells_something(PyObject* function) {
    const Reference result(PyObject_CallObject(function, nullptr));
    return !result || PyObject_IsTrue(result.get()) != 0;
}

/// Would code of the program run, or see what happens, while the interpreter is finalized, other
/// than what objects do at their end?
bool is_observed() {
    return has_other_threads() || has_other_streams() || PyList_Size(collector_callbacks) > 0 ||
           tells_something(debug_function) || tells_something(trace_function) ||
           tells_something(profile_function);
}

/// Returns how many objects are frozen, or -1 where that cannot be told.
long count_frozen() {
    const Reference count(PyObject_CallObject(count_function, nullptr));
    return count ? PyLong_AsLong(count.get()) : -1;
}

/// Finds out whether the program has called gc.freeze(). Where the image cannot be looked at, the
/// collector counts one less without an object that is frozen. It is called once: the object is not
/// tracked any more after that.
bool find_own_freeze() {
    if (can_search_image()) return !ImageSearch().is_own(first_own_object);
    const long count = count_frozen();
    PyObject_GC_UnTrack(first_own_object);
    return count > 0 && count_frozen() == count - 1;
}

/// Does the image stay frozen?
bool leave_image() try {
    if (!can_search_image() || is_observed()) return find_own_freeze();
    DeparturePlan plan{.is_last = is_called_last};
    {
        ImageSearch search;
        // The program has called gc.freeze(): its own objects are to be left, as in a cold child.
        if (!search.is_own(first_own_object)) return true;
        plan.of_image = search.of_image(is_called_last);
        if (plan.of_image == Ends::of_any_kind) return false;
        plan.image_has_finalizers = !search.finalizers_of_image().empty();
        plan.of_program = search.of_program();
    }
    return plan_departure(plan);
} catch (const std::bad_alloc&) {
    return false;
}

/// Has everything taken apart, as a cold child does.
void unfreeze() {
    static_cast<void>(Reference(PyObject_CallObject(unfreeze_function, nullptr)));
    first_own_object = nullptr;
    let_go();
    for (PyObject* dictionary : std::exchange(own_namespaces, {})) {
        PyDict_Clear(dictionary);
        Py_DECREF(dictionary);
    }
}

}  // namespace

PyObject* freeze_image(PyObject*, PyObject* arguments, PyObject* names) {
    static const char* const keywords[] = {"without_end",       "finalized",      "quiet",
                                           "of_python",         "generator",      "context",
                                           "quiet_callbacks",   "visited",        "files",
                                           "streams_in_memory", "descriptors",    "fixed",
                                           "in_one_piece",      "first_builtins", "namespaces",
                                           "is_last",           nullptr};
    Kinds kinds;
    PyObject *first_builtins, *namespaces;
    int is_last;
    if (!PyArg_ParseTupleAndKeywords(
            arguments, names, "$OOOOOOOOOOOOOOOp", const_cast<char**>(keywords), &kinds.without_end,
            &kinds.finalized, &kinds.quiet, &kinds.of_python, &kinds.generator, &kinds.context,
            &kinds.quiet_callbacks, &kinds.visited, &kinds.files, &kinds.streams_in_memory,
            &kinds.descriptors, &kinds.fixed, &kinds.in_one_piece, &first_builtins, &namespaces,
            &is_last))
        return nullptr;
    if (!unfreeze_function) {
        is_called_last = is_last;
        if (!find_functions() || !prepare_departures(first_builtins, collect_function, unfreeze))
            return nullptr;
    }
    first_own_object = nullptr;
    for (Py_ssize_t i = 0; i < PyList_Size(namespaces); ++i) {
        own_namespaces.push_back(PyList_GetItem(namespaces, i));
        Py_INCREF(own_namespaces.back());
        note_own_namespace(own_namespaces.back());
    }
    if (!freeze(kinds)) return nullptr;
    Py_RETURN_NONE;
}

bool begin_own_objects() {
    ImagePages::begin_child();
    first_own_object = PyList_New(0);
    return first_own_object != nullptr;
}

PyObject* finalize_image(PyObject*, PyObject*) {
    // With a frame this is not Py_FinalizeEx, but atexit._run_exitfuncs: the program goes on, and
    // this is not called again. And what the program has unfrozen we may still refer to.
    const bool has_to_let_go = PyEval_GetFrame() || (can_search_image() && is_unfrozen());
    if (first_own_object && (has_to_let_go || !leave_image())) unfreeze();
    PyErr_Clear();
    Py_RETURN_NONE;
}

}  // namespace warmfork::python
