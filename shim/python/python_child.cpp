#define PY_SSIZE_T_CLEAN
#define Py_LIMITED_API 0x03090000
#include "python_child.hpp"

#include <dlfcn.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/random.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <iterator>
#include <string>
#include <utility>

#include "child/setup.hpp"
#include "departure.hpp"
#include "finalization.hpp"
#include "frozen_image.hpp"
#include "import_times.hpp"
#include "original_arguments.hpp"
#include "owner/python_command.hpp"
#include "owner/twin.hpp"
#include "python_objects.hpp"
#include "python_program.hpp"
#include "template/atfork.hpp"
#include "template/serve.hpp"
#include "text_pages.hpp"

namespace warmfork::python {
namespace {

constexpr int kFailedStatus = 1;

constexpr int kSignalCount = 64;

// Above the numbers that a program's own files get, as the preload library has it.
constexpr int kLowestChannel = 200;

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
Reference environment_dictionary(char** variable) {
    Reference dictionary(PyDict_New());
    for (; dictionary && *variable; ++variable) {
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

/// What warmfork._child.make_ready has left to be done for a `python3 -c` over pipes.
struct Readiness {
    bool is_quick = false;       ///< nothing but argv and the like
    bool inserts_path = false;   ///< "" comes in front of sys.path
    unsigned long long ignored;  ///< signals that need not be looked at
    std::string executable;
    PyObject* known_codes = nullptr;  ///< by their text
    bool keeps_moment = false;        ///< take_moment is to be called
};
Readiness readiness;

void read_readiness(PyObject* tuple) {
    const char* executable;
    int is_quick, inserts_path, keeps_moment;
    PyObject* known_codes;
    if (!PyArg_ParseTuple(tuple, "ppKyOp", &is_quick, &inserts_path, &readiness.ignored,
                          &executable, &known_codes, &keeps_moment))
        return;
    readiness.keeps_moment = keeps_moment;
    Py_INCREF(known_codes);
    readiness.known_codes = known_codes;
    readiness.is_quick = is_quick;
    readiness.inserts_path = inserts_path;
    readiness.executable = executable;
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

// The environment that the record has brought, as `renew_environment` found it last.
std::vector<std::string> applied_environment;

/// os.environ made equal to environ, unless it is.
bool renew_environment(PyObject* child) {
    std::vector<std::string>& applied = applied_environment;
    char** variable = environ;
    std::size_t same = 0;
    while (*variable && same < applied.size() && applied[same] == *variable) ++variable, ++same;
    if (!applied.empty() && !*variable && same == applied.size()) return true;
    applied.clear();
    for (variable = environ; *variable; ++variable) applied.emplace_back(*variable);
    Reference environment = environment_dictionary(environ);
    return environment &&
           Reference(PyObject_CallMethod(child, "set_environment", "O", environment.get()));
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

/// A list in sys, which modules may have by name: filled anew, if it is one.
bool set_list(const char* name, PyObject* items) {
    PyObject* list = PySys_GetObject(name);  // borrowed
    if (!list || !PyList_CheckExact(list)) return PySys_SetObject(name, items) == 0;
    return PyList_SetSlice(list, 0, PyList_Size(list), items) == 0;
}

/// warmfork._child.prepare for the most usual command line.
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

/// Brings the interpreter into the state in which a fresh one begins this command line; what it
/// returns is for `run_prepared`.
Reference prepare(PyObject* child, const ChildCommand& command, bool is_rehearsal) {
    const PythonCommand parsed = parse_python_command(command.arguments);
    Reference arguments = list_of_strings(command.arguments);
    Reference operand(PyUnicode_DecodeFSDefault(parsed.operand.c_str()));
    if (!arguments || !operand || !renew_environment(child) ||
        !set_original_arguments(arguments.get()) ||
        (readiness.keeps_moment && !Reference(PyObject_CallMethod(child, "take_moment", nullptr))))
        return Reference(nullptr);
    if (is_quick(parsed, command)) return prepare_quickly(arguments.get(), parsed, operand.get());
    return Reference(PyObject_CallMethod(child, "prepare", "OsnOKIi", arguments.get(),
                                         name_of(parsed.kind),
                                         static_cast<Py_ssize_t>(parsed.program), operand.get(),
                                         static_cast<unsigned long long>(command.signals_ignored),
                                         standard_pipes(), int{is_rehearsal}));
}

/// Calls `add` with each of a sequence's bytes objects. False with an exception set.
template <typename Add>
bool for_each_text(PyObject* sequence, Add add) {
    StringArray strings;
    if (!strings.read(sequence)) return false;
    for (const char* const* string = strings.get(); *string; ++string) add(*string);
    return true;
}

/// What warmfork._template says of the image: see its `_describe`.
bool read_facts(PyObject* tuple, ImageFacts& facts) {
    PyObject *variables, *sources, *caches, *places, *shadowable;
    int reads_all;
    if (!PyArg_ParseTuple(tuple, "OpOOOO", &variables, &reads_all, &sources, &caches, &places,
                          &shadowable))
        return false;
    facts.reads_all_variables = reads_all;
    const auto into = [](std::set<std::string>& set) {
        return [&set](const char* text) { set.insert(text); };
    };
    if (!for_each_text(variables, into(facts.variables)) ||
        !for_each_text(sources, into(facts.sources)) ||
        !for_each_text(caches, into(facts.caches)) ||
        !for_each_text(shadowable, into(facts.shadowable)))
        return false;
    for (Py_ssize_t i = 0; i < PySequence_Size(places); ++i) {
        Reference pair(PySequence_GetItem(places, i));
        const char* path;
        PyObject* names;
        if (!pair || !PyArg_ParseTuple(pair.get(), "yO", &path, &names) ||
            !for_each_text(names, into(facts.places[path])))
            return false;
    }
    return true;
}

/// Pairs of bytes objects. False with an exception set.
bool read_findings(PyObject* list, std::vector<Finding>& findings) {
    for (Py_ssize_t i = 0; i < PyList_Size(list); ++i) {
        const char *name, *text;
        if (!PyArg_ParseTuple(PyList_GetItem(list, i), "yy", &name, &text)) return false;
        findings.push_back({name, text});
    }
    return !PyErr_Occurred();
}

class PythonHost : public Host {
  public:
    /// `hook`: called before each fork; None: nothing.
    /// `import_log`: the file where children report what they imported; empty: nowhere.
    /// `obstacle`, `findings`: see Host.
    PythonHost(PyObject* child, PyObject* hook, const char* report, ImageFacts facts,
               const char* import_log, const char* obstacle, std::vector<Finding> findings)
        : child_(child),
          hook_(hook),
          report_(report),
          facts_(std::move(facts)),
          import_log_(import_log),
          obstacle_(obstacle),
          findings_(std::move(findings)) {
        for (int signal = 1; signal <= kSignalCount; ++signal)
            ::sigaction(signal, nullptr, &dispositions_[signal - 1]);
        ::sigaltstack(nullptr, &signal_stack_);
        // Serving never comes back to Python, whose handler would only note the signal: a template
        // that is interrupted ends, as one that is terminated does. It is in no terminal's group.
        if (dispositions_[SIGINT - 1].sa_handler != SIG_IGN) ::signal(SIGINT, SIG_DFL);
    }

    void before_fork() override {
        call_hook();
        PyOS_BeforeFork();
    }
    void after_fork_in_template() override { PyOS_AfterFork_Parent(); }
    void after_fork_in_child() override { PyOS_AfterFork_Child(); }
    int keep_twin(const ProcessIdentity& twin, Descriptor channel,
                  const ImageFacts& facts) override {
        return warmfork::keep_twin(twin, std::move(channel), facts);
    }
    void part_from_siblings() override;
    void rehearse() override;
    std::string obstacle() override { return obstacle_; }
    std::vector<Finding> findings() override { return findings_; }
    void describe(ImageFacts& facts) override {
        facts.variables.merge(facts_.variables);
        facts.reads_all_variables |= facts_.reads_all_variables;
        facts.sources.merge(facts_.sources);
        facts.caches.merge(facts_.caches);
        facts.shadowable.merge(facts_.shadowable);
        for (auto& [path, modules] : facts_.places) facts.places[path].merge(modules);
    }
    std::string report() override { return report_; }

    /// Those of the interpreter and of preloaded modules, which a fresh interpreter would have
    /// installed too, except where a signal is ignored from the start.
    void install_signals(std::uint64_t ignored) override {
        for (int signal = 1; signal <= kSignalCount; ++signal) {
            const struct sigaction& disposition = dispositions_[signal - 1];
            if (disposition.sa_handler != SIG_DFL && !(ignored >> (signal - 1) & 1))
                ::sigaction(signal, &disposition, nullptr);
        }
        if (!(signal_stack_.ss_flags & SS_DISABLE)) ::sigaltstack(&signal_stack_, nullptr);
    }
    [[noreturn]] void run(const ChildCommand& command) override;

  private:
    void call_hook();
    void make_ready();
    void run_and_forget(char* source);

    PyObject* child_;
    PyObject* hook_;
    std::string report_;
    ImageFacts facts_;
    std::string import_log_;
    std::string obstacle_;
    std::vector<Finding> findings_;
    struct sigaction dispositions_[kSignalCount] {};
    stack_t signal_stack_{};
};

void end_unless(bool is_right) {
    if (is_right) return;
    PyErr_Print();
    ::_exit(kFailedStatus);
}

/// State of numpy's generator MT19937.
struct Twister {
    std::uint32_t key[624];
    int position;
};
// That of the functions of numpy.random; null: there is none, or another one.
Twister* twister = nullptr;

/// As numpy.random.seed() has it, but without any of numpy's code, which reads and writes a hundred
/// pages for these few bytes.
bool seed_twister() {
    if (!twister) return true;
    auto* bytes = reinterpret_cast<char*>(twister->key);
    for (std::size_t done = 0; done < sizeof twister->key;) {
        const ssize_t drawn = ::getrandom(bytes + done, sizeof twister->key - done, 0);
        if (drawn < 0 && errno != EINTR) {
            PyErr_SetFromErrno(PyExc_OSError);
            return false;
        }
        done += static_cast<std::size_t>(std::max<ssize_t>(drawn, 0));
    }
    twister->key[0] = 0x80000000;  // not all of it is 0
    twister->position = std::size(twister->key);
    return true;
}

void PythonHost::call_hook() {
    if (hook_ == Py_None) return;
    // What it raises is not the business of a spawn that comes along.
    if (Reference result(PyObject_CallObject(hook_, nullptr)); !result) PyErr_Print();
}

void PythonHost::part_from_siblings() {
    end_unless(seed_twister());
    end_unless(bool(Reference(PyObject_CallMethod(child_, "part_from_siblings", nullptr))));
    make_ready();
}

void PythonHost::make_ready() {
    Reference ready(PyObject_CallMethod(child_, "make_ready", nullptr));
    if (ready) read_readiness(ready.get());
    end_unless(!PyErr_Occurred());
}

void PythonHost::rehearse() {
    Reference source(PyObject_CallMethod(child_, "rehearsal", "I", standard_pipes()));
    Reference encoded(source ? PyUnicode_EncodeFSDefault(source.get()) : nullptr);
    end_unless(bool(encoded));
    make_ready();
    run_and_forget(PyBytes_AsString(encoded.get()));
}

/// Runs a program as a command line would be, and makes a fresh start of it.
void PythonHost::run_and_forget(char* source) {
    char option[] = "-c";
    std::string program = readiness.executable;
    char* arguments[] = {program.data(), option, source};
    ChildCommand command{};
    command.arguments = arguments;
    // As they are: what the signal module is told now it believes when the command comes.
    for (int signal = 1; signal <= kSignalCount; ++signal)
        if (dispositions_[signal - 1].sa_handler == SIG_IGN)
            command.signals_ignored |= std::uint64_t{1} << (signal - 1);
    Reference prepared = prepare(child_, command, true);
    end_unless(prepared && run_prepared(child_, std::move(prepared), readiness.known_codes) ==
                               ProgramEnd::done);
    make_ready();
}

// Of a child that is to become a template: the control socket; -1: this process is none.
int layer_channel = -1;
// What the template that this process came from has left for layers on it: see `_Image`.
PyObject* image = nullptr;

/// Copies of what the record has brought, which lies where the records of this process's own
/// children will: modules may keep what getenv returned.
void keep_environment() {
    std::size_t count = 0;
    while (environ[count]) ++count;
    auto** kept = static_cast<char**>(std::calloc(count + 1, sizeof(char*)));
    for (std::size_t i = 0; kept && i < count; ++i)
        if (!(kept[i] = ::strdup(environ[i]))) kept = nullptr;
    if (!kept) ::_exit(kFailedStatus);
    environ = kept;
}

void begin_layer(int channel) {
    const PreloadInterface* preload = find_preload();
    if (!preload) ::_exit(kFailedStatus);
    keep_environment();
    preload->resume_recording();
    layer_channel = moved_up(Descriptor(channel), kLowestChannel).release();
}

void PythonHost::run(const ChildCommand& command) {
    const bool is_layer = command.channel >= 0;
    if (is_layer)
        begin_layer(command.channel);
    else if (!import_log_.empty())
        report_imports_at_exit(import_log_);
    end_unless(begin_own_objects());
    // A layer's children run the hook, it itself does not, as in a rehearsal.
    Reference prepared = prepare(child_, command, is_layer);
    // Not before Python knows which signals are ignored.
    set_signal_mask(command.signal_mask);
    const ProgramEnd end = prepared
                               ? run_prepared(child_, std::move(prepared), readiness.known_codes)
                               : fail_with_traceback();
    finalize_and_exit(end == ProgramEnd::done ? 0 : kFailedStatus, end == ProgramEnd::interrupted);
}

/// Outside of the stable ABI as well, and the same since Python 2.
using DeleteThreadState = void (*)();
DeleteThreadState delete_thread_state_function() {
    return reinterpret_cast<DeleteThreadState>(
        ::dlsym(RTLD_DEFAULT, "PyThreadState_DeleteCurrent"));
}

/// Python frames that are on the stack now are not below what this thread runs from here on: it
/// gets another thread state, as if it had just begun. There is no way back to them.
/// What is in a thread state by itself, as numpy's handling of errors, goes along; `restore` puts
/// back the rest.
bool leave_python_frames(DeleteThreadState delete_current, PyObject* restore) {
    Reference kept(PyDict_New());
    PyObject* values = PyThreadState_GetDict();  // borrowed
    if (!kept || !values || PyDict_Update(kept.get(), values) < 0) return false;
    // Before 3.13 an interpreter without any thread state is taken for one that is ending.
    if (!is_version_from(0x030d0000)) PyThreadState_New(PyInterpreterState_Get());
    PyThreadState_Clear(PyThreadState_Get());
    delete_current();
    PyGILState_Ensure();
    values = PyThreadState_GetDict();
    return values && PyDict_Update(values, kept.get()) == 0 &&
           Reference(PyObject_CallObject(restore, nullptr));
}

/// What PyOS_AfterFork_Child calls: looked up by the loader here, once, and not in each child.
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

// The benchmark's stand-in for a template.
InheritedState stand_in;

}  // namespace

PyObject* announce(PyObject*, PyObject*) {
    const int error = announce_template(layer_channel);
    if (error == 0) Py_RETURN_NONE;
    if (error == ENOTCONN)
        return PyErr_Format(PyExc_RuntimeError,
                            "this interpreter was not started as a template, but by what was");
    errno = error;
    return PyErr_SetFromErrno(PyExc_OSError);
}

PyObject* start_environment(PyObject*, PyObject*) {
    if (layer_channel >= 0) {
        std::vector<char*> variables;
        for (std::string& variable : applied_environment) variables.push_back(variable.data());
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

PyObject* extended_image(PyObject*, PyObject*) {
    PyObject* extended = layer_channel >= 0 && image ? image : Py_None;
    Py_INCREF(extended);
    return extended;
}

PyObject* current_environment(PyObject*, PyObject*) {
    return environment_dictionary(environ).release();
}

PyObject* keep_twister(PyObject*, PyObject* arguments) {
    PyObject* capsule;
    const char* key;
    Py_ssize_t size;
    int position;
    if (!PyArg_ParseTuple(arguments, "Oy#i", &capsule, &key, &size, &position)) return nullptr;
    // The first field of bitgen_t, which numpy's headers have.
    auto* const* generator = static_cast<Twister**>(PyCapsule_GetPointer(capsule, "BitGenerator"));
    if (!generator) return nullptr;
    const bool is_known = size == sizeof Twister::key &&
                          std::memcmp((*generator)->key, key, sizeof Twister::key) == 0 &&
                          (*generator)->position == position;
    twister = is_known ? *generator : nullptr;
    return PyBool_FromLong(is_known);
}

PyObject* prepare_to_become_child(PyObject*, PyObject* child) {
    Py_INCREF(child);
    stand_in.host = new PythonHost(child, Py_None, "", {}, "", "", {});
    stand_in.image = read_image_addresses();
    stand_in.soft_descriptor_limit = stand_in.hard_descriptor_limit = RLIM_INFINITY;
    rlimit limit{};
    if (::getrlimit(RLIMIT_NOFILE, &limit) == 0) {
        stand_in.soft_descriptor_limit = limit.rlim_cur;
        stand_in.hard_descriptor_limit = limit.rlim_max;
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
    std::vector<int> descriptors;
    for (Py_ssize_t i = 0; i + 1 < PySequence_Size(pairs); i += 2) {
        long source, target;
        if (!read_integer(pairs, i, source) || !read_integer(pairs, i + 1, target)) return nullptr;
        descriptors.push_back(static_cast<int>(source));
        contents.descriptor_targets.push_back(static_cast<int>(target));
    }
    descriptors.push_back(::open(".", O_PATH | O_CLOEXEC));
    std::vector<std::byte> record;
    if (encode_record(contents, record) != 0 || !stand_in.host) {
        PyErr_SetString(PyExc_ValueError, "not a valid command for a child");
        return nullptr;
    }
    set_signal_mask(kAllSignals);
    // It does not come back: see PythonHost::run.
    static_cast<void>(run_child({.inherited = &stand_in,
                                 .mailbox = mailbox,
                                 .record = record,
                                 .descriptors = descriptors}));
    ::_exit(kFailedStatus);
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
    const int channel = std::exchange(layer_channel, -1);
    const auto failure =
        channel >= 0 ? open_layer(*host, Descriptor(channel)) : open_channel(*host);
    if (failure) {
        // The owner has the reason already, by the channel or by this line.
        PySys_FormatStderr("%s\n", failure->text.c_str());
        finalize_template_and_exit(kFailedStatus);
    }
    // No child comes back to here: see PythonHost::run.
    ChildCommand command{};
    static_cast<void>(warmfork::serve(command));
    finalize_template_and_exit(0);
}

}  // namespace warmfork::python
