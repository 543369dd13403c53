#include "template/serve.hpp"

#include <fmt/format.h>
#include <signal.h>
#include <sys/prctl.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>

#include "channel/message_socket.hpp"
#include "child/setup.hpp"
#include "template/huge_pages.hpp"
#include "template/template_server.hpp"

namespace warmfork {
namespace {

// What this process serves, or, in a child, what it was forked from, for a layer on top of that
// image. It owns descriptors that are closed there, whose numbers may be the child's, so that only
// a template deletes it.
TemplateServer* served = nullptr;
// The program's signal mask before it served.
std::uint64_t program_mask = 0;

std::optional<ServeFailure> open(Descriptor control, const PreloadInterface& preload, Host& host,
                                 const Origin& origin) {
    Connection connection;
    if (int error = open_connection(std::move(control), connection))
        return ServeFailure{
            error, fmt::format("cannot open the channel to the owner: {}", std::strerror(error))};
    // A template that is stopped when its owner ends goes on, and sees that. The kernel sends this
    // whenever the thread ends that the template is a child of, which does no harm.
    if (::prctl(PR_SET_PDEATHSIG, SIGCONT, 0, 0, 0) < 0)
        return ServeFailure{errno, fmt::format("cannot ask for a signal at the owner's end: {}",
                                               std::strerror(errno))};
    std::fflush(nullptr);
    program_mask = signal_mask();
    if (!set_signal_mask(kAllSignals))
        return ServeFailure{errno, fmt::format("cannot block signals: {}", std::strerror(errno))};
    auto server = std::make_unique<TemplateServer>(std::move(connection), preload, host, origin);
    if (std::string obstacle = server->open_gate(); !obstacle.empty())
        return ServeFailure{EBUSY, std::move(obstacle)};
    served = server.release();
    return {};
}

/// Makes a twin that has been woken a template, which serves its new channel.
void become_template(Host& host, Descriptor control) {
    const ProcessIdentity self = identify_self();
    const TwinReply reply{kTwinMagic, self.pid, self.mark};
    if (send_message(control.get(), bytes_of(reply), {}, {}, 0)) ::_exit(0);
    const auto failure = open(std::move(control), *find_preload(), host, {served});
    if (!failure) return;
    fmt::print(stderr, "{}\n", failure->text);
    ::_exit(1);
}

void end_serving() {
    // What the program does behind `serve` is for the template's own end.
    if (served->is_twin()) ::_exit(0);
    delete std::exchange(served, nullptr);
    // It could be set before; with another one the program would end as well.
    static_cast<void>(set_signal_mask(program_mask));
}

}  // namespace

int announce_template(int channel) {
    const PreloadInterface* preload = find_preload();
    if (channel < 0 && preload) channel = preload->channel;
    return channel < 0 ? ENOTCONN : say_hello(channel);
}

bool is_launched_as_template() {
    const PreloadInterface* preload = find_preload();
    return preload && preload->channel >= 0;
}

std::optional<ServeFailure> open_channel(Host& host) {
    const PreloadInterface* preload = find_preload();
    if (!preload || preload->channel < 0)
        return ServeFailure{ENOTCONN, "this program was not started as a warmfork template"};
    // The program has shown what it is.
    ::unsetenv(kLaunchVariable);
    use_huge_pages();
    return open(Descriptor(preload->take_channel()), *preload, host, {});
}

std::optional<ServeFailure> open_layer(Host& host, Descriptor channel) {
    const PreloadInterface* preload = find_preload();
    if (!preload || !served)
        return ServeFailure{ENOTCONN, "this process is no child of a warmfork template"};
    return open(std::move(channel), *preload, host, {served, true});
}

bool serve(ChildCommand& ret_command) {
    for (;;) {
        const Decision decision = served->decide();
        if (decision.action == Decision::Action::end) {
            end_serving();
            return false;
        }
        if (decision.action == Decision::Action::sleep) {
            served->sleep();
            continue;
        }
        ForkResult fork =
            served->forker().fork(decision.plan, *decision.shown_pid, served->own_descriptors());
        switch (fork.self) {
            case ForkResult::Self::server:
                served->note_fork(std::move(fork));
                break;
            case ForkResult::Self::twin:
                become_template(*decision.plan.inherited->host, std::move(fork.channel));
                break;
            case ForkResult::Self::child:
                ret_command = run_child(decision.plan);
                return true;
        }
    }
}

}  // namespace warmfork
