// How a template makes children: the gate before the first fork, spares ahead of need, the fork.
#include <fmt/format.h>
#include <poll.h>
#include <signal.h>
#include <sys/socket.h>

#include <algorithm>
#include <cstring>

#include "channel/message_socket.hpp"
#include "channel/stopping_point.hpp"
#include "child/proc_entries.hpp"
#include "child/setup.hpp"
#include "template/output.hpp"
#include "template/parking_token.hpp"
#include "template/template_server.hpp"
#include "template/twin.hpp"

namespace warmfork {
namespace {

using Clock = SparePolicy::Clock;

constexpr std::size_t kMostImageDescriptors = 256;

/// By its name, which it takes last; the mailbox on which it says so is the owner's.
bool has_parked(int pid) {
    std::array<char, 32> buffer;
    return read_line(NumberedPath("/proc/", pid, "/comm").get(), buffer) == kSpareName;
}

void stop_ending_by_signal(int control) {
    ::fcntl(control, F_SETFL, ::fcntl(control, F_GETFL) & ~O_ASYNC);
}

/// What a fork handler starts, a thread or a process, inherits the signal mask: that of a process
/// which has just begun, rather than one without any signal. The template's own handlers of signals
/// do not run here: where they cannot be taken back all stay blocked, and the set-up, which does
/// the same, says so.
void take_signals_by_default() {
    if (reset_handlers()) set_signal_mask(0);
}

}  // namespace

void end_with_owner_by_signal(int control) {
    ::fcntl(control, F_SETSIG, SIGKILL);
    ::fcntl(control, F_SETOWN, ::getpid());
    ::fcntl(control, F_SETFL, ::fcntl(control, F_GETFL) | O_ASYNC);
    // It may have ended just before.
    pollfd polled{control, 0, 0};
    if (::poll(&polled, 1, 0) > 0) ::_exit(0);
}

/// Sorted.
std::vector<int> TemplateServer::own_descriptors() const {
    std::vector<int> own{0,
                         1,
                         2,
                         connection_.control.get(),
                         connection_.command_bell.get(),
                         connection_.completion_bell.get(),
                         connection_.owner_pidfd.get(),
                         connection_.inotify.get(),
                         freshness_.mounts(),
                         child_mailbox_,
                         plan_.parking_token.get()};
    for (const auto* descriptors : {&spawn_descriptors_, &spawn_mailboxes_})
        for (const Descriptor& descriptor : *descriptors) own.push_back(descriptor.get());
    for (const Child& child : children_)
        for (int number : {child.pidfd.get(), child.token.get()}) own.push_back(number);
    std::sort(own.begin(), own.end());
    return own;
}

std::string TemplateServer::open_gate() {
    stopping_point("template.preloaded");
    std::string obstacle = host_.obstacle();
    std::vector<std::int32_t> image;
    for (const DescriptorFact& fact : list_descriptors(own_descriptors()))
        image.push_back(fact.number);
    if (image.size() > kMostImageDescriptors && obstacle.empty())
        obstacle = fmt::format("not safe to fork: preloading left {} descriptors open; {} at most",
                               image.size(), kMostImageDescriptors);
    if (int error = clone_.prepare(); error && obstacle.empty())
        obstacle = error == EBUSY ? "not safe to fork: the main thread holds a robust mutex"
                                  : fmt::format(
                                        "cannot fork: the kernel does not tell the address "
                                        "of the thread id (PR_GET_TID_ADDRESS): {}",
                                        std::strerror(error));
    if (int error = handler_timer_.error(); error && obstacle.empty())
        obstacle =
            fmt::format("cannot fork: there is no timer for fork handlers that do not return: {}",
                        std::strerror(error));
    if (obstacle.empty()) obstacle = libraries_in_the_way(preload_);
    if (obstacle.empty()) obstacle = findings_in_the_way(check_.allowed(), host_.findings());
    if (obstacle.empty())
        obstacle = mappings_in_the_way(check_.allowed(), {&connection_.segment.layout()});
    if (obstacle.empty()) {
        // The handlers are part of what makes one thread: OpenBLAS ends its pool in its own.
        // One that does not return is the owner's to see, whose end ends this process.
        const AtforkRun handlers(preload_);
        check_.prepare(own_descriptors());
        host_.before_fork();
        handlers.prepare();
        const bool is_safe = check_.is_safe();
        handlers.parent();
        host_.after_fork_in_template();
        check_.finish(0);
        if (!is_safe) obstacle = check_.obstacle();
    }
    plan_.image_descriptors.assign(image.begin(), image.end());
    describe_image();
    // Before the owner may send anything; from here on the loop watches it.
    stop_ending_by_signal(connection_.control.get());
    if (obstacle.empty())
        outbox_.add(make_frame(FrameKind::ready, 0, ::getpid()), std::as_bytes(std::span(image)));
    else
        outbox_.add(make_frame(FrameKind::refused), obstacle);
    return obstacle;
}

std::optional<ChildCommand> TemplateServer::refill() {
    if (!refill_is_due()) return {};
    ForkFailure failure{};
    Descriptor mailbox;
    // Not a variable here: the child comes back this way, and must not close what has this number
    // by then.
    plan_.parking_token = make_parking_token();
    if (plan_.parking_token && make_spare_mailbox(mailbox) == 0) {
        if (auto command =
                give_birth(State::parked, 0, Lifetime::owner, std::move(mailbox), failure))
            return command;
        if (failure.stage == Stage::none)
            children_.back().token = std::move(plan_.parking_token);
        else
            outbox_.add(make_frame(FrameKind::gone, last_child_id_));
    } else {
        failure.stage = Stage::fork;
    }
    plan_.parking_token.reset();
    // Not an error of any spawn: the next one finds none parked, and is told why by its own fork.
    if (failure.stage != Stage::none && !socket_is_full_) policy_.spare_failed(Clock::now());
    return {};
}

/// Makes the mailbox of the next child and sends the owner its end. Returns 0 or errno; where the
/// socket is full `socket_is_full_` is set.
int TemplateServer::make_spare_mailbox(Descriptor& ret_child_end) {
    Descriptor owner_end, child_end;
    if (int error = make_message_pair(owner_end, child_end)) return error;
    const auto now = std::chrono::duration_cast<std::chrono::nanoseconds>(
        Clock::now().time_since_epoch());  // steady_clock is CLOCK_MONOTONIC
    const MailboxMessage message{last_child_id_ + 1, now.count()};
    const int number = owner_end.get();
    const int error = send_message(connection_.control.get(), bytes_of(message), {},
                                   std::span(&number, 1), MSG_DONTWAIT);
    socket_is_full_ = error == EAGAIN;
    if (!error) ret_child_end = std::move(child_end);
    return error;
}

/// Where the kernel is to write the pid.
std::atomic<std::int32_t>& TemplateServer::show_newborn(std::uint64_t id, std::uint64_t spawn_id) {
    Newborn& newborn = connection_.segment.layout().newborns[id % kNewborns];
    newborn.pid = 0;
    newborn.mark = 0;
    newborn.id = id;
    newborn.spawn = spawn_id;
    return newborn.pid;
}

std::optional<ChildCommand> TemplateServer::give_birth(State state, std::uint64_t spawn_id,
                                                       Lifetime lifetime, Descriptor mailbox,
                                                       ForkFailure& ret_failure) {
    stopping_point("template.before-fork");
    const std::uint64_t id = ++last_child_id_;
    child_mailbox_ = mailbox.get();
    const AtforkRun handlers(preload_);
    check_.prepare(own_descriptors());
    handler_timer_.start();
    host_.before_fork();
    handlers.prepare();
    // From here to the handlers that follow the fork, in this process, in the child and in its
    // twin, nothing allocates or takes a lock: malloc's own may be held.
    Descriptor pidfd;
    const bool is_safe = check_.is_safe();
    handler_timer_.stop();  // the fork itself takes as long as it takes
    const auto began = Clock::now();
    const int pid = is_safe ? clone_.clone_sibling(show_newborn(id, spawn_id), pidfd) : -ECANCELED;
    stopping_point(pid == 0 ? "child.forked" : "template.forked");
    if (pid == 0) {
        TwinBirth twin;
        // Before the handlers, so that the twin is as little touched as the template itself.
        if (connection_.hello.flags & kHelloNested) twin = leave_twin(clone_, plan_, mailbox);
        if (!twin.is_this_process) take_signals_by_default();
        handlers.child();
        host_.after_fork_in_child();
        set_signal_mask(kAllSignals);
        if (twin.is_this_process) return serve_as_twin(std::move(twin.channel));
        if (twin.channel)
            plan_.image_descriptors.push_back(
                host_.keep_twin(twin.process, std::move(twin.channel), facts_));
        return live_until_user_code(plan_, std::move(mailbox));
    }
    fork_microseconds_ = std::chrono::duration<double, std::micro>(Clock::now() - began).count();
    handler_timer_.start();
    handlers.parent();
    host_.after_fork_in_template();
    handler_timer_.stop();
    check_.finish(pid > 0 ? 1 : 0);  // the pidfd
    bound_output();
    if (pid < 0) {
        if (is_safe)
            ret_failure = {Stage::fork, -pid, "the template cannot fork"};
        else
            ret_failure = {Stage::gate, EBUSY, check_.obstacle()};
        return {};
    }
    const std::uint64_t mark = mark_of(pidfd.get());
    connection_.segment.layout().newborns[id % kNewborns].mark = mark;
    children_.push_back({id, pid, std::move(pidfd), state, lifetime, Clock::now()});
    children_.back().is_expected = state == State::parked;
    outbox_.add(make_frame(FrameKind::born, id, pid, static_cast<std::int64_t>(spawn_id)),
                bytes_of(mark));
    stopping_point("template.birth-told");
    return {};
}

/// In a twin that has been woken. Returns the command in each child, and never in the twin.
std::optional<ChildCommand> TemplateServer::serve_as_twin(Descriptor control) {
    const ProcessIdentity self = identify_self();
    const TwinReply reply{kTwinMagic, self.pid, self.mark};
    if (send_message(control.get(), bytes_of(reply), {}, {}, 0)) ::_exit(0);
    const ServeResult result = serve_channel(std::move(control), preload_, host_, {this});
    if (result.end == ServeResult::End::child) return result.command;
    // By no other way: what the program does behind `serve` is for the template's own end.
    if (result.end == ServeResult::End::failed) fmt::print(stderr, "{}\n", result.error);
    ::_exit(result.end == ServeResult::End::failed);
}

std::vector<SpareFact> TemplateServer::spare_facts() const {
    std::vector<SpareFact> facts;
    for (const Child& child : children_)
        if (child.state == State::parked && !child.ended)
            facts.push_back({child.pid, has_parked(child.pid),
                             std::chrono::duration<double>(Clock::now() - child.born).count()});
    return facts;
}

/// Writes into the log which spares have not parked in time. Once for each: when it is due.
void TemplateServer::look_at_expected_spares() {
    const auto due = Clock::now() - kSparePatience;
    for (Child& child : children_) {
        if (!child.is_expected || child.born > due) continue;
        child.is_expected = false;
        if (child.state != State::parked || child.ended || has_parked(child.pid)) continue;
        fmt::print(stderr,
                   "warmfork: the child {} that was forked ahead of need is not prepared after {} "
                   "seconds: a fork handler of what is preloaded (os.register_at_fork, "
                   "pthread_atfork) does not return\n",
                   child.pid, kSparePatience.count());
    }
}

}  // namespace warmfork
