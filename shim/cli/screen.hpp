// A terminal that is drawn on as a whole, and given back as it was on every way out.
#pragma once

#include <signal.h>
#include <termios.h>

#include <chrono>
#include <string>
#include <vector>

namespace warmfork::cli {

/// There is one at a time. It works while standard output is a terminal; keys are read where
/// standard input is one too. The terminal is restored by the destructor, by the signals that end
/// the process (those of its own mistakes, too) and while it is stopped by Ctrl-Z; only SIGKILL
/// leaves it as it is.
class Screen {
  public:
    enum class Event { time, redraw, quit };

    Screen();
    Screen(const Screen&) = delete;
    Screen& operator=(const Screen&) = delete;
    ~Screen();

    /// Shows these lines, cut to the size of the terminal. Returns false where the terminal is
    /// gone.
    [[nodiscard]] bool draw(const std::vector<std::string>& lines);

    /// Waits for the time, for `q` or a signal that ends the program (quit), or for something that
    /// asks for another draw. `ret_signal` is the signal of quit; 0 for `q` and Ctrl-C.
    [[nodiscard]] Event wait_until(std::chrono::steady_clock::time_point time, int& ret_signal);

  private:
    void enter() const;
    void leave() const;
    void stop() const;
    Event take_signal(int& ret_signal);
    Event take_keys();
    static void die(int signal);

    bool has_keys_ = false;  ///< standard input is a terminal
    int signals_ = -1;
    sigset_t before_;
    termios saved_{};
};

/// Ends this process by a signal, so that its parent sees which.
[[noreturn]] void end_by(int signal);

}  // namespace warmfork::cli
