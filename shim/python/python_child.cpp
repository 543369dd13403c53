#define PY_SSIZE_T_CLEAN
#define Py_LIMITED_API 0x03090000
#include "python_child.hpp"

#include <fcntl.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <iterator>
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
/// (function, arguments) is called. Done here, so that no frame of warmfork's own stands in a
/// traceback.
Reference run_prepared(PyObject* prepared) {
    Reference first(PySequence_GetItem(prepared, 0));
    Reference second(PySequence_GetItem(prepared, 1));
    if (!first || !second) return Reference(nullptr);
    if (PyCallable_Check(first.get()))
        return Reference(PyObject_CallObject(first.get(), second.get()));

    static PyObject* compile = nullptr;
    if (!compile) {
        Reference builtins(PyImport_ImportModule("builtins"));
        compile = builtins ? PyObject_GetAttrString(builtins.get(), "compile") : nullptr;
        if (!compile) return Reference(nullptr);
    }
    Reference code(
        PyObject_CallFunction(compile, "OOsii", first.get(), second.get(), "exec", 0, 1));
    PyObject* main = PyImport_AddModule("__main__");  // borrowed
    if (!code || !main) return Reference(nullptr);
    PyObject* globals = PyModule_GetDict(main);  // borrowed
    return Reference(PyEval_EvalCode(code.get(), globals, globals));
}

/// Descriptors 0 to 2 that are pipes or sockets: bit n.
unsigned standard_pipes() {
    unsigned pipes = 0;
    for (int number : {0, 1, 2}) {
        struct stat status;
        if (::fstat(number, &status) == 0 && (S_ISFIFO(status.st_mode) || S_ISSOCK(status.st_mode)))
            pipes |= 1u << number;
    }
    return pipes;
}

/// os.environ made equal to environ, unless it is.
bool renew_environment(PyObject* child) {
    static std::vector<std::string> applied;
    char** variable = environ;
    std::size_t same = 0;
    while (*variable && same < applied.size() && applied[same] == *variable) ++variable, ++same;
    if (!applied.empty() && !*variable && same == applied.size()) return true;
    applied.clear();
    for (variable = environ; *variable; ++variable) applied.emplace_back(*variable);
    Reference environment = environment_dictionary();
    return environment &&
           Reference(PyObject_CallMethod(child, "set_environment", "O", environment.get()));
}

/// Brings the interpreter into the state in which a fresh one begins this command line; what it
/// returns is for `run_prepared`.
Reference prepare(PyObject* child, const ChildCommand& command) {
    Reference arguments = list_of_strings(command.arguments);
    Reference executable(command.executable ? PyUnicode_DecodeFSDefault(command.executable)
                                            : nullptr);
    if (!arguments || !renew_environment(child)) return Reference(nullptr);
    return Reference(PyObject_CallMethod(
        child, "prepare", "OOKI", arguments.get(), executable ? executable.get() : Py_None,
        static_cast<unsigned long long>(command.signals_ignored), standard_pipes()));
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
    void part_from_siblings() override;
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
    void run_and_forget(char* source);

    PyObject* child_;
    std::string report_;
    struct sigaction dispositions_[std::size(kInterpreterSignals)]{};
};

void end_unless(bool is_right) {
    if (is_right) return;
    PyErr_Print();
    ::_exit(kFailedStatus);
}

void PythonHost::part_from_siblings() {
    end_unless(bool(Reference(PyObject_CallMethod(child_, "part_from_siblings", nullptr))));
}

void PythonHost::rehearse() {
    Reference source(PyObject_CallMethod(child_, "rehearsal", nullptr));
    Reference encoded(source ? PyUnicode_EncodeFSDefault(source.get()) : nullptr);
    if (encoded) run_and_forget(PyBytes_AsString(encoded.get()));
    end_unless(!PyErr_Occurred());
}

