#include "cli/signal_queue.hpp"

#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <array>

namespace warmfork::cli {
namespace {

/// What is sent to the program that somebody believes to talk to, and what a timer sends that was
/// set before this program was executed (alarm). Faults are this process's own. With these, all
/// real-time signals.
constexpr std::array kForwarded{SIGTERM, SIGHUP,  SIGUSR1,   SIGUSR2,   SIGQUIT,
                                SIGINT,  SIGABRT, SIGALRM,   SIGVTALRM, SIGPROF,
                                SIGIO,   SIGPWR,  SIGSTKFLT, SIGXCPU,   SIGWINCH};
// This process's own writing is what they come of.
constexpr std::array kOfWriting{SIGPIPE, SIGXFSZ};
constexpr std::array kOfTerminal{SIGHUP, SIGQUIT, SIGINT, SIGWINCH, SIGTSTP, SIGCONT};

/// It stands for the process group that the process leads, in linux/pidfd.h since Linux 6.9.
constexpr unsigned int kPidfdSignalProcessGroup = 1u << 2;

}  // namespace

SignalQueue::SignalQueue(bool for_terminal) : stands_for_terminal_(for_terminal) {
    ::sigemptyset(&set_);
    for (int signal : kForwarded) add(signal);
    for (int signal = SIGRTMIN; signal <= SIGRTMAX; ++signal) add(signal);
    if (for_terminal) add(SIGTSTP);
    ::sigprocmask(SIG_BLOCK, &set_, &before_);
    descriptor_ = ::signalfd(-1, &set_, SFD_CLOEXEC | SFD_NONBLOCK);
}

SignalQueue::~SignalQueue() {
    ::close(descriptor_);
}

void SignalQueue::leave_terminal_to_child() {
    stands_for_terminal_ = false;
    if (::sigismember(&set_, SIGTSTP) != 1) return;
    ::sigdelset(&set_, SIGTSTP);
    ::signalfd(descriptor_, &set_, 0);
    sigset_t stop;
    ::sigemptyset(&stop);
    ::sigaddset(&stop, SIGTSTP);
    if (::sigismember(&before_, SIGTSTP) == 0) ::sigprocmask(SIG_UNBLOCK, &stop, nullptr);
}

bool SignalQueue::has_ending() const {
    sigset_t pending;
    if (::sigpending(&pending) < 0) return false;
    for (int signal = 1; signal <= SIGRTMAX; ++signal)
        if (signal != SIGWINCH && signal != SIGTSTP && signal != SIGCONT &&
            ::sigismember(&pending, signal) == 1 && ::sigismember(&set_, signal) == 1 &&
            ::sigismember(&before_, signal) == 0)
            return true;
    return false;
}

void SignalQueue::stay_for_terminal() {
    ::sigaddset(&set_, SIGCONT);
    for (int signal : kOfWriting) add(signal);
    ::sigprocmask(SIG_BLOCK, &set_, nullptr);
    ::signalfd(descriptor_, &set_, 0);
}

std::uint64_t SignalQueue::mask_before() const {
    std::uint64_t mask = 0;
    for (int signal = 1; signal <= 64; ++signal)
        if (::sigismember(&before_, signal) == 1) mask |= std::uint64_t{1} << (signal - 1);
    return mask;
}

std::optional<ArrivedSignal> SignalQueue::next() {
    signalfd_siginfo info;
    // What comes of this process's own writing is for nobody.
    do
        if (::read(descriptor_, &info, sizeof info) != sizeof info) return {};
    while (info.ssi_pid == static_cast<std::uint32_t>(::getpid()));
    const int number = static_cast<int>(info.ssi_signo);
    const bool is_of_terminal =
        std::find(kOfTerminal.begin(), kOfTerminal.end(), number) != kOfTerminal.end();
    return ArrivedSignal{number, is_of_terminal && info.ssi_code == SI_KERNEL};
}

void SignalQueue::forward_to(Process& child) {
    while (const std::optional<ArrivedSignal> signal = next()) {
        if (stands_for_terminal_ && signal->is_from_terminal)
            signal_group(child, signal->number);
        else if (!signal->is_from_terminal)
            signal_process(child, signal->number);
        if (signal->number != SIGTSTP) continue;
        stop_self();
        signal_group(child, SIGCONT);
    }
}

void SignalQueue::add(int signal) {
    struct sigaction action;
    if (::sigaction(signal, nullptr, &action) == 0 && action.sa_handler != SIG_IGN)
        ::sigaddset(&set_, signal);
}

void signal_process(Process& child, int signal) {
    try {
        child.signal(signal);
    } catch (const Error&) {
        // The child has ended.
    }
}

void signal_group(Process& child, int signal) {
    if (::syscall(SYS_pidfd_send_signal, child.pidfd(), signal, nullptr, kPidfdSignalProcessGroup) <
        0)
        signal_process(child, signal);
}

void stop_self() {
    sigset_t stop;
    ::sigemptyset(&stop);
    ::sigaddset(&stop, SIGTSTP);
    ::raise(SIGTSTP);
    ::sigprocmask(SIG_UNBLOCK, &stop, nullptr);
    ::sigprocmask(SIG_BLOCK, &stop, nullptr);
}

}  // namespace warmfork::cli
