// Cgroups of the service's clients, where systemd has delegated a cgroup to this service
// (Delegate=yes) and it is of version 2. Below that one lie
//
//     daemon                     this service, its templates, parked children that nobody has
//     client-PID-ID-TEMPLATE     children of a client, with the limits of their template
//     detached-TEMPLATE          what outlives its client: detached children, and what children
//                                that ended by themselves have left running
//
// It is passive: files are written when something is called. Nothing is remembered but where they
// lie, so that the process after an exec finds everything as it was. Calls are safe from several
// threads.
#pragma once

#include <sys/types.h>

#include <compare>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "channel/descriptor.hpp"
#include "service/configuration.hpp"

namespace warmfork::service {

class Cgroups {
  public:
    /// Whose children they are: a client's, by its number and pid, or, with 0 and 0, those that
    /// outlive their client.
    struct Owner {
        std::uint64_t id = 0;
        pid_t pid = 0;

        auto operator<=>(const Owner&) const = default;
    };

    /// There are no cgroups, and every call does nothing.
    Cgroups() = default;
    /// The cgroups are to lie below this directory.
    explicit Cgroups(std::string root);

    /// Moves this process out of the cgroup that was delegated to it, into `daemon` below it, and
    /// enables the controllers. The caller has to know whether it was delegated: being able to
    /// write is no sign, since a user's cgroups are all the user's and yet the user's systemd has
    /// them, and not every systemd marks them (user.delegate). Returns false where it cannot be
    /// used. `ret_error` says why, or which controller cannot.
    [[nodiscard]] static bool adopt(Cgroups& ret_cgroups, std::string& ret_error);
    /// Takes the controllers back where a daemon was killed and its children still run, for the
    /// unit's ExecStopPost=: no process could be started in the cgroup itself as long as they are
    /// enabled for those below. This process is in a cgroup beside them (systemd's .control).
    static void release();

    explicit operator bool() const { return !root_.empty(); }

    /// Moves a process to its owner's cgroup, which is made, and with it the children that it has
    /// by then. Blocks for several milliseconds, until all processors have been through the
    /// scheduler, unless it was called just before. Returns 0 or errno (ESRCH: there is no such
    /// process). `ret_missing` says which limit could not be set first, and why.
    [[nodiscard]] int place(pid_t pid, const Owner& owner, const std::string& template_name,
                            const CgroupLimits& limits, std::string& ret_missing) const;
    /// Moves what an owner has to where what outlives its client lives, with the same limits, but
    /// for the processes `kept`: what forks faster than it is moved stays. Blocks as place() does,
    /// if there is something.
    void let_live(const Owner& owner, const std::vector<pid_t>& kept) const;
    /// Sends SIGKILL to all that an owner has.
    void kill(const Owner& owner) const;
    /// Removes its empty cgroups. Returns false where a process is left in one.
    [[nodiscard]] bool remove(const Owner& owner) const;
    /// Returns the memory of all that it has, in bytes, or 0 where it is not known (no memory
    /// controller).
    [[nodiscard]] std::uint64_t memory(const Owner& owner) const;
    /// Returns the processor time that its children have had, in microseconds, as far as the
    /// owner's cgroups are still there.
    [[nodiscard]] std::uint64_t cpu_time(const Owner& owner) const;
    /// Returns all owners that have cgroups here, those of a service that has died as well.
    [[nodiscard]] std::vector<Owner> owners() const;

  private:
    [[nodiscard]] std::vector<std::string> directories(const Owner& owner) const;

    std::string root_;
};

}  // namespace warmfork::service
