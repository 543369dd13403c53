#include "support/processes.hpp"

#include <fcntl.h>
#include <fmt/format.h>
#include <linux/filter.h>
#include <linux/sched.h>
#include <linux/seccomp.h>
#include <poll.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <sstream>

#include "channel/message_socket.hpp"
#include "owner/kept_descriptor.hpp"

using warmfork::Descriptor;

std::vector<int> children_of(pid_t pid) {
    std::vector<int> children;
    std::error_code error;
    for (const auto& task :
         std::filesystem::directory_iterator(fmt::format("/proc/{}/task", pid), error)) {
        std::ifstream file(task.path() / "children");
        for (int child; file >> child;) children.push_back(child);
    }
    return children;
}

std::string name_of(pid_t pid) {
    std::ifstream file(fmt::format("/proc/{}/comm", pid));
    std::string name;
    std::getline(file, name);
    return name;
}

bool is_running(pid_t pid) {
    std::ifstream file(fmt::format("/proc/{}/stat", pid));
    std::stringstream text;
    text << file.rdbuf();
    const std::size_t at = text.str().rfind(')');
    return at != std::string::npos && text.str()[at + 2] != 'Z';
}

pid_t fork_idler(pid_t wanted) {
    clone_args arguments{};
    arguments.exit_signal = SIGCHLD;
    arguments.set_tid = reinterpret_cast<std::uintptr_t>(&wanted);
    arguments.set_tid_size = 1;
    // Where clone3 is refused, as in containers, any pid is still to be had.
    const long pid = wanted > 0 ? ::syscall(SYS_clone3, &arguments, sizeof arguments) : ::fork();
    while (pid == 0) ::pause();
    return static_cast<pid_t>(pid);
}

bool has_ended(const Descriptor& pidfd) {
    pollfd polled{pidfd.get(), POLLIN, 0};
    return ::poll(&polled, 1, 60'000) == 1;
}

bool refuse_system_call(long number) {
    sock_filter filter[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, static_cast<unsigned>(number), 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EPERM),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    const sock_fprog program{static_cast<unsigned short>(std::size(filter)), filter};
    return ::prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0 &&
           ::prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) == 0;
}

bool is_keeper_socket(int number) {
    // Of all sockets that this process may hold when a test has ended it is the only one that is
    // connected and lies at a number of the shim's own.
    sockaddr_storage peer;
    socklen_t size = sizeof peer;
    return number >= warmfork::lowest_kept_number() &&
           ::getpeername(number, reinterpret_cast<sockaddr*>(&peer), &size) == 0;
}

void spin(int rounds) {
    for (int i = 0; i < rounds; ++i) __asm__ volatile("");
}

std::vector<int> spares() {
    std::vector<int> found;
    for (int child : children_of(::getpid()))
        if (name_of(child) == "warmfork-spare") found.push_back(child);
    return found;
}

Pipe::Pipe() {
    int ends[2];
    if (::pipe2(ends, O_CLOEXEC) < 0) throw std::runtime_error("pipe2");
    read_end = Descriptor(ends[0]);
    write_end = Descriptor(ends[1]);
}

std::string Pipe::read_all() {
    write_end.reset();
    std::string text;
    char buffer[4096];
    for (ssize_t size; (size = ::read(read_end.get(), buffer, sizeof buffer)) > 0;)
        text.append(buffer, static_cast<std::size_t>(size));
    return text;
}

void wait_for_image(warmfork::Template& opened) {
    try {
        opened.wait_ready(60'000);
    } catch (const warmfork::Error&) {
    }
}

warmfork::Template probe_template(int spares, std::vector<std::string> options,
                                  warmfork_backend backend, bool nested) {
    std::vector<std::string> program{WARMFORK_PROBE, "serve"};
    program.insert(program.end(), options.begin(), options.end());
    const auto pointers = warmfork::detail::pointers(program);
    warmfork_template_options template_options;
    warmfork_template_options_init(&template_options);
    template_options.program = pointers.data();
    template_options.spares = spares;
    template_options.backend = backend;
    template_options.nested = nested;
    warmfork::Template opened(template_options);
    if (backend == WARMFORK_BACKEND_AUTO) wait_for_image(opened);
    return opened;
}

ProbeRequest::ProbeRequest(std::vector<std::string> given) : arguments{WARMFORK_PROBE} {
    arguments.insert(arguments.end(), given.begin(), given.end());
    pointers = warmfork::detail::pointers(arguments);
    warmfork_request_init(&request);
    request.arguments = pointers.data();
}

void ProbeRequest::put_output_on(const Pipe& pipe) {
    descriptors.push_back({pipe.write_end.get(), 1});
}

const warmfork_request& ProbeRequest::get() {
    request.descriptors = descriptors.data();
    request.descriptor_count = descriptors.size();
    return request;
}

std::string output_of(warmfork::Template& from, ProbeRequest& request, int* ret_status) {
    Pipe output;
    request.put_output_on(output);
    warmfork::Process child = from.spawn(request.get());
    std::string text = output.read_all();
    const int status = child.wait();
    if (ret_status) *ret_status = status;
    request.descriptors.pop_back();
    return text;
}

std::string output_of(warmfork::Template& from, std::vector<std::string> arguments,
                      int* ret_status) {
    ProbeRequest request(std::move(arguments));
    return output_of(from, request, ret_status);
}

InFlight::InFlight(std::size_t count) {
    if (warmfork::make_message_pair(sender_, receiver_)) std::abort();
    // Not one of the two: a socket on its way to itself is in flight until the kernel looks for
    // such.
    const Descriptor null(::open("/dev/null", O_RDWR | O_CLOEXEC));
    const std::vector<int> numbers(count, null.get());
    const std::byte byte{};
    if (warmfork::send_message(sender_.get(), std::span(&byte, 1), {}, numbers, 0)) std::abort();
}

std::string in_an_owner(const std::function<std::string()>& body) {
    Pipe answer;
    const pid_t pid = ::fork();
    if (pid == 0) {
        std::string text;
        try {
            text = body();
        } catch (const std::exception& error) {
            text = error.what();
        }
        if (::write(answer.write_end.get(), text.data(), text.size()) < 0) ::_exit(2);
        ::_exit(0);
    }
    std::string text = answer.read_all();
    int status;
    ::waitpid(pid, &status, 0);
    return status == 0 ? text : "the owner ended with " + std::to_string(status) + ": " + text;
}
