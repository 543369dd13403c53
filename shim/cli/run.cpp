#include <fmt/format.h>
#include <poll.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <array>
#include <cstring>
#include <optional>

#include "cli/commands.hpp"
#include "cli/inherited.hpp"
#include "cli/screen.hpp"
#include "link/execute.hpp"
#include "link/real_program.hpp"
#include "link/use_count.hpp"
#include "owner/backend.hpp"

namespace warmfork::cli {
namespace {

constexpr int kNotStarted = 125;
constexpr int kNotFound = 127;

/// What a terminal, a shell or a service manager sends to the program it believes to talk to.
constexpr std::array kForwarded{SIGTERM, SIGHUP, SIGUSR1, SIGUSR2, SIGQUIT, SIGINT, SIGWINCH};

/// Of linux/pidfd.h, since Linux 6.9: the process group that the process leads.
constexpr unsigned int kPidfdSignalProcessGroup = 1u << 2;

/// Signals as events: blocked from here on, and passed on to a child.
class SignalQueue {
  public:
    /// `for_terminal`: what a terminal sends to this process group does not reach a child of the
    /// service, which is in a session of its own. It is passed on too, and Ctrl-Z stops both.
    explicit SignalQueue(bool for_terminal) : stands_for_terminal_(for_terminal) {
        ::sigemptyset(&set_);
        for (int signal : kForwarded) add(signal);
        if (for_terminal) add(SIGTSTP);
        ::sigprocmask(SIG_BLOCK, &set_, &before_);
        descriptor_ = ::signalfd(-1, &set_, SFD_CLOEXEC | SFD_NONBLOCK);
    }
    SignalQueue(const SignalQueue&) = delete;
    SignalQueue& operator=(const SignalQueue&) = delete;
    ~SignalQueue() { ::close(descriptor_); }

    /// The child is in this process group after all: what has come meanwhile, it has got too.
    void leave_terminal_to_child() {
        stands_for_terminal_ = false;
        if (::sigismember(&set_, SIGTSTP) != 1) return;
        ::sigdelset(&set_, SIGTSTP);
        ::signalfd(descriptor_, &set_, 0);
        sigset_t stop;
        ::sigemptyset(&stop);
        ::sigaddset(&stop, SIGTSTP);
        if (::sigismember(&before_, SIGTSTP) == 0) ::sigprocmask(SIG_UNBLOCK, &stop, nullptr);
    }

    /// Signals are as they were, and what has come meanwhile takes effect.
    void give_back() { ::sigprocmask(SIG_SETMASK, &before_, nullptr); }

    int descriptor() const { return descriptor_; }
    std::uint64_t mask_before() const {
        std::uint64_t mask = 0;
        for (int signal = 1; signal <= 64; ++signal)
            if (::sigismember(&before_, signal) == 1) mask |= std::uint64_t{1} << (signal - 1);
        return mask;
    }

    /// Passes on what has arrived. What the kernel sent (the terminal's Ctrl-C) has reached a child
    /// in this process group already.
    void forward_to(Process& child) {
        signalfd_siginfo info;
        while (::read(descriptor_, &info, sizeof info) == sizeof info) {
            const int signal = static_cast<int>(info.ssi_signo);
            const bool is_from_kernel = info.ssi_code == SI_KERNEL;
            if (stands_for_terminal_ && is_from_kernel)
                signal_group(child, signal);
            else if (!is_from_kernel)
                signal_process(child, signal);
            if (signal == SIGTSTP) stop_with(child);
        }
    }

  private:
    void add(int signal) {
        struct sigaction action;
        // What the caller ignores (nohup) stays ignored, here and in the child.
        if (::sigaction(signal, nullptr, &action) == 0 && action.sa_handler != SIG_IGN)
            ::sigaddset(&set_, signal);
    }

    static void signal_process(Process& child, int signal) {
        try {
            child.signal(signal);
        } catch (const Error&) {
            // It has ended: its status is about to be fetched.
        }
    }

    /// As a terminal does: the child's own children too, where the kernel can say whose they are.
    static void signal_group(Process& child, int signal) {
        if (::syscall(SYS_pidfd_send_signal, child.pidfd(), signal, nullptr,
                      kPidfdSignalProcessGroup) < 0)
            signal_process(child, signal);
    }

