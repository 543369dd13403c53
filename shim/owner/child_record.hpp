// What a child is to become, as the record that it gets. It is made of a request and of what a cold
// child would inherit at this moment.
#pragma once

#include <vector>

#include "channel/descriptor.hpp"
#include "owner/eligibility.hpp"
#include "owner/owner_state.hpp"
#include "owner/request.hpp"

namespace warmfork {

/// How a child is tied to whoever asked for it.
struct ChildTies {
    Lifetime lifetime;  ///< as the child itself is to see to it
    pid_t parent = 0;
    bool has_parent_death_signal = false;
    bool is_of_service = false;  ///< in another session: it gets a process group of its own
};

struct ChildRecord {
    std::vector<std::byte> bytes;
    Descriptor memfd;              ///< holds the bytes, where they are too many to travel inline
    std::vector<int> descriptors;  ///< the owner's, in the order of the record
    Descriptor directory;          ///< the last of them
};

/// Can the request be served warm, as far as its size goes? Fails at stage record with E2BIG where
/// it is more than a record holds, or than execve would take from this process.
[[nodiscard]] Outcome check_size(const Request& request);

/// Makes bytes and memfd. Fails with EINVAL where a value is out of range; otherwise a limit is in
/// the way.
[[nodiscard]] Outcome encode(const RecordContents& contents, ChildRecord& ret_record);

/// Makes a record of what the request says, and what a cold child would inherit `now`, where the
/// image began with `then`. Where it fails and a cold child, which needs no record, could be had,
/// `ret_cold` says why.
[[nodiscard]] Outcome make_child_record(const Request& request, const OwnerState& then,
                                        const OwnerState& now, const ChildTies& ties,
                                        ChildRecord& ret_record, ColdReason& ret_cold);

}  // namespace warmfork
