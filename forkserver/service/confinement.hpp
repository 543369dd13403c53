// Is a client confined in a way that a child of this service would not be?
#pragma once

#include <chrono>
#include <deque>
#include <string>
#include <string_view>
#include <vector>

#include "channel/descriptor.hpp"
#include "service/peer.hpp"

namespace warmfork::service {

/// Says in what the peer's first thread differs now from this process, of all that can confine a
/// process and that a child has from the service: namespaces, root directory, ids, groups,
/// capabilities, no_new_privs, filters of system calls. `ret_difference` is empty where there is no
/// difference; what cannot be looked at is one. It takes some twenty system calls. Returns 0, or
/// EMFILE or ENFILE where no descriptor is free to look with.
[[nodiscard]] int find_confinement(const Peer& peer, std::string& ret_difference);

/// A text that a process can read only if the kernel lets it look at this one: it is the name of a
/// file behind one of its descriptors, /proc/PID/fd/NUMBER. Landlock shows nowhere, but it forbids
/// that, as do other user namespaces and security modules. A text is good for a while after the
/// next has taken its place, so a process that confines itself later cannot show one for long.
class Sight {
  public:
    using Clock = std::chrono::steady_clock;

    /// Throws std::system_error where there can be no such file.
    Sight();
    /// Goes on with what the service before this one has left.
    Sight(Descriptor file, std::vector<std::string> retired);

    int number() const { return file_.get(); }
    [[nodiscard]] std::vector<std::string> retired() const;
    /// Compares what a client has read with what could be read now, or until it was replaced of
    /// late; drops those that were replaced too long ago.
    [[nodiscard]] bool verify(std::string_view text, Clock::time_point now);
    /// Puts the next in its place, under the same number. Where that fails the last one stays.
    void renew(Clock::time_point now);

  private:
    struct Retired {
        std::string text;
        Clock::time_point at;
    };
    [[nodiscard]] std::string current() const;

    Descriptor file_;
    std::deque<Retired> retired_;
};

}  // namespace warmfork::service
