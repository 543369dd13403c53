#include "template/twin.hpp"

#include <signal.h>
#include <sys/prctl.h>
#include <sys/resource.h>

#include <array>

#include "channel/message_socket.hpp"
#include "child/setup.hpp"
#include "protocol/messages.hpp"

namespace warmfork {
namespace {

int close_all_but_image(const InheritedState& inherited, int channel) {
    std::array<int, kMostKept> kept;
    std::size_t count = 0;
    for (int number : {0, 1, 2, channel}) kept[count++] = number;
    for (int number : inherited.image_descriptors) kept[count++] = number;
    return close_all_but(std::span(kept).first(count));
}

/// Waits for the greeting, and returns the file that comes with it. All signals are blocked: only
/// SIGKILL and the end of the child end this.
Descriptor wait_for_greeting(int channel) {
    TwinGreeting greeting{};
    ReceivedMessage received;
    int number = -1;
    int error;
    do
        error = receive_message(channel, std::as_writable_bytes(std::span(&greeting, 1)),
                                std::span(&number, 1), 0, received);
    while (error == EINTR);
    // The child has gone, has become another program, or does not want a twin.
    if (error || received.size != sizeof greeting || greeting.magic != kTwinMagic || number < 0)
        ::_exit(0);
    return Descriptor(number);
}

bool put_on_standard_output(const Descriptor& log) {
    return ::dup2(log.get(), 1) >= 0 && ::dup2(log.get(), 2) >= 0;
}

}  // namespace

TwinBirth leave_twin(const CloneContext& clone, const ChildPlan& plan) {
    const InheritedState& inherited = *plan.inherited;
    TwinBirth birth;
    Descriptor far;
    if (make_message_pair(birth.channel, far)) return {};
    const int child = ::getpid();
    Descriptor pidfd;
    const int pid = clone.clone_child(0, pidfd);
    if (pid < 0) return {};
    if (pid > 0) {
        birth.process = {pid, mark_of(pidfd.get())};
        return birth;
    }

    // A twin that cannot be what it should is none: its owner starts a template of its own then.
    if (::prctl(PR_SET_PDEATHSIG, SIGKILL) < 0 || ::getppid() != child) ::_exit(0);
    wipe(plan.record);  // it is the child's, whose own children this is to make
    birth.channel = std::move(far);
    if (close_all_but_image(inherited, birth.channel.get())) ::_exit(0);
    std::array<char, 16> name{};
    ::prctl(PR_GET_NAME, name.data());
    ::prctl(PR_SET_NAME, "warmfork-twin");

    const Descriptor log = wait_for_greeting(birth.channel.get());
    // The children of a process that no wait sees would not be seen either. So a second one is
    // made, which the child takes over when this one ends.
    if (const int template_pid = clone.clone_child(SIGCHLD, pidfd); template_pid != 0)
        ::_exit(template_pid < 0);
    ::prctl(PR_SET_NAME, name.data());
    const rlimit limit{inherited.soft_descriptor_limit, inherited.hard_descriptor_limit};
    // It gets a group of its own, as every template has, which Ctrl-C does not reach.
    if (!put_on_standard_output(log) || ::setpgid(0, 0) < 0 ||
        ::setrlimit(RLIMIT_NOFILE, &limit) < 0)
        ::_exit(1);
    birth.is_this_process = true;
    return birth;
}

}  // namespace warmfork
