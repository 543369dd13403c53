#include "link/ask_service.hpp"

#include <poll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include <cerrno>
#include <climits>
#include <cstdlib>
#include <cstring>
#include <initializer_list>

#include "link/python_program.hpp"
#include "link/service_place.hpp"
#include "protocol/service.hpp"

namespace warmfork::link {
namespace {

// The service has to answer from memory. Whoever waits longer is served better by the real command.
constexpr int kPatience = 100;  // milliseconds

constexpr char kVerb[] = "link";
// What an interpreter is to run stands among its first arguments, or the command is not remembered.
constexpr std::size_t kMostArguments = 16;
constexpr std::uint64_t kRequest = 1;

/// A message on its way out: see protocol/fields.hpp for how bodies are written.
class Message {
  public:
    Message(ServiceKind kind, std::uint64_t id) {
        header_ = {kServiceMagic, kServiceVersion, kind, id, 0, 0};
    }
    void number(std::uint64_t value) { add(&value, sizeof value); }
    void text(const char* value, std::size_t size) {
        number(size);
        add(value, size);
    }
    void text(const char* value) { text(value, std::strlen(value)); }
    /// The size, by which what has been added since is taken back.
    [[nodiscard]] std::size_t size() const { return size_; }
    void cut(std::size_t size) {
        size_ = size;
        is_too_large_ = false;
    }
    [[nodiscard]] bool is_too_large() const { return is_too_large_; }

    [[nodiscard]] bool send(int socket) {
        if (is_too_large_) return false;
        header_.body_size = static_cast<std::uint32_t>(size_);
        std::memcpy(bytes_, &header_, sizeof header_);
        const std::size_t size = sizeof header_ + size_;
        return ::send(socket, bytes_, size, MSG_DONTWAIT | MSG_NOSIGNAL) ==
               static_cast<ssize_t>(size);
    }

  private:
    void add(const void* bytes, std::size_t size) {
        is_too_large_ = is_too_large_ || size > kRoom - size_;
        if (is_too_large_) return;
        std::memcpy(bytes_ + sizeof header_ + size_, bytes, size);
        size_ += size;
    }

    // Paths and the beginning of a command line; it has to fit into a message.
    static constexpr std::size_t kRoom = 12u << 10;
    static_assert(kRoom < kInlineBodySize);

    ServiceHeader header_{};
    std::size_t size_ = 0;
    bool is_too_large_ = false;
    char bytes_[sizeof(ServiceHeader) + kRoom];
};

/// Limits that take effect at exec only: its templates have those that it has. Where it cannot be
/// asked for them they are compared later.
bool has_same_limits(const ucred& service) {
    for (const auto resource : {RLIMIT_STACK, RLIMIT_AS, RLIMIT_DATA}) {
        rlimit here, there;
        if (::getrlimit(resource, &here) < 0 ||
            ::prlimit(service.pid, resource, nullptr, &there) < 0)
            return true;
        if (here.rlim_cur != there.rlim_cur || here.rlim_max != there.rlim_max) return false;
    }
    return true;
}

bool suits(int socket) {
    ucred service{};
    socklen_t size = sizeof service;
    return ::getsockopt(socket, SOL_SOCKET, SO_PEERCRED, &service, &size) == 0 &&
           is_trusted(service) && has_same_limits(service);
}

long now() {
    timespec time;
    ::clock_gettime(CLOCK_MONOTONIC, &time);
    return time.tv_sec * 1000 + time.tv_nsec / 1'000'000;
}

/// Takes the name out of {"template":"NAME"}.
bool read_answer(const char* body, std::size_t size, char (&ret_name)[kTemplateNameSize]) {
    constexpr char kKey[] = "\"template\":\"";
    const void* const found = ::memmem(body, size, kKey, sizeof kKey - 1);
    if (!found) return false;
    const char* const name = static_cast<const char*>(found) + sizeof kKey - 1;
    const auto rest = static_cast<std::size_t>(body + size - name);
    const auto* const end = static_cast<const char*>(std::memchr(name, '"', rest));
    if (!end || end == name || static_cast<std::size_t>(end - name) >= sizeof ret_name)
        return false;
    const auto length = static_cast<std::size_t>(end - name);
    std::memcpy(ret_name, name, length);
    ret_name[length] = '\0';
    return true;
}

/// Waits for the answer, and passes over what else the service says first.
bool await_answer(int socket, char (&ret_name)[kTemplateNameSize]) {
    const long deadline = now() + kPatience;
    while (true) {
        pollfd polled{socket, POLLIN, 0};
        const long left = deadline - now();
        const int ready = left < 0 ? 0 : ::poll(&polled, 1, static_cast<int>(left));
        if (ready < 0 && errno == EINTR) continue;
        if (ready <= 0) return false;
        char bytes[1024];
        const ssize_t size = ::recv(socket, bytes, sizeof bytes, MSG_DONTWAIT);
        ServiceHeader header;
        if (size < static_cast<ssize_t>(sizeof header)) return false;
        std::memcpy(&header, bytes, sizeof header);
        if (header.magic != kServiceMagic || header.version != kServiceVersion) return false;
        if (header.id != kRequest) continue;
        return header.kind == ServiceKind::managed &&
               read_answer(bytes + sizeof header, static_cast<std::size_t>(size) - sizeof header,
                           ret_name);
    }
}

/// Adds what the command comes to: see LinkedCommand in protocol/service_bodies.hpp. It is left out
/// where it is no Python program, or does not fit.
void add_command(const char* path, char* const* arguments, Message& ret_question) {
    PythonStart start;
    char directory[PATH_MAX];
    if (!find_python_start(path, std::getenv("PATH"), start) ||
        !::getcwd(directory, sizeof directory))
        return;
    const std::size_t before = ret_question.size();
    ret_question.text(start.interpreter);
    ret_question.text(directory);
    if (start.is_script) {
        ret_question.number(start.word_count + 1);
        for (std::size_t i = 0; i < start.word_count; ++i) ret_question.text(start.words[i]);
        ret_question.text(path);
    } else {
        std::size_t count = 0;
        while (arguments[0] && count < kMostArguments && arguments[1 + count]) ++count;
        ret_question.number(count);
        for (std::size_t i = 0; i < count; ++i) ret_question.text(arguments[1 + i]);
    }
    if (ret_question.is_too_large()) ret_question.cut(before);
}

bool ask(int socket, const char* command, const char* path, char* const* arguments,
         char (&ret_name)[kTemplateNameSize]) {
    sockaddr_un address{};
    // EAGAIN means that as many are waiting as it lets wait.
    address.sun_family = AF_UNIX;
    if (!find_service_socket(address.sun_path) ||
        ::connect(socket, reinterpret_cast<sockaddr*>(&address), sizeof address) < 0 ||
        !suits(socket))
        return false;
    Message hello(ServiceKind::hello, 0);
    hello.number(static_cast<std::uint64_t>(::getpid()));
    Message question(ServiceKind::manage, kRequest);
    question.text(kVerb);
    question.text(command);
    add_command(path, arguments, question);
    return hello.send(socket) && question.send(socket) && await_answer(socket, ret_name);
}

}  // namespace

bool find_template(const char* command, const char* path, char* const* arguments,
                   char (&ret_name)[kTemplateNameSize]) {
    constexpr std::size_t kMostOfName = 255;
    if (std::strlen(command) > kMostOfName) return false;
    const int socket = ::socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (socket < 0) return false;
    const bool is_found = ask(socket, command, path, arguments, ret_name);
    ::close(socket);
    return is_found;
}

}  // namespace warmfork::link
