#include "owner/child_record.hpp"

#include <fcntl.h>
#include <sys/resource.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "channel/message_socket.hpp"
#include "protocol/messages.hpp"

namespace warmfork {
namespace {

/// Returns the size that execve counts: the strings, and a pointer to each.
std::size_t size_at_exec(const Request& request) {
    std::size_t size = request.program().size() + 1;
    for (std::span<char* const> strings : {request.arguments(), request.environment()})
        for (const char* string : strings) size += std::strlen(string) + 1 + sizeof(char*);
    return size;
}

/// Returns a little less than execve takes of them here: see bprm_stack_limits in Linux' fs/exec.c.
std::size_t largest_size_at_exec() {
    constexpr rlim_t kLeast = 128u << 10, kMost = 6u << 20, kRest = 4096;
    rlimit stack{};
    ::getrlimit(RLIMIT_STACK, &stack);
    return std::clamp(stack.rlim_cur / 4, kLeast, kMost) - kRest;
}

}  // namespace

Outcome make_child_record(const Request& request, const OwnerState& then, const OwnerState& now,
                          const ChildTies& ties, ChildRecord& ret_record, ColdReason& ret_cold) {
    RecordContents contents = request.contents();
    add_differences(then, now, contents);
    RecordHeader& header = contents.header;
    header.lifetime = ties.lifetime;
    header.owner_pid = ties.parent;
    header.flags |= kRecordSignalMask | kRecordSignalsIgnored | kRecordDirectoryDescriptor;
    if (ties.has_parent_death_signal) header.flags |= kRecordParentDeathSignal;
    header.signals_ignored = (now.signals_ignored & ~request.signals_default()) |
                             request.contents().header.signals_ignored;
    if (!request.has_signal_mask()) header.signal_mask = now.signal_mask;
    if (!(header.flags & (kRecordNewSession | kRecordProcessGroup))) {
        header.flags |= kRecordProcessGroup;
        header.process_group = ties.is_of_service ? 0 : now.process_group;
    }
    ChildRecord record;
    record.directory = Descriptor(::open(".", O_PATH | O_DIRECTORY | O_CLOEXEC));
    if (!record.directory) {
        // A directory that may not be entered (after su, or sudo -u) is inherited all the same.
        const bool may_not_enter = errno == EACCES;
        Failure failure = make_failure(Stage::directory, errno, "cannot enter the directory .");
        ret_cold = {may_not_enter ? WARMFORK_REASON_OWNER_CHANGED : WARMFORK_REASON_LIMITS,
                    failure.text};
        return failure;
    }
    record.descriptors = request.sources();
    record.descriptors.push_back(record.directory.get());
    if (Outcome failure = encode(contents, record)) {
        if (failure->error_number != EINVAL) ret_cold = {WARMFORK_REASON_LIMITS, failure->text};
        return failure;
    }
    ret_record = std::move(record);
    return {};
}

Outcome check_size(const Request& request) {
    const auto too_large = [](const char* what) {
        return make_failure(Stage::record, E2BIG, what);
    };
    if (!fits_into_record(request.contents()))
        return too_large("the request does not fit into a record");
    if (size_at_exec(request) >= largest_size_at_exec())
        return too_large("arguments and environment are more than an exec takes");
    return {};
}

Outcome encode(const RecordContents& contents, ChildRecord& ret_record) {
    if (int error = encode_record(contents, ret_record.bytes))
        return make_failure(Stage::record, error, "cannot make a record of the request");
    if (ret_record.bytes.size() <= kInlineRecordSize) return {};
    ret_record.memfd = make_sealed_memfd(ret_record.bytes);
    if (!ret_record.memfd)
        return make_failure(Stage::record, errno, "cannot make a memfd for the record");
    return {};
}

}  // namespace warmfork
