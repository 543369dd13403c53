#define PY_SSIZE_T_CLEAN
#define Py_LIMITED_API 0x03090000
#include "python/prepare_command.hpp"

#include <sys/stat.h>

#include <span>

#include "owner/python_command.hpp"
#include "python/environment.hpp"
#include "python/original_arguments.hpp"

namespace warmfork::python {
namespace {

Reference list_of_strings(std::span<char*> strings) {
    Reference list(PyList_New(0));
    for (const char* string : strings) {
        Reference decoded(PyUnicode_DecodeFSDefault(string));
        if (!list || !decoded || PyList_Append(list.get(), decoded.get()) < 0)
            return Reference(nullptr);
    }
    return list;
}

/// What warmfork._child.make_ready has left to be done for a `python3 -c` over pipes.
struct Readiness {
    bool is_quick = false;       ///< nothing but argv and the like
    bool inserts_path = false;   ///< "" comes in front of sys.path
    unsigned long long ignored;  ///< signals that need not be looked at
    std::string executable;
    PyObject* known_codes = nullptr;  ///< by their text
    bool needs_moment = false;        ///< take_moment is to be called
};
Readiness readiness;

void read_readiness(PyObject* tuple) {
    const char* executable;
    int is_quick, inserts_path, needs_moment;
    PyObject* known_codes;
    if (!PyArg_ParseTuple(tuple, "ppKyOp", &is_quick, &inserts_path, &readiness.ignored,
                          &executable, &known_codes, &needs_moment))
        return;
    readiness.needs_moment = needs_moment;
    Py_INCREF(known_codes);
    readiness.known_codes = known_codes;
    readiness.is_quick = is_quick;
    readiness.inserts_path = inserts_path;
    readiness.executable = executable;
}

const char* name_of(PythonCommand::Kind kind) {
    switch (kind) {
        case PythonCommand::Kind::script:
            return "script";
        case PythonCommand::Kind::text:
            return "text";
        case PythonCommand::Kind::module:
            return "module";
        case PythonCommand::Kind::standard_input:
            return "stdin";
    }
    return "";
}

bool is_quick(const PythonCommand& parsed, const ChildCommand& command) {
    return readiness.is_quick && parsed.kind == PythonCommand::Kind::text &&
           (command.signals_ignored & ~readiness.ignored) == 0 &&
           command.arguments[0] == readiness.executable && standard_pipes() == 0b111;
}

/// Fills a list in sys anew, if it is one: modules may have it by name.
bool set_list(const char* name, PyObject* items) {
    PyObject* list = PySys_GetObject(name);  // borrowed
    if (!list || !PyList_CheckExact(list)) return PySys_SetObject(name, items) == 0;
    return PyList_SetSlice(list, 0, PyList_Size(list), items) == 0;
}

/// Does what warmfork._child.prepare does, for the most usual command line.
Reference prepare_quickly(PyObject* arguments, const PythonCommand& parsed, PyObject* operand) {
    static PyObject *option = PyUnicode_FromString("-c"), *empty = PyUnicode_FromString("");
    static PyObject *kind = PyUnicode_FromString("text"), *end = PyUnicode_FromString("\n");
    const Py_ssize_t count = PyList_Size(arguments);
    Reference rest(PyList_GetSlice(arguments, static_cast<Py_ssize_t>(parsed.program), count));
    PyObject* path = PySys_GetObject("path");  // borrowed
    Reference source(PyUnicode_Concat(operand, end));
    if (!rest || !path || !source) return Reference(nullptr);
    Py_INCREF(option);
    if (PyList_SetItem(rest.get(), 0, option) < 0 ||
        (PySys_GetObject("orig_argv") && !set_list("orig_argv", arguments)) ||
        !set_list("argv", rest.get()) ||
        (readiness.inserts_path && PyList_Insert(path, 0, empty) < 0))
        return Reference(nullptr);
    return Reference(PyTuple_Pack(2, kind, source.get()));
}

}  // namespace

bool make_ready(PyObject* child) {
    const Reference ready(PyObject_CallMethod(child, "make_ready", nullptr));
    if (ready) read_readiness(ready.get());
    return !PyErr_Occurred();
}

PyObject* known_codes() {
    return readiness.known_codes;
}

const std::string& ready_executable() {
    return readiness.executable;
}

unsigned standard_pipes() {
    unsigned pipes = 0;
    for (int number : {0, 1, 2}) {
        struct stat status;
        if (::fstat(number, &status) == 0 && (S_ISFIFO(status.st_mode) || S_ISSOCK(status.st_mode)))
            pipes |= 1u << number;
    }
    return pipes;
}

Reference prepare(PyObject* child, const ChildCommand& command, bool is_rehearsal) {
    const PythonCommand parsed = parse_python_command(command.arguments);
    Reference arguments = list_of_strings(command.arguments);
    Reference operand(PyUnicode_DecodeFSDefault(parsed.operand.c_str()));
    if (!arguments || !operand || !renew_environment(child) ||
        !set_original_arguments(arguments.get()) ||
        (readiness.needs_moment && !Reference(PyObject_CallMethod(child, "take_moment", nullptr))))
        return Reference(nullptr);
    if (is_quick(parsed, command)) return prepare_quickly(arguments.get(), parsed, operand.get());
    return Reference(PyObject_CallMethod(child, "prepare", "OsnOKIi", arguments.get(),
                                         name_of(parsed.kind),
                                         static_cast<Py_ssize_t>(parsed.program), operand.get(),
                                         static_cast<unsigned long long>(command.signals_ignored),
                                         standard_pipes(), int{is_rehearsal}));
}

}  // namespace warmfork::python
