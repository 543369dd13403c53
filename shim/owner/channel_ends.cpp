#include "owner/channel_ends.hpp"

#include <fcntl.h>
#include <sys/inotify.h>
#include <sys/socket.h>
#include <unistd.h>

#include "channel/doorbell.hpp"
#include "owner/companions.hpp"
#include "protocol/messages.hpp"

namespace warmfork {

bool is_main_thread() {
    return ::gettid() == ::getpid();
}

Outcome make_channel_ends(bool is_shared, ChannelEnds& ret_ends, Descriptor& ret_segment) {
    const auto failed = [](const char* what) { return make_failure(Stage::launch, errno, what); };
    ChannelEnds ends;
    ends.command_bell = KeptDescriptor(make_doorbell());
    ends.completion_bell = KeptDescriptor(make_doorbell());
    if (!ends.command_bell || !ends.completion_bell) return failed("cannot make doorbells");
    // Without one (a user has 128) the template compares its files at each fork.
    ends.inotify = KeptDescriptor(Descriptor(::inotify_init1(IN_NONBLOCK | IN_CLOEXEC)));
    ends.has_inotify = bool(ends.inotify);
    ends.mounts = KeptDescriptor(Descriptor(::open("/proc/self/mountinfo", O_RDONLY | O_CLOEXEC)));
    if (int error = Segment::create(ends.segment, ret_segment))
        return make_failure(Stage::launch, error, "cannot make the shared segment");
    if (is_shared) {
        const std::string path = "/proc/self/fd/" + std::to_string(ret_segment.get());
        ends.shown_segment = KeptDescriptor(Descriptor(::open(path.c_str(), O_RDONLY | O_CLOEXEC)));
        if (!ends.shown_segment) return failed("cannot open the shared segment for reading");
    }
    ret_ends = std::move(ends);
    return {};
}

Outcome connect(const LaunchPlan& plan, const Descriptor& segment, const Lifeline& lifeline,
                ChannelEnds& ends, OwnedSocket& ret_far) {
    if (int error = make_owned_pair(ends.control, ret_far))
        return make_failure(Stage::launch, error, "cannot make the control socket");
    return queue_hello(plan, segment, lifeline, ends);
}

Outcome queue_hello(const LaunchPlan& plan, const Descriptor& segment, const Lifeline& lifeline,
                    const ChannelEnds& ends) {
    const Descriptor owner = open_pidfd(::getpid());
    if (!owner) return make_failure(Stage::launch, errno, "cannot open a pidfd of this process");
    OwnerHello hello{};
    hello.magic = kHelloMagic;
    hello.version = kProtocolVersion;
    hello.flags = is_main_thread() ? kHelloFromMainThread : 0;
    if (plan.nested) hello.flags |= kHelloNested;
    hello.owner_pid = ::getpid();
    hello.spares_least = plan.spares_least;
    hello.spares_most = plan.spares_most;
    std::string strings = find_companion("warmfork-keeper");
    for (const std::string& entry : plan.allowed) strings += '\0' + entry;
    std::vector<int> descriptors{segment.get(), ends.command_bell.get(), ends.completion_bell.get(),
                                 owner.get(), lifeline.shared_end()};
    if (ends.inotify) descriptors.push_back(ends.inotify.get());
    if (int error = send_message(ends.control.get(), bytes_of(hello),
                                 std::as_bytes(std::span(strings)), descriptors, MSG_DONTWAIT))
        return make_failure(Stage::launch, error, "cannot greet the template");
    return {};
}

}  // namespace warmfork
