#include "support/service.hpp"

#include <fcntl.h>
#include <fmt/format.h>
#include <poll.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <nlohmann/json.hpp>

#include "channel/message_socket.hpp"

using namespace warmfork;
namespace fs = std::filesystem;

namespace {

constexpr int kPatience = 60'000;  // milliseconds

// Of the client process that this code runs in.
int client_output = -1, client_input = -1;

sockaddr_un address_of(const std::string& path) {
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    if (path.size() >= sizeof address.sun_path) throw std::runtime_error("path too long: " + path);
    std::memcpy(address.sun_path, path.c_str(), path.size() + 1);
    return address;
}

Descriptor bound(int type, const std::string& path) {
    Descriptor socket(::socket(AF_UNIX, type | SOCK_CLOEXEC, 0));
    const sockaddr_un address = address_of(path);
    if (::bind(socket.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) < 0)
        throw std::runtime_error("cannot bind " + path);
    return socket;
}

int decoded(int status) {
    return WIFEXITED(status) ? WEXITSTATUS(status) : 1000 + WTERMSIG(status);
}

}  // namespace

TemporaryDirectory::TemporaryDirectory() {
    std::string path = fs::temp_directory_path() / "warmfork-test-XXXXXX";
    if (!::mkdtemp(path.data())) throw std::runtime_error("mkdtemp");
    path_ = path;
}

TemporaryDirectory::~TemporaryDirectory() {
    std::error_code error;
    fs::remove_all(path_, error);
}

void TemporaryDirectory::write(const std::string& name, const std::string& text) const {
    fs::create_directories(fs::path(path_ + "/" + name).parent_path());
    std::ofstream(path_ + "/" + name) << text;
}

std::string probe_definition(const std::string& lines, const std::vector<std::string>& options) {
    std::string program = fmt::format("program = [\"{}\", \"serve\"", WARMFORK_PROBE);
    for (const std::string& option : options) program += fmt::format(", \"{}\"", option);
    return program + "]\n" + lines;
}

TestService::TestService(Settings settings) : settings_(std::move(settings)) {
    // Neither this user's own service nor another test's shares its board.
    static int count = 0;
    instance_ = fmt::format("test-{}-{}", ::getpid(), ++count);
    board_ = fmt::format("/dev/shm/warmfork-{}-{}", ::geteuid(), instance_);
    ::mkdir((directory_.path() + "/run").c_str(), 0700);
    socket_ = settings_.socket.empty() ? directory_.path() + "/run/socket" : settings_.socket;
    for (const auto& [name, text] : settings_.templates)
        directory_.write("config/templates.d/" + name + ".toml", text);
    directory_.write("config/warmforkd.toml", settings_.daemon);
    notifications_ = bound(SOCK_DGRAM, directory_.path() + "/notify");
    if (settings_.has_passed_socket) {
        socket_ = directory_.path() + "/public";
        listening_ = bound(SOCK_SEQPACKET, socket_);
        ::chmod(socket_.c_str(), 0666);
        ::chmod(directory_.path().c_str(), 0711);
        if (::listen(listening_.get(), 128) < 0) throw std::runtime_error("listen");
    }
    start();
}

TestService::~TestService() {
    // One that was killed has left it.
    ::unlink(board_.c_str());
    if (pid_ <= 0) return;
    const std::vector<int> left = children_of(pid_);
    kill();
    for (int child : left) ::kill(child, SIGKILL);
}