    /// Stops this process as the signal does by default, which is not at all where no shell could
    /// continue it; goes on together with the child.
    static void stop_with(Process& child) {
        sigset_t stop;
        ::sigemptyset(&stop);
        ::sigaddset(&stop, SIGTSTP);
        ::raise(SIGTSTP);
        ::sigprocmask(SIG_UNBLOCK, &stop, nullptr);
        ::sigprocmask(SIG_BLOCK, &stop, nullptr);
        signal_group(child, SIGCONT);
    }

    sigset_t set_, before_;
    int descriptor_;
    bool stands_for_terminal_;
};

warmfork_backend backend_of(const std::string& name) {
    for (warmfork_backend backend :
         {WARMFORK_BACKEND_AUTO, WARMFORK_BACKEND_WARM, WARMFORK_BACKEND_COLD})
        if (name == warmfork_backend_name(backend)) return backend;
    return WARMFORK_BACKEND_DEFAULT;
}

/// Where there is none to be had the spawn is cold, or says why.
void wait_for_image(Template& python_template) {
    try {
        wait_with_progress(python_template);
    } catch (const Error&) {
    }
}

void say_how_served(const char* backend, std::string_view reason) {
    fmt::print(stderr, "warmfork: served {}{}{}\n", backend, reason.empty() ? "" : ": ", reason);
}

Process spawn(Template& from, const RunOptions& options, const SignalQueue& signals,
              InheritedDescriptors& inherited) {
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
    request.descriptors = inherited.pairs().data();
    request.descriptor_count = inherited.pairs().size();
    Process child = from.spawn(request);
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

/// Returns the status as of waitpid.
int wait_and_forward(Process& child, SignalQueue& signals) {
    pollfd polled[2] = {{child.pidfd(), POLLIN, 0}, {signals.descriptor(), POLLIN, 0}};
    while (!polled[0].revents) {
        ::poll(polled, 2, -1);
        signals.forward_to(child);
    }
    return status_of(child);
}

/// What to exit with as the child has, or, where a signal ended it, this process's end by the same:
/// so its caller would see the command itself. Nothing that has to be closed may be left.
int end_as(int status) {
    if (!WIFSIGNALED(status)) return WEXITSTATUS(status);
    ::prctl(PR_SET_DUMPABLE, 0, 0, 0, 0);  // the core file is the child's
    end_by(WTERMSIG(status));
}

int run_from_own(const RunOptions& options, warmfork_backend backend,
                 InheritedDescriptors& inherited) {
    SignalQueue signals(false);  // blocked before anything is started
    TemplateOptions from = options.from;
    complete(from, options.command);
    // For one child a fork on command does.
    Template python_template = open_template(from, 0, backend);
    if (backend != WARMFORK_BACKEND_COLD) wait_for_image(python_template);
    Process child = spawn(python_template, options, signals, inherited);
    return wait_and_forward(child, signals);
}

int run_from_service(const RunOptions& options, warmfork_backend backend,
                     InheritedDescriptors& inherited) {
    Template served = Template::connect(options.from.name, backend);
    // It may be preloading: until there is a child, Ctrl-C is for this process.
    if (backend != WARMFORK_BACKEND_COLD) wait_for_image(served);
    // Ahead of the spawn: a child that runs already and has not been told of a Ctrl-Z runs on.
    SignalQueue signals(true);
    Process child = spawn(served, options, signals, inherited);
    if (child.backend() != WARMFORK_BACKEND_WARM) signals.leave_terminal_to_child();
    return wait_and_forward(child, signals);
}

/// Becomes the command: only under this pid it finds itself meant. Returns only by an error.
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

/// A warm child, or the command itself.
int run_in_place(const RunOptions& options, InheritedDescriptors& inherited) {
    std::optional<Template> served;
    std::optional<SignalQueue> signals;
    std::optional<Process> child;
    try {
        served = Template::connect(options.from.name, WARMFORK_BACKEND_AUTO);
        signals.emplace(true);
        child = spawn(*served, options, *signals, inherited);
    } catch (const Error& error) {
        if (signals) signals->give_back();
        return become_real(options, error.what());
    }
    link::count_use(link::base_name(options.in_place_of.c_str()), true);
    return end_as(wait_and_forward(*child, *signals));
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
        return end_as(options.from.name.empty() ? run_from_own(options, backend, inherited)
                                                : run_from_service(options, backend, inherited));
    } catch (const Error& error) {
        fmt::print(stderr, "warmfork: {}\n", error.what());
        // Of the service it may also be the template that does not exist.
        const bool is_program = options.from.name.empty() || error.stage() == WARMFORK_STAGE_EXEC;
        return error.error_number() == ENOENT && is_program ? kNotFound : kNotStarted;
    }
}

}  // namespace warmfork::cli
