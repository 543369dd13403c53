// What the tests want to know of processes, and how they wait for them: by events, never by
// sleeping.
#pragma once

#include <sys/types.h>

#include <functional>
#include <string>
#include <vector>

#include "channel/descriptor.hpp"
#include "warmfork.hpp"

/// Returns the children that have not been reaped.
std::vector<int> children_of(pid_t pid);
/// Returns comm, or an empty text where there is no such process.
std::string name_of(pid_t pid);
/// Returns true while it exists and is not a zombie.
bool is_running(pid_t pid);
/// Forks a child that does nothing until a signal ends it. `wanted` is the pid that it is to have,
/// which must be free, or 0 for any. Returns its pid, or -1 where this process may not choose.
pid_t fork_idler(pid_t wanted = 0);
/// Waits for the end of a process that need not be a child. Returns false where it still runs after
/// a minute.
bool has_ended(const warmfork::Descriptor& pidfd);
/// Is this the near end of the connection to warmfork-keeper?
bool is_keeper_socket(int number);
/// Passes a little time that differs from round to round, for a kill to hit any step. It is not a
/// way to wait.
void spin(int rounds);
/// Returns the children of this process that are the template's spares, by their name.
std::vector<int> spares();

/// From now on this process may not make the system call: EPERM. Returns false where the kernel
/// cannot forbid it.
[[nodiscard]] bool refuse_system_call(long number);

/// A pipe whose ends close with it.
struct Pipe {
    Pipe();
    warmfork::Descriptor read_end, write_end;
    /// Reads everything until the end of file. The write end of this process is closed first.
    std::string read_all();
};

/// Descriptors that are sent and not received while it lives.
class InFlight {
  public:
    explicit InFlight(std::size_t count);

  private:
    warmfork::Descriptor sender_, receiver_;
};

/// Waits until it is ready, or cannot be; a minute at most.
void wait_for_image(warmfork::Template& opened);

/// Opens a template of warmfork-probe. Under auto it is ready, if it can be.
warmfork::Template probe_template(int spares = WARMFORK_SPARES_ADAPTIVE,
                                  std::vector<std::string> options = {},
                                  warmfork_backend backend = WARMFORK_BACKEND_WARM,
                                  bool nested = false);

/// A request with everything it borrows, for warmfork-probe with these arguments.
struct ProbeRequest {
    explicit ProbeRequest(std::vector<std::string> arguments);
    ProbeRequest(const ProbeRequest&) = delete;
    std::vector<std::string> arguments;
    std::vector<const char*> pointers;
    std::vector<warmfork_descriptor> descriptors;
    warmfork_request request;
    /// Puts the child's standard output on a pipe.
    void put_output_on(const Pipe& pipe);
    const warmfork_request& get();
};

/// Spawns a probe and returns what it wrote; the status goes to ret_status.
std::string output_of(warmfork::Template& from, ProbeRequest& request, int* ret_status = nullptr);
std::string output_of(warmfork::Template& from, std::vector<std::string> arguments,
                      int* ret_status = nullptr);

/// Runs the test's body in an owner of its own, because it changes that owner for good. The body
/// returns an empty text, or what is wrong.
std::string in_an_owner(const std::function<std::string()>& body);
