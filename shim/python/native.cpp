// warmfork._native is the C ABI for Python, and the Python side of a template. It uses the stable
// ABI of CPython 3.9.
#define PY_SSIZE_T_CLEAN
#define Py_LIMITED_API 0x03090000
#include <Python.h>

#include <array>
#include <utility>

#include "channel/trusted_path.hpp"
#include "link/real_program.hpp"
#include "owner_spawn.hpp"
#include "owner_template.hpp"
#include "protocol/files.hpp"
#include "protocol/messages.hpp"
#include "python/finalization.hpp"
#include "python/observation.hpp"
#include "python/python_objects.hpp"
#include "python/python_template.hpp"
#include "python/seeds.hpp"
#include "python/sequence_pool.hpp"
#include "python/stand_in_child.hpp"
#include "python/twister.hpp"
#include "warmfork.h"

namespace warmfork::python {
namespace {

using WithKeywords = PyObject* (*)(PyObject*, PyObject*, PyObject*);

PyCFunction with_keywords(WithKeywords function) {
    return reinterpret_cast<PyCFunction>(reinterpret_cast<void*>(function));
}

PyObject* is_link_program(PyObject*, PyObject* path) {
    const char* text = PyBytes_AsString(path);
    return text ? PyBool_FromLong(warmfork::link::is_link_program(text)) : nullptr;
}

/// distrust(path) -> why others than this user and root decide what lies there; "" where they do
/// not
PyObject* distrust(PyObject*, PyObject* path) {
    const char* text = PyBytes_AsString(path);
    return text ? PyUnicode_DecodeFSDefault(warmfork::distrust(text).c_str()) : nullptr;
}

PyMethodDef methods[] = {
    {"open", with_keywords(open), METH_VARARGS | METH_KEYWORDS, nullptr},
    {"close", close, METH_O, nullptr},
    {"connect", connect, METH_VARARGS, nullptr},
    {"adopt", adopt, METH_O, nullptr},
    {"give_to_keeper", give_to_keeper, METH_O, nullptr},
    {"make_pipes", make_pipes, METH_VARARGS, nullptr},
    {"spawn", with_keywords(spawn), METH_VARARGS | METH_KEYWORDS, nullptr},
    {"leave_unchecked", leave_unchecked, METH_O, nullptr},
    {"wait", wait, METH_VARARGS, nullptr},
    {"send_signal", send_signal, METH_VARARGS, nullptr},
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
    {"freeze_image", with_keywords(freeze_image), METH_VARARGS | METH_KEYWORDS, nullptr},
    {"finalize_image", finalize_image, METH_NOARGS, nullptr},
    {"observe", observe, METH_NOARGS, nullptr},
    {"drawn", drawn, METH_NOARGS, nullptr},
    {"made", made, METH_NOARGS, nullptr},
    {"descriptors_in_the_way", descriptors_in_the_way, METH_NOARGS, nullptr},
    {"resume_recording", resume_recording, METH_NOARGS, nullptr},
    {"distrust", distrust, METH_O, nullptr},
    {"is_link_program", is_link_program, METH_O, nullptr},
    {"list_for", list_for, METH_O, nullptr},
    {"drop_listing", drop_listing, METH_O, nullptr},
    {"askers", askers, METH_NOARGS, nullptr},
    {"start_environment", start_environment, METH_NOARGS, nullptr},
    {"extended_image", extended_image, METH_NOARGS, nullptr},
    {"current_environment", current_environment, METH_NOARGS, nullptr},
    {"register_twister", register_twister, METH_VARARGS, nullptr},
    {"seed_of", seed_of, METH_VARARGS, nullptr},
    {"mix_pool", mix_pool, METH_VARARGS, nullptr},
    {"prepare_to_become_child", prepare_to_become_child, METH_O, nullptr},
    {"become_child", become_child, METH_VARARGS, nullptr},
    {nullptr, nullptr, 0, nullptr}};

// Numbers of warmfork.h and of the contract, for the package.
constexpr std::array<std::pair<const char*, long>, 8> kNumbers = {{
    {"NEW_SESSION", WARMFORK_NEW_SESSION},
    {"PROCESS_GROUP", WARMFORK_PROCESS_GROUP},
    {"SIGNALS_DEFAULT", WARMFORK_SIGNALS_DEFAULT},
    {"UMASK", WARMFORK_UMASK},
    {"NICE", WARMFORK_NICE},
    {"DETACHED", WARMFORK_DETACHED},
    {"PROGRESS_MARK", kProgressMark},
    {"LISTED_DISTRIBUTIONS", kListedDistributions},
}};

constexpr std::array<std::pair<const char*, const char*>, 3> kTexts = {{
    {"__version__", WARMFORK_VERSION},
    {"CHANNEL_VARIABLE", kChannelVariable},
    {"LAUNCH_VARIABLE", kLaunchVariable},
}};

/// Adds an object, and takes it over. It is null where it could not be made.
int add_object(PyObject* module, const char* name, PyObject* object) {
    if (!object || PyModule_AddObject(module, name, object) == 0) return object ? 0 : -1;
    Py_DECREF(object);
    return -1;
}

int add_constants(PyObject* module) {
    for (const auto& [name, value] : kNumbers)
        if (PyModule_AddIntConstant(module, name, value) < 0) return -1;
    for (const auto& [name, value] : kTexts)
        if (PyModule_AddStringConstant(module, name, value) < 0) return -1;
    if (add_object(module, "BACKENDS",
                   Py_BuildValue("{sisisi}", "auto", WARMFORK_BACKEND_AUTO, "warm",
                                 WARMFORK_BACKEND_WARM, "cold", WARMFORK_BACKEND_COLD)) < 0 ||
        add_object(module, "ON_STALE",
                   Py_BuildValue("{sisisi}", "cold", WARMFORK_STALE_COLD, "wait",
                                 WARMFORK_STALE_WAIT, "serve", WARMFORK_STALE_SERVE)) < 0 ||
        add_object(module, "ASKED", names_of_asked()) < 0)
        return -1;
    return 0;
}

PyModuleDef_Slot slots[] = {{Py_mod_exec, reinterpret_cast<void*>(add_constants)}, {0, nullptr}};

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
