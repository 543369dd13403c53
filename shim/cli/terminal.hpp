// A pseudo-terminal for a child of the service, which cannot have this process's own terminal as
// its controlling one, and what goes on between the two.
#pragma once

#include <termios.h>

#include <array>
#include <cstddef>
#include <optional>
#include <span>
#include <string_view>

#include "channel/descriptor.hpp"
#include "cli/signal_queue.hpp"
#include "warmfork.hpp"

namespace warmfork::cli {

/// The terminal that a person sits at, and one for the child that has its modes and its size.
class TerminalPair {
  public:
    /// Opens both for a whole job at a terminal: all three standard streams are the controlling
    /// terminal, and this process leads its process group. Otherwise others read from it or are
    /// meant by its Ctrl-C (a pipeline, a script, make), and nothing is returned; so it is where no
    /// pseudo-terminal is to be had.
    static std::optional<TerminalPair> open();

    /// Returns the end for the child's standard streams.
    int slave() const { return slave_.get(); }
    int master() const { return master_.get(); }
    int keyboard() const { return keyboard_.get(); }
    int screen() const { return screen_.get(); }
    bool is_raw() const { return is_raw_; }
    bool is_hung_up() const { return !master_; }

    /// Lets the keys go through as they are, in the foreground; in the background nothing is
    /// changed.
    void enter();
    /// Reads what was typed, into `ret_keys`. Returns how much, 0 where the terminal is gone, or -1
    /// where there is nothing.
    ssize_t read_keys(std::span<char> ret_keys);
    /// Makes the terminal's modes what they were before `enter`.
    void leave();
    /// Does what `enter` does, after this process was stopped: a shell may have set the modes
    /// meanwhile.
    void enter_again();
    /// Gives the size of the person's terminal to the child's, whose foreground then gets SIGWINCH.
    void copy_size();
    /// Puts back what was typed and nobody has read, so that the shell reads it next, as far as the
    /// kernel allows it (sysctl dev.tty.legacy_tiocsti, since Linux 6.2). `not_passed_on` has been
    /// taken from the keyboard, and the child's terminal had no room for it.
    void give_back_unread(std::string_view not_passed_on);
    /// Takes the child's terminal away, as the person's is gone: the child gets SIGHUP.
    void hang_up();

  private:
    Descriptor keyboard_, screen_, master_, slave_;
    termios before_{}, raw_{};
    bool is_raw_ = false;
    bool has_lines_ = false;  ///< was typed before the keys went through
};

/// Carries what is typed and what is shown, and passes on signals, until the child has ended. The
/// child and this process stop together and go on together.
class TerminalRelay {
  public:
    /// All are borrowed. The child has been spawned with `terminals.slave()`.
    TerminalRelay(Process& child, SignalQueue& signals, TerminalPair& terminals);
    TerminalRelay(const TerminalRelay&) = delete;
    TerminalRelay& operator=(const TerminalRelay&) = delete;
    /// Leaves the terminal as it was.
    ~TerminalRelay();

    /// Returns when the child has ended and all that it has written is shown.
    void run();

  private:
    void take_signals();
    void take_keys();
    void pass_keys_on();
    void show_output();
    void look_again();
    void stop_with_child();
    void go_on();
    int timeout() const;

    Process& child_;
    SignalQueue& signals_;
    TerminalPair& terminals_;
    std::array<char, 4096> keys_;
    std::size_t key_count_ = 0;
    int look_after_;  ///< milliseconds until the child is looked at
};

}  // namespace warmfork::cli