void TestService::start() {
    std::vector<std::string> command{WARMFORKD,  "--config", directory_.path() + "/config",
                                     "--socket", socket_,    "--instance",
                                     instance_,  "--verbose"};
    command.insert(command.end(), settings_.options.begin(), settings_.options.end());
    auto arguments = detail::pointers(command);
    const Descriptor log(::open((directory_.path() + "/log").c_str(),
                                O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600));
    is_ready_ = false;
    pid_ = ::fork();
    if (pid_ == 0) {
        ::setenv("NOTIFY_SOCKET", (directory_.path() + "/notify").c_str(), 1);
        ::setenv("XDG_STATE_HOME", (directory_.path() + "/state").c_str(), 1);
        for (std::string& variable : settings_.environment) ::putenv(variable.data());
        if (settings_.is_watched) {
            ::setenv("WATCHDOG_USEC", "200000", 1);
            ::setenv("WATCHDOG_PID", fmt::format("{}", ::getpid()).c_str(), 1);
        }
        if (settings_.descriptors) {
            const rlimit limit{settings_.descriptors, settings_.descriptors};
            ::setrlimit(RLIMIT_NOFILE, &limit);
        }
        ::dup2(log.get(), 2);
        if (listening_) {
            ::dup2(listening_.get(), 3);
            ::setenv("LISTEN_FDS", "1", 1);
            ::setenv("LISTEN_PID", fmt::format("{}", ::getpid()).c_str(), 1);
        }
        ::execv(arguments[0], const_cast<char* const*>(arguments.data()));
        ::_exit(127);
    }
    pidfd_ = open_pidfd(pid_);
    while (true) {
        pollfd polled[2] = {{notifications_.get(), POLLIN, 0}, {pidfd_.get(), POLLIN, 0}};
        if (::poll(polled, 2, kPatience) <= 0) return;
        if (!polled[0].revents) return;
        if (next_notification().find("READY=1") != std::string::npos) break;
    }
    is_ready_ = true;
}

void TestService::signal(int number) const {
    ::kill(pid_, number);
}

int TestService::wait() {
    if (!has_ended(pidfd_)) return -1;
    int status;
    if (::waitpid(std::exchange(pid_, 0), &status, 0) < 0) return -1;
    return decoded(status);
}

void TestService::kill() {
    if (pid_ <= 0) return;
    ::kill(pid_, SIGKILL);
    ::waitpid(std::exchange(pid_, 0), nullptr, 0);
}

std::string TestService::next_notification() {
    pollfd polled{notifications_.get(), POLLIN, 0};
    if (::poll(&polled, 1, kPatience) <= 0) return {};
    char buffer[4096];
    const ssize_t size = ::recv(notifications_.get(), buffer, sizeof buffer, 0);
    return {buffer, size > 0 ? static_cast<std::size_t>(size) : 0};
}

bool TestService::has_said(const std::string& text) {
    while (true) {
        const std::string said = next_notification();
        if (said.find(text) != std::string::npos) return true;
        if (said.empty()) return false;
    }
}

std::string TestService::log() const {
    std::ifstream file(directory_.path() + "/log");
    return {std::istreambuf_iterator<char>(file), {}};
}

bool TestService::has_logged(const std::string& text) const {
    const auto deadline = std::chrono::steady_clock::now() + std::chrono::milliseconds(kPatience);
    while (log().find(text) == std::string::npos) {
        if (std::chrono::steady_clock::now() > deadline) return false;
        ::poll(nullptr, 0, 5);  // a file cannot be waited for
    }
    return true;
}

std::size_t TestService::descriptors() const {
    return static_cast<std::size_t>(
        std::distance(fs::directory_iterator(fmt::format("/proc/{}/fd", pid_)), {}));
}

ClientProcess::ClientProcess(const TestService& service, std::function<int()> act) {
    pid_ = ::fork();
    if (pid_ == 0) {
        ::setenv("WARMFORK_SOCKET", service.socket().c_str(), 1);
        client_output = output_.write_end.get();
        client_input = input_.read_end.get();
        output_.read_end.reset();
        input_.write_end.reset();
        int status = 99;
        try {
            status = act();
        } catch (const std::exception& error) {
            fmt::print(stderr, "client: {}\n", error.what());
        }
        ::_exit(status);
    }
    pidfd_ = open_pidfd(pid_);
    output_.write_end.reset();
    input_.read_end.reset();
}

ClientProcess::ClientProcess(ClientProcess&& other) noexcept
    : output_(std::move(other.output_)),
      input_(std::move(other.input_)),
      pidfd_(std::move(other.pidfd_)),
      pid_(std::exchange(other.pid_, 0)) {}

ClientProcess::~ClientProcess() {
    kill();
}

