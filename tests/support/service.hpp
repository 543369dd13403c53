// A warmforkd of the build tree for the tests, in a directory of its own, and what speaks to it.
#pragma once

#include <functional>
#include <map>
#include <string>
#include <vector>

#include "channel/service_socket.hpp"
#include "protocol/service_bodies.hpp"
#include "support/processes.hpp"

/// A directory that is removed, with everything in it, at the end.
class TemporaryDirectory {
  public:
    TemporaryDirectory();
    ~TemporaryDirectory();
    TemporaryDirectory(const TemporaryDirectory&) = delete;
    TemporaryDirectory& operator=(const TemporaryDirectory&) = delete;
    const std::string& path() const { return path_; }
    void write(const std::string& name, const std::string& text) const;

  private:
    std::string path_;
};

/// Returns the text of a template of warmfork-probe, with further lines.
std::string probe_definition(const std::string& lines = "",
                             const std::vector<std::string>& options = {});

class TestService {
  public:
    struct Settings {
        std::map<std::string, std::string> templates{{"probe", probe_definition()}};
        std::string daemon{};                    ///< text of warmforkd.toml
        std::vector<std::string> environment{};  ///< beside what the test has
        std::vector<std::string> options{};      ///< of warmforkd
        std::string socket{};                    ///< instead of one in a directory of its own
        bool has_passed_socket = false;  ///< which others may connect to, as systemd's; not its own
        unsigned long descriptors = 0;   ///< limit on open files; 0: as it is
        bool is_watched = false;         ///< WATCHDOG_USEC is set
    };
    TestService() : TestService(Settings{}) {}
    /// Returns when it is ready, has ended, or (never seen) has done neither for a minute.
    explicit TestService(Settings settings);
    /// Ends everything that is left.
    ~TestService();
    TestService(const TestService&) = delete;
    TestService& operator=(const TestService&) = delete;

    /// Starts it, once more if it has ended.
    void start();
    pid_t pid() const { return pid_; }
    const std::string& socket() const { return socket_; }
    const std::string& directory() const { return directory_.path(); }
    const TemporaryDirectory& files() const { return directory_; }
    /// Did it say READY=1 since `start`?
    bool is_ready() const { return is_ready_; }
    /// Returns the socket of `has_passed_socket`.
    int listening() const { return listening_.get(); }
    void signal(int number) const;
    /// Returns its exit status, 1000 and the signal, or -1 where it still runs after a minute.
    int wait();
    /// Sends it SIGKILL, and reaps it.
    void kill();
    /// Waits for a notification with this text. Returns false where none came in a minute. What was
    /// passed over on the way is forgotten.
    bool has_said(const std::string& text);
    /// Returns the next notification, or an empty text where none came for a minute.
    std::string next_notification();
    /// Returns what it has logged.
    std::string log() const;
    /// Waits until its log has this text.
    bool has_logged(const std::string& text) const;
    std::size_t descriptors() const;
    /// Returns the file of its statistics board.
    const std::string& board() const { return board_; }

  private:
    Settings settings_;
    TemporaryDirectory directory_;
    std::string socket_, instance_, board_;
    warmfork::Descriptor notifications_, listening_, pidfd_;
    pid_t pid_ = 0;
    bool is_ready_ = false;
};

/// A process beside the test that uses the library. It runs `act`, and ends with what that returns
/// (99: it threw).
class ClientProcess {
  public:
    ClientProcess(const TestService& service, std::function<int()> act);
    ~ClientProcess();
    ClientProcess(const ClientProcess&) = delete;
    ClientProcess(ClientProcess&& other) noexcept;
    pid_t pid() const { return pid_; }
    /// Returns a line that it has printed with `say`, or an empty one where it has ended.
    std::string next_line();
    /// Lets a call of `await_cue` in it return.
    void give_cue();
    void kill();
    /// Returns its exit status, 1000 and the signal, or -1 where it still runs after the time.
    int wait(int milliseconds = 300'000);

  private:
    Pipe output_, input_;
    warmfork::Descriptor pidfd_;
    pid_t pid_;
};
void say(const std::string& line);
void await_cue();
bool has_cue();  ///< does not wait

/// Runs it in a process of its own. Returns its exit status.
int as_client(const TestService& service, std::function<int()> act);

/// A client that sends bare messages, which need not be right.
class RawClient {
  public:
    /// Connects, and with `says_hello` waits to be welcomed.
    explicit RawClient(const std::string& path, bool says_hello = true);
    int socket() const { return socket_.get(); }
    int send(warmfork::ServiceKind kind, std::uint64_t id, std::span<const std::byte> body,
             std::span<const int> descriptors = {}, int flags = 0);
    int send_bytes(std::span<const std::byte> bytes, std::span<const int> descriptors = {});
    /// Receives the next message within the time. Returns 0 or errno (ECONNRESET: it was hung up
    /// on, ETIMEDOUT).
    int receive(warmfork::ServiceMessage& ret_message, int milliseconds = 60'000);
    /// Receives the next message of this kind; others are passed over.
    int receive(warmfork::ServiceKind kind, warmfork::ServiceMessage& ret_message);
    /// Is the connection closed on it? What comes before is passed over.
    bool is_hung_up();
    void close() { socket_.reset(); }
    /// Returns what a lease shows; `send` adds it to one that shows nothing.
    std::string sight() const { return warmfork::read_sight(welcome_); }

  private:
    warmfork::Welcome welcome_;
    warmfork::Descriptor socket_;
};

/// Returns how many spares of the template the service holds, as it tells this client.
std::uint64_t parked_spares(RawClient& client, const std::string& name = "probe");

std::vector<std::byte> lease_body(std::uint64_t count = 1, std::uint64_t flags = 1,
                                  const std::string& name = "probe");
