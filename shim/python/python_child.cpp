#define PY_SSIZE_T_CLEAN
#define Py_LIMITED_API 0x03090000
#include "python_child.hpp"

#include <signal.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>

#include "child/setup.hpp"
#include "python_objects.hpp"
#include "template/serve.hpp"

namespace warmfork::python {
namespace {

constexpr int kFailedStatus = 1;
// Where finalization could not write out what was buffered: Py_RunMain's status.
constexpr int kFlushFailedStatus = 120;

/// Signals that the interpreter set at its start; every child gets them back after the reset.
constexpr int kInterpreterSignals[] = {SIGINT, SIGPIPE, SIGXFSZ};

Reference bytes_from(const char* text) {
    return Reference(PyBytes_FromStringAndSize(text, static_cast<Py_ssize_t>(std::strlen(text))));
}

Reference list_of_strings(std::span<char*> strings) {
    Reference list(PyList_New(0));
    for (const char* string : strings) {
        Reference decoded(PyUnicode_DecodeFSDefault(string));
        if (!list || !decoded || PyList_Append(list.get(), decoded.get()) < 0)
            return Reference(nullptr);
    }
    return list;
}

/// The environment as os keeps it: bytes by bytes. Of a name given twice the first counts.
Reference environment_dictionary() {
    Reference dictionary(PyDict_New());
    for (char** variable = environ; dictionary && *variable; ++variable) {
        const char* equals = std::strchr(*variable, '=');
        if (!equals) continue;
        Reference name(PyBytes_FromStringAndSize(*variable, equals - *variable));
        Reference value = bytes_from(equals + 1);
        if (!name || !value) return Reference(nullptr);
        if (PyDict_Contains(dictionary.get(), name.get()) == 0 &&
            PyDict_SetItem(dictionary.get(), name.get(), value.get()) < 0)
            return Reference(nullptr);
    }
    return dictionary;
}

/// Runs what warmfork._child has prepared: (source, file name) is compiled and run in __main__;
/// (function, arguments) is called. Done here, so that no frame of warmfork's own stands in a traceback.
Reference run_prepared(PyObject* prepared) {
    Reference first(PySequence_GetItem(prepared, 0));
    Reference second(PySequence_GetItem(prepared, 1));
    if (!first || !second) return Reference(nullptr);
    if (PyCallable_Check(first.get()))
        return Reference(PyObject_CallObject(first.get(), second.get()));

    Reference builtins(PyImport_ImportModule("builtins"));
    Reference compile(builtins ? PyObject_GetAttrString(builtins.get(), "compile") : nullptr);
    if (!compile) return Reference(nullptr);
    Reference code(PyObject_CallFunction(compile.get(), "OOsii", first.get(), second.get(), "exec",
                                         0, 1));
    PyObject* main = PyImport_AddModule("__main__");  // borrowed
    if (!code || !main) return Reference(nullptr);
    PyObject* globals = PyModule_GetDict(main);  // borrowed
    return Reference(PyEval_EvalCode(code.get(), globals, globals));
}

/// Brings the interpreter into the state in which a fresh one begins this command line; what it returns
/// is for `run_prepared`.
Reference prepare(PyObject* child, const ChildCommand& command) {
    Reference arguments = list_of_strings(command.arguments);
    Reference environment = environment_dictionary();
    Reference ignored(PyLong_FromUnsignedLongLong(command.signals_ignored));
    Reference executable(command.executable ? PyUnicode_DecodeFSDefault(command.executable)
                                            : nullptr);
    if (!arguments || !environment || !ignored) return Reference(nullptr);
    return Reference(PyObject_CallMethod(child, "prepare", "OOOO", arguments.get(),
                                         environment.get(), ignored.get(),
                                         executable ? executable.get() : Py_None));
}

class PythonHost : public Host {
  public:
    PythonHost(PyObject* child, const char* report) : child_(child), report_(report) {
        for (std::size_t i = 0; i < std::size(kInterpreterSignals); ++i)
            ::sigaction(kInterpreterSignals[i], nullptr, &dispositions_[i]);
    }

    void before_fork() override { PyOS_BeforeFork(); }
    void after_fork_in_template() override { PyOS_AfterFork_Parent(); }
    void after_fork_in_child() override { PyOS_AfterFork_Child(); }
    void rehearse() override;
    std::string report() override { return report_; }

    void install_signals(std::uint64_t ignored) override {
        for (std::size_t i = 0; i < std::size(kInterpreterSignals); ++i) {
            const int signal = kInterpreterSignals[i];
            if (!(ignored >> (signal - 1) & 1)) ::sigaction(signal, &dispositions_[i], nullptr);
        }
    }

    PyObject* child() const { return child_; }

  private:
    PyObject* child_;
    std::string report_;
    struct sigaction dispositions_[std::size(kInterpreterSignals)]{};
};

/// What does not depend on the record, for good; then all that does, for an empty program.
void PythonHost::rehearse() {
    char program[] = "python3", option[] = "-c", source[] = "pass";
    char* arguments[] = {program, option, source};
    ChildCommand command{};
    command.arguments = arguments;
    Reference reseeded(PyObject_CallMethod(child_, "reseed", nullptr));
    Reference prepared(reseeded ? prepare(child_, command).release() : nullptr);
    Reference result(prepared ? run_prepared(prepared.get()).release() : nullptr);
    if (result) return;
    PyErr_Print();
    ::_exit(kFailedStatus);
}

/// As python3 leaves: finalize, flush, and for Ctrl-C die by the signal so that a shell sees it.
[[noreturn]] void leave(int status, bool interrupted) {
    if (Py_FinalizeEx() < 0) status = kFlushFailedStatus;
    if (interrupted) {
        ::signal(SIGINT, SIG_DFL);
        ::raise(SIGINT);
        status = 128 + SIGINT;
    }
    std::exit(status);
}

[[noreturn]] void run_child(PythonHost& host, const ChildCommand& command) {
    Reference prepared = prepare(host.child(), command);
    // Not before Python knows which signals are ignored.
    set_signal_mask(command.signal_mask);
    Reference result(nullptr);
    if (prepared) result = run_prepared(prepared.get());
    if (result) leave(0, false);
    const bool interrupted = PyErr_ExceptionMatches(PyExc_KeyboardInterrupt);
    PyErr_Print();  // for SystemExit this ends the process, with its status
    leave(kFailedStatus, interrupted);
}

}  // namespace

PyObject* serve(PyObject*, PyObject* arguments) {
    PyObject* child;
    const char* report;
    if (!PyArg_ParseTuple(arguments, "Os", &child, &report)) return nullptr;
    Py_INCREF(child);
    auto* host = new PythonHost(child, report);  // children use it until they end
    ServeResult result = warmfork::serve(*host);
    if (result.end == ServeResult::End::child) run_child(*host, result.command);
    delete host;
    Py_DECREF(child);
    if (result.end == ServeResult::End::shut_down) Py_RETURN_NONE;
    PyErr_SetString(PyExc_RuntimeError, result.error.c_str());
    return nullptr;
}

}  // namespace warmfork::python
