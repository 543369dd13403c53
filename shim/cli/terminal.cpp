#include "cli/terminal.hpp"

#include <fcntl.h>
#include <poll.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <string>
#include <utility>

#include "link/terminal_job.hpp"

namespace warmfork::cli {
namespace {

// Only its parent, the service, is told that the child has stopped. What stops it is nearly always
// something that was typed. So it is looked at this long after that, then after twice as long, and
// so on. At an idle terminal it is looked at seldom, but always again, as a program may take its
// time to stop, or be stopped by somebody else.
constexpr int kFirstLook = 10;    // milliseconds
constexpr int kIdleLook = 1000;   // milliseconds
constexpr int kBackground = 200;  // milliseconds: nor does anybody say that it is in the foreground

// It is enough for what a pseudo-terminal can hold, and ends: a process that the child has left
// writes on.
constexpr int kMostLastReads = 256;

// The most that was typed ahead and is put back: somebody may hold a key down.
constexpr std::size_t kMostUnread = 16384;

Descriptor duplicate(int number) {
    return Descriptor(::fcntl(number, F_DUPFD_CLOEXEC, 3));
}

/// Returns the state of a process: 'T' is stopped.
char state_of(pid_t pid) {
    char text[512];
    const Descriptor file(
        ::open(("/proc/" + std::to_string(pid) + "/stat").c_str(), O_RDONLY | O_CLOEXEC));
    const ssize_t size = file ? ::read(file.get(), text, sizeof text - 1) : 0;
    text[std::max<ssize_t>(size, 0)] = '\0';
    const char* const name_end = std::strrchr(text, ')');
    return name_end && name_end[1] == ' ' ? name_end[2] : '\0';
}

bool is_pending(int signal) {
    sigset_t pending;
    return ::sigpending(&pending) == 0 && ::sigismember(&pending, signal) == 1;
}

/// Reads what can be read at once.
std::string read_waiting(int terminal) {
    std::string all;
    std::array<char, 4096> piece;
    pollfd polled{terminal, POLLIN, 0};
    while (all.size() < kMostUnread && ::poll(&polled, 1, 0) > 0 && polled.revents & POLLIN) {
        const ssize_t size = ::read(terminal, piece.data(), piece.size());
        if (size <= 0) break;
        all.append(piece.data(), static_cast<std::size_t>(size));
    }
    return all;
}

/// Writes all, and waits where it has to: the terminal may be held up, or another program may have
/// made it non-blocking. Returns false where it is gone.
bool write_all(int terminal, const char* bytes, std::size_t size) {
    while (size > 0) {
        const ssize_t written = ::write(terminal, bytes, size);
        if (written < 0 && errno == EAGAIN) {
            pollfd polled{terminal, POLLOUT, 0};
            ::poll(&polled, 1, -1);
        } else if (written < 0 && errno != EINTR) {
            return false;
        } else if (written > 0) {
            bytes += written;
            size -= static_cast<std::size_t>(written);
        }
    }
    return true;
}

}  // namespace

std::optional<TerminalPair> TerminalPair::open() {
    TerminalPair pair;
    termios modes;
    if (!link::is_whole_job_at_terminal() || ::tcgetattr(STDIN_FILENO, &modes) < 0) return {};
    pair.keyboard_ = duplicate(STDIN_FILENO);
    pair.screen_ = duplicate(STDOUT_FILENO);
    pair.master_ = Descriptor(::posix_openpt(O_RDWR | O_NOCTTY | O_CLOEXEC | O_NONBLOCK));
    if (!pair.keyboard_ || !pair.screen_ || !pair.master_ || ::grantpt(pair.master()) < 0 ||
        ::unlockpt(pair.master()) < 0)
        return {};
    pair.slave_ = Descriptor(::ioctl(pair.master(), TIOCGPTPEER, O_RDWR | O_NOCTTY | O_CLOEXEC));
    if (!pair.slave_ || ::tcsetattr(pair.slave(), TCSANOW, &modes) < 0) return {};
    pair.copy_size();
    return pair;
}

void TerminalPair::enter() {
    if (is_raw_ || is_hung_up() || ::tcgetpgrp(keyboard()) != ::getpgrp() ||
        ::tcgetattr(keyboard(), &before_) < 0)
        return;
    raw_ = before_;
    ::cfmakeraw(&raw_);
    is_raw_ = ::tcsetattr(keyboard(), TCSANOW, &raw_) == 0;
    pollfd polled{keyboard(), POLLIN, 0};
    has_lines_ = is_raw_ && ::poll(&polled, 1, 0) > 0;
}

ssize_t TerminalPair::read_keys(std::span<char> ret_keys) {
    const ssize_t size = ::read(keyboard(), ret_keys.data(), ret_keys.size());
    if (size < 0 && (errno == EAGAIN || errno == EINTR)) return -1;
    if (size <= 0) return 0;
    // The end of a text that was typed while lines were read shows as a NUL where keys are read.
    if (std::exchange(has_lines_, false))
        std::replace(ret_keys.begin(), ret_keys.begin() + size, '\0',
                     static_cast<char>(before_.c_cc[VEOF]));
    return size;
}

void TerminalPair::enter_again() {
    termios now;
    const bool is_unchanged = is_raw_ && ::tcgetpgrp(keyboard()) == ::getpgrp() &&
                              ::tcgetattr(keyboard(), &now) == 0 && now.c_lflag == raw_.c_lflag &&
                              now.c_iflag == raw_.c_iflag && now.c_oflag == raw_.c_oflag;
    if (is_unchanged) return;
    is_raw_ = false;
    enter();
}

void TerminalPair::leave() {
    if (is_raw_) ::tcsetattr(keyboard(), TCSANOW, &before_);
    is_raw_ = false;
}

void TerminalPair::copy_size() {
    winsize size;
    if (::ioctl(keyboard(), TIOCGWINSZ, &size) == 0) ::ioctl(master(), TIOCSWINSZ, &size);
}

void TerminalPair::give_back_unread(std::string_view not_passed_on) {
    termios modes;
    if (!is_raw_ || ::tcgetattr(slave(), &modes) < 0) return;
    // A line that has no end yet is read as well, and nothing is waited for.
    modes.c_lflag &= ~static_cast<tcflag_t>(ICANON);
    modes.c_cc[VMIN] = modes.c_cc[VTIME] = 0;
    if (::tcsetattr(slave(), TCSANOW, &modes) < 0) return;
    std::string unread = read_waiting(slave());
    unread += not_passed_on;
    unread += read_waiting(keyboard());  // what was typed last comes last
    for (const char& key : unread)
        if (key != '\0' && ::ioctl(keyboard(), TIOCSTI, &key) < 0) return;
}

void TerminalPair::hang_up() {
    leave();
    slave_.reset();
    master_.reset();
}

TerminalRelay::TerminalRelay(Process& child, SignalQueue& signals, TerminalPair& terminals)
    : child_(child), signals_(signals), terminals_(terminals), look_after_(kFirstLook) {
    signals_.stay_for_terminal();
    terminals_.enter();
    terminals_.copy_size();  // it may have changed meanwhile
}

TerminalRelay::~TerminalRelay() {
    terminals_.leave();
}

int TerminalRelay::timeout() const {
    if (terminals_.is_hung_up()) return -1;
    return terminals_.is_raw() ? look_after_ : std::min(look_after_, kBackground);
}

void TerminalRelay::run() {
    for (;;) {
        const bool has_keys = key_count_ > 0;
        const short events = static_cast<short>(POLLIN | (has_keys ? POLLOUT : 0));
        pollfd polled[] = {{child_.pidfd(), POLLIN, 0},
                           {signals_.descriptor(), POLLIN, 0},
                           {terminals_.master(), events, 0},
                           {terminals_.is_hung_up() ? -1 : terminals_.keyboard(),
                            static_cast<short>(terminals_.is_raw() && !has_keys ? POLLIN : 0), 0}};
        const int count = ::poll(polled, std::size(polled), timeout());
        if (count == 0) look_again();
        if (polled[1].revents) take_signals();
        if (polled[2].revents & POLLOUT) pass_keys_on();
        if (polled[2].revents & POLLIN) show_output();
        if (polled[3].revents & POLLIN)
            take_keys();
        else if (polled[3].revents)
            terminals_.hang_up();  // also in the background, where no signal tells of it
        if (polled[0].revents) break;
    }
    // What was written is there as soon as a read asks for it.
    for (int i = 0; i < kMostLastReads; ++i) show_output();
    terminals_.give_back_unread({keys_.data(), key_count_});
}

void TerminalRelay::take_signals() {
    while (const std::optional<ArrivedSignal> signal = signals_.next()) {
        if (signal->number == SIGCONT)
            go_on();
        else if (signal->number == SIGWINCH && signal->is_from_terminal)
            terminals_.copy_size();
        else if (signal->number == SIGHUP && signal->is_from_terminal)
            terminals_.hang_up();
        else if (signal->is_from_terminal)
            signal_group(child_, signal->number);
        else
            signal_process(child_, signal->number);
        look_after_ = kFirstLook;
    }
}

void TerminalRelay::take_keys() {
    const ssize_t size = terminals_.read_keys(keys_);
    if (size < 0) return;
    if (size == 0) return terminals_.hang_up();
    key_count_ = static_cast<std::size_t>(size);
    pass_keys_on();
}

void TerminalRelay::pass_keys_on() {
    const ssize_t size = ::write(terminals_.master(), keys_.data(), key_count_);
    if (size <= 0) return;  // it has no room: poll tells when it has
    key_count_ -= static_cast<std::size_t>(size);
    std::memmove(keys_.data(), keys_.data() + size, key_count_);
    look_after_ = kFirstLook;
}

void TerminalRelay::show_output() {
    std::array<char, 4096> output;
    const ssize_t size = ::read(terminals_.master(), output.data(), output.size());
    if (size <= 0) return;
    look_after_ = kFirstLook;
    if (!write_all(terminals_.screen(), output.data(), static_cast<std::size_t>(size)))
        terminals_.hang_up();
}

/// Looks again: the child may have stopped, and this process may be in the foreground now.
void TerminalRelay::look_again() {
    if (!terminals_.is_raw()) {
        terminals_.enter();
        if (terminals_.is_raw()) terminals_.copy_size();  // SIGWINCH was the foreground's
    }
    if (state_of(child_.pid()) == 'T') return stop_with_child();
    look_after_ = std::min(2 * look_after_, kIdleLook);
}

/// Stops this process, so that the shell that has started it gets the terminal back.
void TerminalRelay::stop_with_child() {
    for (int i = 0; i < kMostLastReads; ++i) show_output();
    terminals_.leave();
    stop_self();
    if (!is_pending(SIGCONT)) go_on();  // no shell is there that could continue it
}

void TerminalRelay::go_on() {
    terminals_.enter_again();
    terminals_.copy_size();
    const pid_t foreground = terminals_.is_hung_up() ? -1 : ::tcgetpgrp(terminals_.master());
    if (foreground > 0 && foreground != child_.pid()) ::kill(-foreground, SIGCONT);
    signal_group(child_, SIGCONT);
    look_after_ = kFirstLook;
}

}  // namespace warmfork::cli
