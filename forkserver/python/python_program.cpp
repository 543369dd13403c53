#define PY_SSIZE_T_CLEAN
#define Py_LIMITED_API 0x03090000
#include "python/python_program.hpp"

#include <dlfcn.h>
#include <errno.h>
#include <signal.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstdio>
#include <cstring>
#include <string_view>

#include "python/departure.hpp"

namespace warmfork::python {
namespace {

/// The part of CPython's C API that runs a file as `python3 FILE` does. It is no part of the stable
/// ABI, but has been the same since Python 2. It is null in an interpreter without it.
using RunFile = int (*)(FILE*, const char*, int, void*);
RunFile run_file_function() {
    return reinterpret_cast<RunFile>(::dlsym(RTLD_DEFAULT, "PyRun_AnyFileExFlags"));
}

/// The same of its part that runs the text of a file, and leaves an exception to the caller.
using RunSource = PyObject* (*)(FILE*, const char*, int, PyObject*, PyObject*, int, void*);
RunSource run_source_function() {
    return reinterpret_cast<RunSource>(::dlsym(RTLD_DEFAULT, "PyRun_FileExFlags"));
}

/// Does python3 die by SIGINT where this is not caught? Before 3.14 only of KeyboardInterrupt
/// itself, since then of its subclasses too.
bool is_interrupt(PyObject* type) {
    if (!type || !is_version_from(0x030e0000)) return type == PyExc_KeyboardInterrupt;
    return PyErr_GivenExceptionMatches(type, PyExc_KeyboardInterrupt);
}

/// While it lives Python code runs that is no program's: a Ctrl-C that comes meanwhile, or has come
/// just before, is for the program, which begins right after. Nothing but Python's own handler of
/// it is there yet.
class InterruptForProgram {
  public:
    InterruptForProgram() {
        sigset_t interrupt;
        ::sigemptyset(&interrupt);
        ::sigaddset(&interrupt, SIGINT);
        ::pthread_sigmask(SIG_BLOCK, &interrupt, &before_);
        has_come_ = PyErr_CheckSignals() < 0;
        if (has_come_) PyErr_Clear();
    }
    ~InterruptForProgram() {
        ::pthread_sigmask(SIG_SETMASK, &before_, nullptr);
        if (has_come_) PyErr_SetInterrupt();
    }
    InterruptForProgram(const InterruptForProgram&) = delete;
    InterruptForProgram& operator=(const InterruptForProgram&) = delete;

