// What tests ask of the service, and what it has answered.
#pragma once

#include <sys/wait.h>
#include <unistd.h>

#include <string>

#include "support/service.hpp"

namespace warmfork {

/// Spawns a probe that exits with 7 and returns its status.
inline int spawn_once(const std::string& name = "probe") {
    Template table = Template::connect(name, WARMFORK_BACKEND_WARM);
    return WEXITSTATUS(table.spawn({WARMFORK_PROBE, "exit", "7"}).wait());
}

inline int spawns_in(const TestService& service, const std::string& name = "probe") {
    return as_client(service, [&] { return spawn_once(name); });
}

/// For a client's process: spawns a child that ignores SIGTERM, says its pid when it does, and
/// holds it until the cue.
inline int hold_stubborn_child() {
    Template table = Template::connect("probe", WARMFORK_BACKEND_WARM);
    Pipe output;
    ProbeRequest request({"stubborn"});
    request.put_output_on(output);
    Process child = table.spawn(request.get());
    char byte;
    if (::read(output.read_end.get(), &byte, 1) != 1) return 1;
    say(std::to_string(child.pid()));
    await_cue();
    return 0;
}

inline std::uint64_t error_of(const ServiceMessage& refused) {
    const auto refusal = read_refusal(refused.body);
    return refusal ? refusal->error_number : 0;
}

inline std::string text_of_refusal(const ServiceMessage& refused) {
    const auto refusal = read_refusal(refused.body);
    return refusal ? refusal->text : "";
}

/// Leases one child; the message holds its pidfd and mailbox.
inline ServiceMessage lease_one(RawClient& client, std::uint64_t request = 1,
                                const std::string& name = "probe") {
    ServiceMessage leased;
    client.send(ServiceKind::lease, request, lease_body(1, kLeaseMayWait, name));
    while (client.receive(leased) == 0)
        if (leased.kind == ServiceKind::leased || leased.kind == ServiceKind::refused) break;
    return leased;
}

/// Its pid, once for all.
inline pid_t pid_of(const ServiceMessage& leased) {
    const auto child = read_leased_child(leased.body);
    return child ? static_cast<pid_t>(child->pid) : 0;
}

}  // namespace warmfork
