#define PY_SSIZE_T_CLEAN
#define Py_LIMITED_API 0x03090000
#include "python/python_host.hpp"

#include <errno.h>
#include <unistd.h>

#include <utility>

#include "channel/descriptor.hpp"
#include "child/setup.hpp"
#include "python/departure.hpp"
#include "python/environment.hpp"
#include "python/finalization.hpp"
#include "python/import_times.hpp"
#include "python/prepare_command.hpp"
#include "python/python_objects.hpp"
#include "python/python_program.hpp"
#include "python/twister.hpp"
#include "template/atfork.hpp"

namespace warmfork::python {
namespace {

// It lies above the numbers that a program's own files get, as it does in the preload library.
constexpr int kLowestChannel = 200;

// The control socket of a child that is to become a template, or -1 where this process is none.
int channel_of_layer = -1;

void begin_layer(int channel) {
    const PreloadInterface* preload = find_preload();
    if (!preload) ::_exit(kFailedStatus);
    save_environment();
    preload->resume_recording();
    channel_of_layer = moved_up(Descriptor(channel), kLowestChannel).release();
}

}  // namespace

void end_unless(bool is_right) {
    if (is_right) return;
    PyErr_Print();
    ::_exit(kFailedStatus);
}

bool is_layer() {
    return channel_of_layer >= 0;
}

int layer_channel() {
    return channel_of_layer;
}

int take_layer_channel() {
    return std::exchange(channel_of_layer, -1);
}

void PythonHost::call_hook() {
    if (hook_ == Py_None) return;
    // What it raises is no concern of a spawn that happens to come along.
    if (Reference result(PyObject_CallObject(hook_, nullptr)); !result) PyErr_Print();
}

void PythonHost::part_from_siblings() {
    end_unless(seed_twister());
    end_unless(bool(Reference(PyObject_CallMethod(child_, "part_from_siblings", nullptr))));
    get_ready();
}

void PythonHost::get_ready() {
    end_unless(make_ready(child_));
}

void PythonHost::rehearse() {
    Reference source(PyObject_CallMethod(child_, "rehearsal", "I", standard_pipes()));
    Reference encoded(source ? PyUnicode_EncodeFSDefault(source.get()) : nullptr);
    end_unless(bool(encoded));
    get_ready();
    rehearse_program(PyBytes_AsString(encoded.get()));
}

/// Runs a program as a command line would be, and makes a fresh start of it.
void PythonHost::rehearse_program(char* source) {
    char option[] = "-c";
    std::string program = ready_executable();
    char* arguments[] = {program.data(), option, source};
    ChildCommand command{};
    command.arguments = arguments;
    // They are told as they are: what the signal module is told now it believes when the command
    // comes.
    for (int signal = 1; signal <= kSignalCount; ++signal)
        if (dispositions_[signal - 1].sa_handler == SIG_IGN)
            command.signals_ignored |= std::uint64_t{1} << (signal - 1);
    Reference prepared = prepare(child_, command, true);
    end_unless(prepared &&
               run_prepared(child_, std::move(prepared), known_codes()) == ProgramEnd::done);
    get_ready();
}

void PythonHost::run(const ChildCommand& command) {
    const bool is_layer = command.channel >= 0;
    if (is_layer)
        begin_layer(command.channel);
    else if (!import_log_.empty())
        report_imports_at_exit(import_log_);
    end_unless(begin_own_objects());
    // A layer's children run the hook; it itself does not, as in a rehearsal.
    Reference prepared = prepare(child_, command, is_layer);
    // Not before Python knows which signals are ignored.
    if (!set_signal_mask(command.signal_mask)) ::_exit(kFailedStatus);
    const ProgramEnd end =
        prepared ? run_prepared(child_, std::move(prepared), known_codes()) : fail_with_traceback();
    finalize_and_exit(end == ProgramEnd::done ? 0 : kFailedStatus, end == ProgramEnd::interrupted);
}

}  // namespace warmfork::python
