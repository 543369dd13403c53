#include "cli/screen.hpp"

#include <poll.h>
#include <sys/ioctl.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstdlib>
#include <string_view>

namespace warmfork::cli {
namespace {

/// Takes the alternate screen, hides the cursor, and has lines cut that are longer than the
/// terminal is wide.
constexpr std::string_view kEnter = "\033[?1049h\033[?25l\033[?7l";
constexpr std::string_view kLeave = "\033[?7h\033[?25h\033[?1049l";

/// These end the program, or have the screen drawn anew. What the caller ignores stays ignored.
constexpr std::array kEvents{SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGTSTP, SIGCONT, SIGWINCH};
/// These are the program's own mistakes, and a board that is cut short while it is read.
constexpr std::array kMistakes{SIGBUS, SIGSEGV, SIGABRT};

const Screen* shown = nullptr;  ///< for the handler of kMistakes

bool write_all(std::string_view text) {
    while (!text.empty()) {
        const ssize_t size = ::write(STDOUT_FILENO, text.data(), text.size());
        if (size < 0 && errno == EAGAIN) {
            pollfd polled{STDOUT_FILENO, POLLOUT, 0};
            ::poll(&polled, 1, -1);
        } else if (size < 0 && errno != EINTR) {
            return false;
        } else if (size > 0) {
            text.remove_prefix(static_cast<std::size_t>(size));
        }
    }
    return true;
}

}  // namespace

Screen::Screen() {
    has_keys_ = ::tcgetattr(STDIN_FILENO, &saved_) == 0;
    sigset_t set;
    ::sigemptyset(&set);
    for (int signal : kEvents) {
        struct sigaction action;
        if (::sigaction(signal, nullptr, &action) == 0 && action.sa_handler != SIG_IGN)
            ::sigaddset(&set, signal);
    }
    ::sigprocmask(SIG_BLOCK, &set, &before_);
    signals_ = ::signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
    shown = this;
    struct sigaction action {};
    action.sa_handler = die;
    action.sa_flags = static_cast<int>(SA_RESETHAND | SA_NODEFER);
    for (int signal : kMistakes) ::sigaction(signal, &action, nullptr);
    enter();
}

Screen::~Screen() {
    leave();
    for (int signal : kMistakes) ::signal(signal, SIG_DFL);
    shown = nullptr;
    ::close(signals_);
    ::sigprocmask(SIG_SETMASK, &before_, nullptr);
}

void Screen::enter() const {
    if (has_keys_) {
        termios keys = saved_;
        keys.c_lflag &= ~static_cast<tcflag_t>(ICANON | ECHO);  // Ctrl-C and Ctrl-Z stay signals
        keys.c_cc[VMIN] = 0;
        keys.c_cc[VTIME] = 0;
        ::tcsetattr(STDIN_FILENO, TCSANOW, &keys);
    }
    write_all(kEnter);
}

/// Gives the terminal back. A signal handler calls it, too.
void Screen::leave() const {
    write_all(kLeave);
    if (has_keys_) ::tcsetattr(STDIN_FILENO, TCSANOW, &saved_);
}

void Screen::die(int signal) {
    if (shown) shown->leave();
    ::raise(signal);  // whose action is the default again
}

void Screen::stop() const {
    leave();
    sigset_t set;
    ::sigemptyset(&set);
    ::sigaddset(&set, SIGTSTP);
    // It stops by the signal's default action, which knows when there is nobody to wake this
    // process again.
    ::raise(SIGTSTP);
    ::sigprocmask(SIG_UNBLOCK, &set, nullptr);
    ::sigprocmask(SIG_BLOCK, &set, nullptr);
    enter();
}

bool Screen::draw(const std::vector<std::string>& lines) {
    winsize size{};
    ::ioctl(STDOUT_FILENO, TIOCGWINSZ, &size);
    const std::size_t most = size.ws_row ? size.ws_row : 24;
    std::string frame = "\033[H";
    for (std::size_t i = 0; i < lines.size() && i < most; ++i)
        frame += (i ? "\r\n" : "") + lines[i] + "\033[K";
    return write_all(frame + "\033[J");
}

Screen::Event Screen::take_signal(int& ret_signal) {
    signalfd_siginfo info;
    if (::read(signals_, &info, sizeof info) != sizeof info) return Event::time;
    switch (info.ssi_signo) {
        case SIGWINCH:
            return Event::redraw;
        case SIGTSTP:
            stop();
            return Event::redraw;
        case SIGCONT:
            enter();  // it may have been stopped by SIGSTOP, unasked
            return Event::redraw;
        default:
            ret_signal = info.ssi_signo == SIGINT ? 0 : static_cast<int>(info.ssi_signo);
            return Event::quit;
    }
}

Screen::Event Screen::take_keys() {
    char keys[64];
    const ssize_t size = ::read(STDIN_FILENO, keys, sizeof keys);
    if (size <= 0) {
        has_keys_ = size < 0 && (errno == EINTR || errno == EAGAIN);
        return Event::time;
    }
    const std::string_view typed(keys, static_cast<std::size_t>(size));
    return typed.find_first_of("qQ") == std::string_view::npos ? Event::time : Event::quit;
}

Screen::Event Screen::wait_until(std::chrono::steady_clock::time_point time, int& ret_signal) {
    ret_signal = 0;
    while (true) {
        const auto left =
            std::chrono::ceil<std::chrono::milliseconds>(time - std::chrono::steady_clock::now());
        if (left.count() <= 0) return Event::time;
        pollfd polled[2] = {{signals_, POLLIN, 0}, {has_keys_ ? STDIN_FILENO : -1, POLLIN, 0}};
        ::poll(polled, 2, static_cast<int>(left.count()));
        if (polled[0].revents)
            if (const Event event = take_signal(ret_signal); event != Event::time) return event;
        if (polled[1].revents)
            if (const Event event = take_keys(); event != Event::time) return event;
    }
}

void end_by(int signal) {
    ::signal(signal, SIG_DFL);
    sigset_t set;
    ::sigemptyset(&set);
    ::sigaddset(&set, signal);
    ::sigprocmask(SIG_UNBLOCK, &set, nullptr);
    ::raise(signal);
    ::_exit(128 + signal);
}

}  // namespace warmfork::cli