void ClientProcess::kill() {
    if (pid_ <= 0) return;
    ::kill(pid_, SIGKILL);
    ::waitpid(std::exchange(pid_, 0), nullptr, 0);
}

std::string ClientProcess::next_line() {
    std::string line;
    for (char byte; ::read(output_.read_end.get(), &byte, 1) == 1 && byte != '\n';) line += byte;
    return line;
}

void ClientProcess::give_cue() {
    [[maybe_unused]] const auto written = ::write(input_.write_end.get(), "\n", 1);
}

int ClientProcess::wait(int milliseconds) {
    pollfd polled{pidfd_.get(), POLLIN, 0};
    if (::poll(&polled, 1, milliseconds) <= 0) return -1;
    int status;
    if (::waitpid(std::exchange(pid_, 0), &status, 0) < 0) return -1;
    return decoded(status);
}

void say(const std::string& line) {
    const std::string text = line + "\n";
    [[maybe_unused]] const auto written = ::write(client_output, text.data(), text.size());
}

void await_cue() {
    char byte;
    [[maybe_unused]] const auto got = ::read(client_input, &byte, 1);
}

bool has_cue() {
    pollfd polled{client_input, POLLIN, 0};
    return ::poll(&polled, 1, 0) == 1;
}

int as_client(const TestService& service, std::function<int()> act) {
    return ClientProcess(service, std::move(act)).wait();
}

RawClient::RawClient(const std::string& path, bool says_hello)
    : socket_(::socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0)) {
    const sockaddr_un address = address_of(path);
    if (::connect(socket_.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) < 0)
        throw std::system_error(errno, std::generic_category(), "cannot connect to " + path);
    if (!says_hello) return;
    send(ServiceKind::hello, 0, FieldWriter().number(1).bytes());
    ServiceMessage welcome;
    if (receive(welcome) || welcome.kind != ServiceKind::welcome)
        throw std::runtime_error("not welcome");
    welcome_ = read_welcome(welcome.body);
}

int RawClient::send(ServiceKind kind, std::uint64_t id, std::span<const std::byte> body,
                    std::span<const int> descriptors, int flags) {
    std::vector<std::byte> shown;
    auto request = kind == ServiceKind::lease ? read_lease_request(body) : std::nullopt;
    if (request && request->sight.empty()) {
        request->sight = sight();
        shown = write_body(*request);
        body = shown;
    }
    return send_service_message(socket_.get(), kind, id, body, descriptors, flags);
}

int RawClient::send_bytes(std::span<const std::byte> bytes, std::span<const int> descriptors) {
    return send_message(socket_.get(), bytes, {}, descriptors, MSG_DONTWAIT);
}

int RawClient::receive(ServiceMessage& ret_message, int milliseconds) {
    pollfd polled{socket_.get(), POLLIN, 0};
    if (::poll(&polled, 1, milliseconds) <= 0) return ETIMEDOUT;
    return receive_service_message(socket_.get(), MSG_DONTWAIT, ret_message);
}

int RawClient::receive(ServiceKind kind, ServiceMessage& ret_message) {
    while (true) {
        if (int error = receive(ret_message)) return error;
        if (ret_message.kind == kind) return 0;
    }
}

bool RawClient::is_hung_up() {
    while (true) {
        ServiceMessage message;
        const int error = receive(message);
        if (error) return error == ECONNRESET;
    }
}

std::uint64_t parked_spares(RawClient& client, const std::string& name) {
    client.send(ServiceKind::manage, 0, FieldWriter().text("list").text("").bytes());
    ServiceMessage list;
    if (client.receive(ServiceKind::managed, list)) throw std::runtime_error("no list");
    const auto json = nlohmann::json::parse(FieldReader(list.body).text());
    for (const auto& entry : json.at("templates"))
        if (entry.at("name") == name) return entry.at("parked");
    return 0;
}

std::vector<std::byte> lease_body(std::uint64_t count, std::uint64_t flags,
                                  const std::string& name) {
    LeaseRequest request{name, flags, count, {}, {}, {}};
    for (char** variable = environ; variable && *variable; ++variable)
        request.environment.emplace_back(*variable);
    return write_body(request);
}
