#define PY_SSIZE_T_CLEAN
#define Py_LIMITED_API 0x03090000
#include "python/python_template.hpp"

#include <dlfcn.h>
#include <errno.h>
#include <limits.h>
#include <pthread.h>
#include <unistd.h>

#include <fstream>
#include <iterator>
#include <string>
#include <utility>
#include <vector>

#include "python/departure.hpp"
#include "python/environment.hpp"
#include "python/finalization.hpp"
#include "python/frozen_image.hpp"
#include "python/image_description.hpp"
#include "python/import_times.hpp"
#include "python/original_arguments.hpp"
#include "python/python_host.hpp"
#include "python/python_objects.hpp"
#include "python/python_program.hpp"
#include "python/text_pages.hpp"
#include "template/serve.hpp"

namespace warmfork::python {
namespace {

// What the template that this process came from has left for layers on it: see `_Image`.
PyObject* image = nullptr;

/// This is outside of the stable ABI as well, and the same since Python 2.
using DeleteThreadState = void (*)();
DeleteThreadState delete_thread_state_function() {
    return reinterpret_cast<DeleteThreadState>(
        ::dlsym(RTLD_DEFAULT, "PyThreadState_DeleteCurrent"));
}

/// Modules in C++ keep the thread state by a key of the thread's (pybind11 does) and take the lock
/// of the interpreter for it when they call back: for one that is gone this thread would wait for
/// itself.
void replace_thread_state(const PyThreadState* old_state, PyThreadState* state) {
    for (pthread_key_t key = 0; key < PTHREAD_KEYS_MAX; ++key)
        if (::pthread_getspecific(key) == old_state) ::pthread_setspecific(key, state);
}

/// Python frames that are on the stack now are not below what this thread runs from here on: it
/// gets another thread state, as if it had just begun. There is no way back to them. What is in a
/// thread state itself, as numpy's handling of errors, goes along; `restore` puts back the rest.
bool leave_python_frames(DeleteThreadState delete_current, PyObject* restore) {
    Reference kept(PyDict_New());
    PyObject* values = PyThreadState_GetDict();  // borrowed
    if (!kept || !values || PyDict_Update(kept.get(), values) < 0) return false;
    // Before 3.13 an interpreter without any thread state is taken for one that is ending.
    if (!is_version_from(0x030d0000)) PyThreadState_New(PyInterpreterState_Get());
    const PyThreadState* old_state = PyThreadState_Get();
    PyThreadState_Clear(PyThreadState_Get());
    delete_current();
    PyGILState_Ensure();
    replace_thread_state(old_state, PyThreadState_Get());
    values = PyThreadState_GetDict();
    return values && PyDict_Update(values, kept.get()) == 0 &&
           Reference(PyObject_CallObject(restore, nullptr));
}

/// Calls what PyOS_AfterFork_Child calls, so that the loader looks it up here, once, and not in
/// each child.
void find_thread_functions() {
    Py_tss_t* key = PyThread_tss_alloc();
    if (!key) return;
    if (PyThread_tss_create(key) == 0) {
        PyThread_tss_set(key, key);
        PyThread_tss_get(key);
        PyThread_tss_delete(key);
    }
    PyThread_tss_free(key);
}

}  // namespace

PyObject* announce(PyObject*, PyObject*) {
    const int error = announce_template(layer_channel());
    if (error == 0) Py_RETURN_NONE;
    if (error == ENOTCONN)
        return PyErr_Format(PyExc_RuntimeError,
                            "this interpreter was not started as a template, but by what was");
    errno = error;
    return PyErr_SetFromErrno(PyExc_OSError);
}

PyObject* start_environment(PyObject*, PyObject*) {
    if (is_layer()) {
        std::vector<char*> variables;
        for (std::string& variable : renewed_environment()) variables.push_back(variable.data());
        variables.push_back(nullptr);
        return environment_dictionary(variables.data()).release();
    }
    // The interpreter may have changed its environment since; the kernel shows what it was started
    // with.
    std::ifstream file("/proc/self/environ", std::ios::binary);
    std::string text((std::istreambuf_iterator<char>(file)), {});
    std::vector<char*> variables;
    if (!text.ends_with('\0')) text += '\0';
    for (std::size_t at = 0; at < text.size(); at = text.find('\0', at) + 1)
        variables.push_back(text.data() + at);
    variables.push_back(nullptr);
    return environment_dictionary(variables.data()).release();
}

PyObject* current_environment(PyObject*, PyObject*) {
    return environment_dictionary(environ).release();
}

PyObject* extended_image(PyObject*, PyObject*) {
    PyObject* extended = is_layer() && image ? image : Py_None;
    Py_INCREF(extended);
    return extended;
}

PyObject* serve(PyObject*, PyObject* list) {
    Reference arguments(PyList_AsTuple(list));
    PyObject *child, *hook, *description, *found, *restore, *left;
    const char *report, *import_log, *obstacle;
    ImageFacts facts;
    std::vector<Finding> findings;
    if (!arguments || PyList_SetSlice(list, 0, PyList_Size(list), nullptr) < 0 ||
        !PyArg_ParseTuple(arguments.get(), "OOsOysOOO", &child, &hook, &report, &description,
                          &import_log, &obstacle, &found, &restore, &left) ||
        !read_facts(description, facts) || !read_findings(found, findings) ||
        (import_log[0] && !time_imports()))
        return nullptr;
    if (!can_run_files() || !delete_thread_state_function()) {
        PyErr_SetString(
            PyExc_RuntimeError,
            "this interpreter has no PyRun_AnyFileExFlags or PyThreadState_DeleteCurrent");
        return nullptr;
    }
    for (PyObject* object : {child, hook, restore, left}) keep_until_finalized(object);
    image = left;
    auto* host = new PythonHost(child, hook, report, std::move(facts), import_log, obstacle,
                                std::move(findings));
    arguments = Reference(nullptr);
    find_original_arguments();
    end_unless(leave_python_frames(delete_thread_state_function(), restore));
    find_thread_functions();
    share_text();
    take_census();
    const int channel = take_layer_channel();
    const auto failure =
        channel >= 0 ? open_layer(*host, Descriptor(channel)) : open_channel(*host);
    if (failure) {
        // The owner has the reason by the channel, or else by this line.
        PySys_FormatStderr("%s\n", failure->text.c_str());
        finalize_template_and_exit(kFailedStatus);
    }
    // No child comes back to here: see PythonHost::run.
    ChildCommand command{};
    static_cast<void>(warmfork::serve(command));
    finalize_template_and_exit(0);
}

}  // namespace warmfork::python