  private:
    sigset_t before_;
    bool has_come_;
};

/// What is no number is written as str() has it.
void write_exit_text(PyObject* value) {
    PyObject* stream = PySys_GetObject("stderr");  // borrowed
    PyErr_Clear();
    if (stream && stream != Py_None) {
        PyFile_WriteObject(value, stream, Py_PRINT_RAW);
    } else {
        const Reference text(PyObject_Str(value));
        const Reference encoded(
            text ? PyUnicode_AsEncodedString(text.get(), "utf-8", "backslashreplace") : nullptr);
        if (encoded) std::fputs(PyBytes_AsString(encoded.get()), stderr);
        std::fflush(stderr);
    }
    PySys_WriteStderr("\n");
}

/// Returns the status that python3 would end with for a SystemExit.
int exit_status_of(PyObject* exception) {
    Reference code(nullptr);
    if (exception && PyExceptionInstance_Check(exception))
        code = Reference(PyObject_GetAttrString(exception, "code"));
    PyObject* value = code ? code.get() : exception;
    if (!value || value == Py_None) return 0;
    if (PyLong_Check(value)) return static_cast<int>(PyLong_AsLong(value));
    write_exit_text(value);
    return 1;
}

/// Has its own frame, so that nothing is referred to any more when the interpreter is finalized.
int take_exit_status() {
    PyObject *type, *value, *traceback;
    PyErr_Fetch(&type, &value, &traceback);
    std::fflush(stdout);
    const int status = exit_status_of(value);
    PyErr_Restore(type, value, traceback);
    PyErr_Clear();
    return status;
}

ProgramEnd end_of(const Reference& result) {
    return result ? ProgramEnd::done : fail_with_traceback();
}

/// Do tracebacks show the lines of -c?
bool shows_source() {
    static const bool shows = is_version_from(0x030d0000);
    return shows;
}

/// Returns null with an exception set.
Reference compile_text(PyObject* source, PyObject* known_codes) {
    PyObject* known =
        known_codes ? PyDict_GetItemWithError(known_codes, source) : nullptr;  // borrowed
    if (known) {
        Py_INCREF(known);
        return Reference(known);
    }
    static PyObject* compile = nullptr;
    if (!compile) {
        Reference builtins(PyImport_ImportModule("builtins"));
        compile = builtins ? PyObject_GetAttrString(builtins.get(), "compile") : nullptr;
        if (!compile) return Reference(nullptr);
    }
    if (Reference encoded(PyUnicode_AsUTF8String(source)); !encoded) {
        PySys_WriteStderr("Unable to decode the command from the command line:\n");
        return Reference(nullptr);
    }
    return Reference(PyObject_CallFunction(compile, "Ossii", source, "<string>", "exec", 0, 1));
}

/// False: with an exception set.
bool show_source(PyObject* child, PyObject* code, PyObject* source) {
    if (!shows_source()) return true;
    const InterruptForProgram held;
    return bool(Reference(PyObject_CallMethod(child, "show_source", "OO", code, source)));
}

/// As the child's name_program; null with an exception set.
Reference name_program(PyObject* child, PyObject* globals, const char* name, bool is_input) {
    const InterruptForProgram held;
    return Reference(PyObject_CallMethod(child, "name_program", "ONi", globals,
                                         PyUnicode_DecodeFSDefault(name), int{is_input}));
}

/// May all lines of -c begin with the same blanks? From 3.14 on these do not count.
bool may_be_indented(PyObject* source) {
    static const bool is_dedented = is_version_from(0x030e0000);
    if (!is_dedented) return false;
    const Py_UCS4 first = PyUnicode_ReadChar(source, 0);  // the text ends with a newline
    return first == ' ' || first == '\t' || first == '\n';
}

/// Null with an exception set.
Reference dedent(PyObject* child, PyObject* source) {
    const InterruptForProgram held;
    return Reference(PyObject_CallMethod(child, "dedented", "O", source));
}

ProgramEnd run_text(PyObject* child, Reference source, PyObject* known_codes) {
    if (may_be_indented(source.get())) source = dedent(child, source.get());
    Reference code = source ? compile_text(source.get(), known_codes) : Reference(nullptr);
    PyObject* main = PyImport_AddModule("__main__");  // borrowed
    if (!code || !main || !show_source(child, code.get(), source.get()))
        return fail_with_traceback();
    PyObject* globals = PyModule_GetDict(main);  // borrowed
    return end_of(Reference(PyEval_EvalCode(code.get(), globals, globals)));
}

/// Runs a compiled file or a terminal, which have ways of their own. The file is closed; a
/// traceback has been printed if it failed.
ProgramEnd run_any_file(FILE* file, const char* name, bool closes) {
    const RunFile run = run_file_function();
    if (run(file, name, closes, nullptr) == 0) return ProgramEnd::done;
    PyObject* last_type = PySys_GetObject("last_type");  // borrowed
    return is_interrupt(last_type) ? ProgramEnd::interrupted : ProgramEnd::failed;
}

/// Reads the beginning of a file, which is put back to its beginning, to tell whether it is a
/// compiled one.
bool detect_compiled(FILE* file, const char* name) {
    if (std::string_view(name).ends_with(".pyc")) return true;
    unsigned char magic[2];
    const bool is_read = std::ftell(file) == 0 && std::fread(magic, 1, 2, file) == 2;
    std::rewind(file);
    return is_read && (magic[1] << 8 | magic[0]) == (PyImport_GetMagicNumber() & 0xffff);
}

/// Runs a file as PyRun_SimpleFile does. That ends the process by itself where the program wants
/// to, but then nobody knows with which status. With `is_input` it is standard input, and is not
/// closed.
ProgramEnd run_file(PyObject* child, FILE* file, const char* name, bool is_input) {
    const RunSource run = run_source_function();
    if (!run || (is_input ? ::isatty(::fileno(file)) : detect_compiled(file, name)))
        return run_any_file(file, name, !is_input);
    PyObject* main = PyImport_AddModule("__main__");  // borrowed
    PyObject* globals = main ? PyModule_GetDict(main) : nullptr;
    const Reference named =
        globals ? name_program(child, globals, name, is_input) : Reference(nullptr);
    if (!named) return fail_with_traceback();
    const ProgramEnd end =
        end_of(Reference(run(file, name, Py_file_input, globals, globals, !is_input, nullptr)));
    if (PyObject_IsTrue(named.get())) {
        PyDict_DelItemString(globals, "__file__");
        PyErr_Clear();
        PyDict_DelItemString(globals, "__cached__");  // up to 3.14
        PyErr_Clear();
    }
    return end;
}

/// Runs a script. `program` is the name that the interpreter was called by.
ProgramEnd run_script(PyObject* child, PyObject* path, PyObject* program) {
    Reference encoded(PyUnicode_EncodeFSDefault(path));
    const char* name = encoded ? PyBytes_AsString(encoded.get()) : nullptr;
    if (!name) return fail_with_traceback();
    FILE* file = std::fopen(name, "rbe");
    if (!file) {
        PySys_FormatStderr("%S: can't open file %R: [Errno %d] %s\n", program, path, errno,
                           std::strerror(errno));
        finalize_and_exit(2, false);
    }
    struct stat status;
    if (::fstat(::fileno(file), &status) == 0 && S_ISDIR(status.st_mode)) {
        PySys_FormatStderr("%S: %R is a directory, cannot continue\n", program, path);
        finalize_and_exit(1, false);
    }
    return run_file(child, file, name, false);
}

}  // namespace

ProgramEnd fail_with_traceback() {
    if (PyErr_ExceptionMatches(PyExc_SystemExit)) finalize_and_exit(take_exit_status(), false);
    const bool interrupted = is_interrupt(PyErr_Occurred());
    PyErr_Print();
    return interrupted ? ProgramEnd::interrupted : ProgramEnd::failed;
}

bool can_run_files() {
    return run_file_function() != nullptr;
}

ProgramEnd run_prepared(PyObject* child, Reference prepared, PyObject* known_codes) {
    Reference first(PySequence_GetItem(prepared.get(), 0));
    Reference second(PySequence_GetItem(prepared.get(), 1));
    if (!first || !second) return fail_with_traceback();
    if (PyCallable_Check(first.get())) {
        const Reference result(PyObject_CallObject(first.get(), second.get()));
        // An exit does not return.
        for (Reference* used : {&first, &second, &prepared}) *used = Reference(nullptr);
        return end_of(result);
    }
    if (PyUnicode_CompareWithASCIIString(first.get(), "text") == 0)
        return run_text(child, std::move(second), known_codes);
    if (PyUnicode_CompareWithASCIIString(first.get(), "file") == 0) {
        Reference program(PySequence_GetItem(prepared.get(), 2));
        return program ? run_script(child, second.get(), program.get()) : fail_with_traceback();
    }
    return run_file(child, stdin, "<stdin>", true);
}

}  // namespace warmfork::python