/// Runs a program as a command line would be, and makes a fresh start of it.
void PythonHost::run_and_forget(char* source) {
    char program[] = "python3", option[] = "-c";
    char* arguments[] = {program, option, source};
    ChildCommand command{};
    command.arguments = arguments;
    Reference prepared = prepare(child_, command);
    Reference result(prepared ? run_prepared(prepared.get()).release() : nullptr);
    Reference ready(result ? PyObject_CallMethod(child_, "make_ready", nullptr) : nullptr);
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
    Reference let_go(prepared ? PyObject_CallMethod(host.child(), "let_go", nullptr) : nullptr);
    if (!let_go) prepared = Reference(nullptr);
    // Not before Python knows which signals are ignored.
    set_signal_mask(command.signal_mask);
    Reference result(nullptr);
    if (prepared) result = run_prepared(prepared.get());
    if (result) leave(0, false);
    // Not one of its subclasses, as in python3.
    const bool interrupted = PyErr_Occurred() == PyExc_KeyboardInterrupt;
    PyErr_Print();  // for SystemExit this ends the process, with its status
    leave(kFailedStatus, interrupted);
}

// The benchmark's stand-in for a template.
PythonHost* stand_in_host = nullptr;
ChildPlan stand_in_plan;

}  // namespace

PyObject* start_environment(PyObject*, PyObject*) {
    // The interpreter may have changed its environment since; the kernel shows what it was started
    // with.
    std::ifstream file("/proc/self/environ", std::ios::binary);
    const std::string text((std::istreambuf_iterator<char>(file)), {});
    Reference names(PyList_New(0));
    for (std::size_t at = 0; names && at < text.size(); at = text.find('\0', at) + 1) {
        const std::size_t equals = text.find('=', at);
        if (equals == std::string::npos) break;
        Reference name(
            PyBytes_FromStringAndSize(text.data() + at, static_cast<Py_ssize_t>(equals - at)));
        if (!name || PyList_Append(names.get(), name.get()) < 0) return nullptr;
    }
    return names.release();
}

PyObject* prepare_to_become_child(PyObject*, PyObject* child) {
    Py_INCREF(child);
    stand_in_host = new PythonHost(child, "");
    stand_in_plan.host = stand_in_host;
    stand_in_plan.image = read_image_addresses();
    stand_in_plan.soft_descriptor_limit = stand_in_plan.hard_descriptor_limit = RLIM_INFINITY;
    rlimit limit{};
    if (::getrlimit(RLIMIT_NOFILE, &limit) == 0) {
        stand_in_plan.soft_descriptor_limit = limit.rlim_cur;
        stand_in_plan.hard_descriptor_limit = limit.rlim_max;
    }
    Py_RETURN_NONE;
}

PyObject* become_child(PyObject*, PyObject* arguments) {
    PyObject *strings, *pairs;
    int mailbox;
    if (!PyArg_ParseTuple(arguments, "OOi", &strings, &pairs, &mailbox)) return nullptr;
    StringArray argument_array;
    if (!argument_array.read(strings)) return nullptr;
    std::vector<const char*> environment;
    for (char** variable = environ; *variable; ++variable) environment.push_back(*variable);
    RecordContents contents;
    contents.header.flags = kRecordProcessGroup | kRecordSignalMask | kRecordSignalsIgnored |
                            kRecordUmask | kRecordDirectoryDescriptor;
    contents.header.owner_pid = ::getppid();
    contents.header.process_group = ::getpgrp();
    contents.header.file_mode_mask = 022;
    contents.arguments = {argument_array.get(), static_cast<std::size_t>(PySequence_Size(strings))};
    contents.environment = environment;
    for (Py_ssize_t i = 0; i + 1 < PySequence_Size(pairs); i += 2) {
        long source, target;
        if (!read_integer(pairs, i, source) || !read_integer(pairs, i + 1, target)) return nullptr;
        stand_in_plan.descriptors.push_back(static_cast<int>(source));
        contents.descriptor_targets.push_back(static_cast<int>(target));
    }
    stand_in_plan.descriptors.push_back(::open(".", O_PATH | O_CLOEXEC));
    std::vector<std::byte> record;
    if (encode_record(contents, record) != 0 || !stand_in_host) {
        PyErr_SetString(PyExc_ValueError, "not a valid command for a child");
        return nullptr;
    }
    stand_in_plan.record = record;
    set_signal_mask(kAllSignals);
    run_child(*stand_in_host, live_until_user_code(stand_in_plan, Descriptor(mailbox)));
}

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
