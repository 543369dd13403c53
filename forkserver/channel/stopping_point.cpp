#ifdef WARMFORK_STOPPING_POINTS

#include "channel/stopping_point.hpp"

#include <fcntl.h>
#include <signal.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <charconv>
#include <cstring>
#include <string_view>

namespace warmfork {
namespace {

constexpr std::string_view kVariable = "WARMFORK_STOPPING_POINTS=";
constexpr std::size_t kMostVariable = 512;

/// NAME=VALUE as it was first seen. The environment of a child becomes its command's before its
/// last steps.
std::array<char, kMostVariable> own_variable;

/// Does not use getenv: what a template reads by that becomes part of its image.
bool find_variable() {
    for (char** next = environ; own_variable[0] == '\0' && next && *next; ++next) {
        const std::string_view variable(*next);
        if (variable.starts_with(kVariable) && variable.size() < own_variable.size())
            std::memcpy(own_variable.data(), variable.data(), variable.size());
    }
    return own_variable[0] != '\0';
}

/// A path in the directory of the variable, without memory from the heap.
class Path {
  public:
    Path(const char* name, const char* ending) {
        const char* const directory = own_variable.data() + kVariable.size();
        for (const char* part : {directory, "/", name, ending}) {
            const std::size_t size = std::strlen(part);
            if (size_ + size >= text_.size()) return;
            std::memcpy(text_.data() + size_, part, size + 1);
            size_ += size;
        }
    }
    const char* get() const { return text_.data(); }

  private:
    std::array<char, 2 * kMostVariable> text_{};
    std::size_t size_ = 0;
};

void tell_pid() {
    std::array<char, 16> text;
    char* end = std::to_chars(text.data(), text.data() + text.size() - 1, ::getpid()).ptr;
    *end++ = '\n';
    const int fifo = ::open(Path("reached", "").get(), O_WRONLY | O_NONBLOCK | O_CLOEXEC);
    if (fifo < 0) return;
    [[maybe_unused]] const ssize_t written =
        ::write(fifo, text.data(), static_cast<std::size_t>(end - text.data()));
    ::close(fifo);
}

}  // namespace

void stopping_point(const char* name) {
    const int error = errno;
    if (find_variable()) {
        int signal = 0;
        if (::unlink(Path(name, ".kill").get()) == 0) signal = SIGKILL;
        if (signal == 0 && ::unlink(Path(name, ".stop").get()) == 0) signal = SIGSTOP;
        if (signal != 0) {
            tell_pid();
            ::kill(::getpid(), signal);
        }
    }
    errno = error;
}

char* stopping_point_variable() {
    return find_variable() ? own_variable.data() : nullptr;
}

}  // namespace warmfork

#endif
