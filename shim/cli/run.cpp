#include <fmt/format.h>
#include <poll.h>
#include <signal.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include <array>

#include "cli/commands.hpp"
#include "owner/template_handle.hpp"

namespace warmfork::cli {
namespace {

constexpr int kNotStarted = 125;
constexpr int kNotFound = 127;

/// What a terminal, a shell or a service manager sends to the program it believes to talk to.
/// SIGTSTP and SIGCONT are not among them: the child is in the same process group and gets the
/// terminal's itself.
constexpr std::array kForwarded{SIGTERM, SIGHUP, SIGUSR1, SIGUSR2, SIGQUIT, SIGINT, SIGWINCH};

/// Signals as events: blocked here before anything is started.
class SignalQueue {
  public:
    SignalQueue() {
        ::sigemptyset(&set_);
        for (int signal : kForwarded) {
            struct sigaction action;
            // What the caller ignores (nohup) stays ignored, here and in the child.
            if (::sigaction(signal, nullptr, &action) == 0 && action.sa_handler != SIG_IGN)
                ::sigaddset(&set_, signal);
        }
        ::sigprocmask(SIG_BLOCK, &set_, &before_);
        descriptor_ = ::signalfd(-1, &set_, SFD_CLOEXEC | SFD_NONBLOCK);
    }
    SignalQueue(const SignalQueue&) = delete;
    SignalQueue& operator=(const SignalQueue&) = delete;
    ~SignalQueue() { ::close(descriptor_); }

    int descriptor() const { return descriptor_; }
    std::uint64_t mask_before() const {
        std::uint64_t mask = 0;
        for (int signal = 1; signal <= 64; ++signal)
            if (::sigismember(&before_, signal) == 1) mask |= std::uint64_t{1} << (signal - 1);
        return mask;
    }

    /// Passes on what has arrived. What the kernel sent (the terminal's Ctrl-C) has reached the
    /// child already, which is in this process group.
    void forward_to(Process& child) {
        signalfd_siginfo info;
        while (::read(descriptor_, &info, sizeof info) == sizeof info)
            if (info.ssi_code != SI_KERNEL)
                warmfork_signal(child, static_cast<int>(info.ssi_signo));
    }

  private:
    static void warmfork_signal(Process& child, int signal) {
        try {
            child.signal(signal);
        } catch (const Error&) {
            // It has ended: its status is about to be fetched.
        }
    }

    sigset_t set_, before_;
    int descriptor_;
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

int wait_and_forward(Process& child, SignalQueue& signals) {
    pollfd polled[2] = {{child.pidfd(), POLLIN, 0}, {signals.descriptor(), POLLIN, 0}};
    while (!polled[0].revents) {
        ::poll(polled, 2, -1);
        signals.forward_to(child);
    }
    const int status = child.wait();
    return WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
}

}  // namespace

int run_one(const RunOptions& options) {
    try {
        SignalQueue signals;
        TemplateOptions from = options.from;
        if (from.python.empty()) from.python = options.command.front();
        // For one child a fork on command does.
        const warmfork_backend backend =
            options.backend.empty() ? default_backend() : backend_of(options.backend);
        Template python_template = open_template(from, 0, backend);
        if (backend != WARMFORK_BACKEND_COLD) wait_for_image(python_template);
        const auto arguments = detail::pointers(options.command);
        warmfork_request request;
        warmfork_request_init(&request);
        request.arguments = arguments.data();
        request.flags = WARMFORK_SIGNAL_MASK;
        request.signal_mask = signals.mask_before();
        Process child = python_template.spawn(request);
        if (options.explain)
            fmt::print(stderr, "warmfork: served {}{}{}\n", child.backend_name(),
                       child.reason_text().empty() ? "" : ": ", child.reason_text());
        return wait_and_forward(child, signals);
    } catch (const Error& error) {
        fmt::print(stderr, "warmfork: {}\n", error.what());
        return error.error_number() == ENOENT ? kNotFound : kNotStarted;
    }
}

}  // namespace warmfork::cli
