#include <fmt/format.h>
#include <poll.h>
#include <signal.h>
#include <sys/prctl.h>
#include <unistd.h>

#include <cstdlib>
#include <cstring>
#include <optional>
#include <vector>

#include "cli/commands.hpp"
#include "cli/inherited.hpp"
#include "cli/progress.hpp"
#include "cli/screen.hpp"
#include "cli/signal_queue.hpp"
#include "cli/terminal.hpp"
#include "link/ask_service.hpp"
#include "link/execute.hpp"
#include "link/real_program.hpp"
#include "link/terminal_job.hpp"
#include "link/use_count.hpp"
#include "owner/backend.hpp"
#include "owner/image_source.hpp"

namespace warmfork::cli {
namespace {

constexpr int kNotStarted = 125;
constexpr int kNotFound = 127;

warmfork_backend backend_of(const std::string& name) {
    for (warmfork_backend backend :
         {WARMFORK_BACKEND_AUTO, WARMFORK_BACKEND_WARM, WARMFORK_BACKEND_COLD})
        if (name == warmfork_backend_name(backend)) return backend;
    return WARMFORK_BACKEND_DEFAULT;
}

/// As long as a spawn waits for one. Where there is none to be had the spawn is cold, or says why.
/// To be called while signals end this process, as they would end the command.
void wait_for_image(Template& python_template, warmfork_backend backend) {
    const bool insists = backend == WARMFORK_BACKEND_WARM;
    try {
        wait_with_progress(python_template, insists ? std::chrono::milliseconds(kWarmPatience)
                                                    : TemplateProcess::kReadyPatience);
    } catch (const Error& error) {
        // The spawn would wait as long once more.
        if (insists && error.error_number() == ETIMEDOUT) throw;
    }
}

void say_how_served(const char* backend, std::string_view reason) {
    fmt::print(stderr, "warmfork: served {}{}{}\n", backend, reason.empty() ? "" : ": ", reason);
}

/// A signal that comes while there is no child yet ends this process, as it would end the command.
Process spawn_unless_ended(Template& from, const warmfork_request& request, SignalQueue& signals) {
    const Interruption interruption([&] { return signals.has_ending(); });
    try {
        return from.spawn(request);
    } catch (const Error& error) {
        if (error.error_number() == EINTR) signals.give_back();
        throw;
    }
}

/// `terminals`: null: the child has the standard streams as they are.
Process spawn(Template& from, const RunOptions& options, SignalQueue& signals,
              InheritedDescriptors& inherited, const TerminalPair* terminals = nullptr) {
    auto arguments = detail::pointers(options.command);
    warmfork_request request;
    warmfork_request_init(&request);
    request.flags = WARMFORK_SIGNAL_MASK;
    if (const std::string& program = options.in_place_of; !program.empty()) {
        request.executable = program.c_str();
        request.flags |= WARMFORK_NOT_COLD;
        // A name is looked up past links, a path is not.
        if (std::strchr(arguments[0], '/') &&
            link::misleads(program.c_str(), arguments[0], nullptr))
            arguments[0] = program.c_str();
    }
    request.arguments = arguments.data();
    request.signal_mask = signals.mask_before();
    std::vector<warmfork_descriptor> descriptors = inherited.pairs();
    if (terminals) {
        request.flags |= WARMFORK_TERMINAL;
        for (int standard : {STDIN_FILENO, STDOUT_FILENO, STDERR_FILENO})
            descriptors.push_back({terminals->slave(), standard});
    }
    request.descriptors = descriptors.data();
    request.descriptor_count = descriptors.size();
    Process child = spawn_unless_ended(from, request, signals);
    inherited.leave_to_child();
    if (options.explain) say_how_served(child.backend_name(), child.reason_text());
    return child;
}

int status_of(Process& child) {
    try {
        return child.wait();
    } catch (const Error& error) {
        if (error.error_number() != EOWNERDEAD) throw;
        throw own_error(WARMFORK_STAGE_NONE, EOWNERDEAD,
                        "the command has ended, but its exit status died with the service, which "
                        "was killed");
    }
}

/// Waits for the child and forwards signals to it. Returns the status as of waitpid.
int wait_and_forward(Process& child, SignalQueue& signals) {
    // Where no number is free to see its end by, these are: the child has its own.
    for (int number : {STDIN_FILENO, STDOUT_FILENO})
        if (child.pidfd() == -EMFILE) ::close(number);
    pollfd polled[2] = {{child.pidfd(), POLLIN, 0}, {signals.descriptor(), POLLIN, 0}};
    while (polled[0].fd >= 0 && !polled[0].revents) {
        ::poll(polled, 2, -1);
        signals.forward_to(child);
    }
    return status_of(child);
}

/// Returns what to exit with as the child has, or, where a signal ended it, ends this process by
/// the same one, so that its caller sees what it would of the command itself. Nothing that has to
/// be closed may be left.
int end_as(int status) {
    if (!WIFSIGNALED(status)) return WEXITSTATUS(status);
    ::prctl(PR_SET_DUMPABLE, 0, 0, 0, 0);  // the core file is the child's
    end_by(WTERMSIG(status));
}

int run_from_own(const RunOptions& options, warmfork_backend backend,
                 InheritedDescriptors& inherited) {
    TemplateOptions from = options.from;
    complete(from, options.command);
    // A fork on command will do for one child.
    Template python_template = open_template(from, 0, backend);
    if (backend != WARMFORK_BACKEND_COLD) wait_for_image(python_template, backend);
    SignalQueue signals(false);
    Process child = spawn(python_template, options, signals, inherited);
    return wait_and_forward(child, signals);
}

/// Relays for a child that has a terminal of its own. Returns the status as of waitpid.
int relay(Process& child, SignalQueue& signals, TerminalPair& terminals) {
    TerminalRelay(child, signals, terminals).run();
    return status_of(child);
}

/// Runs the command with a terminal of its own where it is a whole job at one, and served warm.
/// Returns the status as of waitpid, or nothing where it is to be tried without such a terminal.
std::optional<int> run_at_terminal(Template& served, const RunOptions& options,
                                   SignalQueue& signals, InheritedDescriptors& inherited) {
    std::optional<TerminalPair> terminals;
    if (!inherited.has_terminal()) terminals = TerminalPair::open();
    if (!terminals) return {};
    std::optional<Process> child;
    try {
        child = spawn(served, options, signals, inherited, &*terminals);
    } catch (const Error&) {
        // A cold child has this process's terminal. So has a warm one of an older service. If
        // anything else is in its way, the next try says so.
        return {};
    }
    return relay(*child, signals, *terminals);
}

/// Runs the command from a template of the service. With `waits` it waits for an image that is
/// preloading.
int run_from_service(const RunOptions& options, const std::string& name, warmfork_backend backend,
                     bool waits, InheritedDescriptors& inherited) {
    Template served = Template::connect(name, backend);
    // Until there is a child, Ctrl-C is for this process.
    if (waits) wait_for_image(served, backend);
    // Ahead of the spawn: a child that runs already and has not been told of a Ctrl-Z runs on.
    SignalQueue signals(true);
    if (backend != WARMFORK_BACKEND_COLD)
        if (const auto status = run_at_terminal(served, options, signals, inherited))
            return *status;
    Process child = spawn(served, options, signals, inherited);
    if (child.backend() != WARMFORK_BACKEND_WARM) signals.leave_terminal_to_child();
    return wait_and_forward(child, signals);
}

/// Returns the template that the service has for the command, as a link in its place would find it.
/// It is empty where the service has none, none runs, or a template of this process's own is asked
/// for.
std::string template_for(const RunOptions& options, warmfork_backend backend) {
    const TemplateOptions& from = options.from;
    const bool is_own_wanted =
        !from.preload.empty() || !from.python.empty() || from.learn || !from.program.empty();
    if (backend != WARMFORK_BACKEND_AUTO || is_own_wanted) return {};
    const char* const word = options.command.front().c_str();
    const char* const name = link::base_name(word);
    // A link that is named by its path stands for another file as well.
    link::ProgramSearch search(name, std::getenv("PATH"));
    const bool is_file = name != word && !link::is_link_program(word);
    if (!is_file && !search.next()) return {};
    const auto arguments = detail::pointers(options.command);
    char found[link::kTemplateNameSize];
    return link::find_template(name, is_file ? word : search.path(),
                               const_cast<char* const*>(arguments.data()), found)
               ? found
               : std::string();
}

/// Runs the command from a template that was named, one that the service has for such commands, or
/// one of its own.
int run_from_any(const RunOptions& options, warmfork_backend backend,
                 InheritedDescriptors& inherited) {
    if (const std::string& name = options.from.name; !name.empty())
        return run_from_service(options, name, backend, backend != WARMFORK_BACKEND_COLD,
                                inherited);
    const std::string found = template_for(options, backend);
    // It was not asked for, so that nobody waits for it longer than for the command itself.
    return found.empty() ? run_from_own(options, backend, inherited)
                         : run_from_service(options, found, backend, false, inherited);
}

/// Becomes the command: only under this pid does it find itself meant. Returns only by an error.
[[noreturn]] void become(const RunOptions& options, warmfork_backend backend,
                         const std::string& variable) {
    const std::string reason = fmt::format(
        "{} in the environment is meant for this process, and not for a child of it", variable);
    if (backend == WARMFORK_BACKEND_WARM)
        throw own_error(WARMFORK_STAGE_ELIGIBILITY, ENOTSUP, "cannot be served warm: " + reason);
    if (options.explain) say_how_served("cold", reason);
    const auto arguments = detail::pointers(options.command);
    ::execvp(arguments[0], const_cast<char* const*>(arguments.data()));
    throw own_error(WARMFORK_STAGE_EXEC, errno, "cannot execute " + options.command.front());
}

/// Becomes the command that a link stands in place of. Returns the status of a failure.
int become_real(const RunOptions& options, std::string_view reason) {
    if (options.explain) say_how_served("cold", reason);
    const auto arguments = detail::pointers(options.command);
    const char* const program = options.in_place_of.c_str();
    link::count_use(link::base_name(program), false);
    const int error = link::execute(program, const_cast<char* const*>(arguments.data()), environ);
    return link::report_failure(program, true, error);
}

/// Runs a warm child, or becomes the command itself.
int run_in_place(const RunOptions& options, InheritedDescriptors& inherited) {
    std::optional<Template> served;
    std::optional<SignalQueue> signals;
    std::optional<TerminalPair> terminals;
    std::optional<Process> child;
    try {
        served = Template::connect(options.from.name, WARMFORK_BACKEND_AUTO);
        signals.emplace(true);
        const bool is_job = link::is_whole_job_at_terminal();
        if (is_job && !inherited.has_terminal()) terminals = TerminalPair::open();
        if (is_job && !terminals)
            throw own_error(WARMFORK_STAGE_ELIGIBILITY, ENOTSUP,
                            "the child cannot have a terminal of its own");
        child = spawn(*served, options, *signals, inherited, terminals ? &*terminals : nullptr);
    } catch (const Error& error) {
        if (signals) signals->give_back();
        return become_real(options, error.what());
    }
    link::count_use(link::base_name(options.in_place_of.c_str()), true);
    const int status =
        terminals ? relay(*child, *signals, *terminals) : wait_and_forward(*child, *signals);
    terminals.reset();
    return end_as(status);
}

}  // namespace

int run_one(const RunOptions& options) {
    try {
        InheritedDescriptors inherited;  // before there are others
        const warmfork_backend backend =
            options.backend.empty() ? default_backend() : backend_of(options.backend);
        if (const std::string variable = variable_with_own_pid(); !variable.empty()) {
            if (!options.in_place_of.empty()) return become_real(options, variable);
            become(options, backend, variable);
        }
        if (!options.in_place_of.empty()) return run_in_place(options, inherited);
        return end_as(run_from_any(options, backend, inherited));
    } catch (const Error& error) {
        fmt::print(stderr, "warmfork: {}\n", error.what());
        // With the service it may also be the template that does not exist.
        const bool is_program = options.from.name.empty() || error.stage() == WARMFORK_STAGE_EXEC;
        return error.error_number() == ENOENT && is_program ? kNotFound : kNotStarted;
    }
}

}  // namespace warmfork::cli
