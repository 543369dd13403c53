#include "template/template_server.hpp"

#include <fmt/format.h>
#include <poll.h>
#include <signal.h>

#include <algorithm>
#include <array>
#include <cstring>

#include "channel/message_socket.hpp"
#include "channel/stopping_point.hpp"

namespace warmfork {
namespace {

using Clock = SparePolicy::Clock;

constexpr std::size_t kStringsFrameSize = 8u << 10;  // several fit into the completion ring

std::span<std::byte> ring_bytes(std::byte* bytes, std::size_t size) {
    return {bytes, size};
}

std::set<std::string> without_allowed(std::set<std::string> shadowable, const AllowList& allowed) {
    std::erase_if(shadowable, [&](const std::string& entry) {
        const std::string dependence = dependence_of(entry);
        return !dependence.empty() && allowed.finding(dependence);
    });
    return shadowable;
}

}  // namespace

TemplateServer::TemplateServer(Connection connection, const PreloadInterface& preload, Host& host,
                               const Origin& origin)
    : connection_(std::move(connection)),
      commands_(connection_.segment.layout().command_ring,
                ring_bytes(connection_.segment.layout().command_bytes, kCommandRingSize)),
      outbox_(RingWriter(
                  connection_.segment.layout().completion_ring,
                  ring_bytes(connection_.segment.layout().completion_bytes, kCompletionRingSize)),
              connection_.completion_bell),
      preload_(preload),
      host_(host),
      origin_(origin),
      forker_(preload, host, AllowList(connection_.allowed), connection_.owner_pidfd.get(),
              connection_.hello.flags & kHelloNested, facts_),
      freshness_(connection_.inotify.get(), connection_.segment.layout().freshness) {
    policy_.set_range(connection_.hello.spares_least, connection_.hello.spares_most);
    payload_.reserve(kMaximumFramePayload);
    owner_stack_ = owner_stack();
}

std::string TemplateServer::open_gate() {
    std::string obstacle = forker_.find_obstacle(own_descriptors(), &connection_.segment.layout());
    describe_image();
    const bool lacks_memory = obstacle.empty() && !facts_.has_memory;
    if (lacks_memory)
        obstacle =
            "there is no memory to note what preloading reads: the limit on data or address space "
            "leaves less than 64 MiB";
    // Before the owner may have children of this template; from here on this side watches it.
    outlive_lifeline(connection_);
    if (obstacle.empty())
        outbox_.add(make_frame(FrameKind::ready, 0, ::getpid()),
                    std::as_bytes(std::span(forker_.inherited().image_descriptors)));
    else
        outbox_.add(make_frame(FrameKind::refused, 0, lacks_memory ? ENOMEM : EBUSY), obstacle);
    return obstacle;
}

/// Tells the owner what the image depends on, ahead of `ready`, and begins to watch it.
void TemplateServer::describe_image() {
    if (origin_.base) facts_ = origin_.base->facts_;
    if (!origin_.base || origin_.is_extended) {
        add_recorded_reads(preload_, facts_);
        host_.describe(facts_);
    }
    const auto add_strings = [this](FrameKind kind, const std::set<std::string>& strings,
                                    bool flag) {
        std::string text;
        const auto send = [&] {
            outbox_.add(make_frame(kind, 0, flag), std::as_bytes(std::span(text)));
            text.clear();
        };
        for (const std::string& string : strings) {
            if (string.size() >= kStringsFrameSize) {
                flag = true;
                continue;
            }
            if (text.size() + string.size() >= kStringsFrameSize) send();
            text.append(string.c_str(), string.size() + 1);
        }
        send();
    };
    add_strings(FrameKind::variables, facts_.variables, facts_.reads_all_variables);
    add_strings(FrameKind::shadowable, without_allowed(facts_.shadowable, forker_.allowed()),
                false);
    freshness_.watch(facts_, origin_.base ? &origin_.base->freshness_ : nullptr);
    static_cast<void>(check_freshness());
}

/// Looks whether the image is fresh, and tells the owner once if it is not.
bool TemplateServer::check_freshness(bool is_asked) {
    const bool fresh = freshness_.check(is_asked);
    if (!fresh && !std::exchange(said_stale_, true))
        outbox_.add(make_frame(FrameKind::stale), freshness_.change());
    return fresh;
}

Decision TemplateServer::decide() {
    if (spawn_) return fork_for_command();
    outbox_.flush();
    if (outbox_.broken() || owner_is_gone_) return end();
    if (!outbox_.empty() || std::exchange(must_look_, false)) return {Decision::Action::sleep};
    take_commands();
    if (spawn_) return fork_for_command();
    if (owner_is_gone_ || shut_down_) return end();
    drop_ended_children();
    policy_.tick(Clock::now());
    give_up_surplus();
    look_at_expected_spares();
    if (refill_is_due() && prepare_spare()) return fork_spare();
    return {Decision::Action::sleep};
}

/// Takes commands until one asks for children.
void TemplateServer::take_commands() {
    FrameHeader header;
    while (outbox_.empty() && !shut_down_ && !owner_is_gone_ && !spawn_) {
        const Pop popped = commands_.pop(header, payload_);
        if (popped == Pop::broken) owner_is_gone_ = true;
        if (popped != Pop::frame) return;
        take_command(header);
        if (!spawn_) outbox_.ring_if_peer_waits_for_room();
    }
}

void TemplateServer::take_command(const FrameHeader& header) {
    switch (header.kind) {
        case FrameKind::spawn:
            return begin_spawn(header);
        case FrameKind::handed_off:
            return hand_off(header);
        case FrameKind::park:
            return set_range(header);
        case FrameKind::report:
            return report(header);
        case FrameKind::shut_down:
            shut_down_ = true;
            return;
        case FrameKind::look:
            outbox_.add(make_frame(FrameKind::looked, header.id, check_freshness()));
            return;
        default:
            owner_is_gone_ = true;
    }
}

void TemplateServer::begin_spawn(const FrameHeader& header) {
    spawn_.emplace(header, payload_);
    const std::string error = spawn_->receive(connection_.control.get());
    stopping_point("template.command-taken");
    // This is asked also where a stale image will do: the owner wants to know, and to preload
    // another.
    const bool fresh = check_freshness();
    if (!error.empty())
        finish_spawn({Stage::record, EBADMSG, "the spawn record is not valid: " + error});
    else if (!fresh && !spawn_->takes_stale_image())
        finish_spawn({Stage::stale, ESTALE, freshness_.change()});
}

void TemplateServer::finish_spawn(const ForkFailure& failure) {
    // It is said before the mailboxes are closed, which is what the owner waits for.
    if (failure.stage != Stage::none)
        outbox_.add(make_frame(FrameKind::not_born, spawn_->id(),
                               static_cast<std::int64_t>(failure.stage), failure.error_number),
                    failure.text);
    spawn_.reset();
    policy_.none_was_parked(Clock::now());
    outbox_.ring_if_peer_waits_for_room();
}

void TemplateServer::hand_off(const FrameHeader& header) {
    for (Child& child : children_) {
        if (child.id != header.id || child.state == State::running) continue;
        child.state = header.values[1] == kHandedOffToEnd ? State::given_up : State::running;
        child.token.reset();
        child.lifetime = header.values[0] == static_cast<std::int64_t>(Lifetime::detached)
                             ? Lifetime::detached
                             : Lifetime::owner;
        policy_.spare_taken(Clock::now());
    }
}

void TemplateServer::set_range(const FrameHeader& header) {
    const auto bounded = [](std::int64_t value) {
        return static_cast<std::uint32_t>(
            std::clamp<std::int64_t>(value, 0, static_cast<std::int64_t>(kMaximumSpares)));
    };
    policy_.set_range(bounded(header.values[0]), bounded(header.values[1]));
}

void TemplateServer::report(const FrameHeader& header) {
    const std::string json = make_report(own_descriptors(), forker_.last_microseconds(), freshness_,
                                         spare_facts(), dependences_of(facts_.shadowable), host_);
    outbox_.add(make_frame(FrameKind::reported, header.id), std::as_bytes(std::span(json)));
}

// Forks are decided on one at a time.

Newborn& TemplateServer::newborn(std::uint64_t id) const {
    return connection_.segment.layout().newborns[id % kNewborns];
}

/// Decides on a fork. `spawn_id` is 0 for a spare.
Decision TemplateServer::decide_fork(const ChildPlan& plan, std::uint64_t spawn_id) {
    stopping_point("template.before-fork");
    const std::uint64_t id = ++last_child_id_;
    Newborn& shown = newborn(id);
    shown.pid = 0;
    shown.mark = 0;
    shown.id = id;
    shown.spawn = spawn_id;
    return {Decision::Action::fork, plan, &shown.pid};
}

Decision TemplateServer::fork_for_command() {
    return decide_fork({.inherited = &forker_.inherited(),
                        .mailbox = spawn_->mailbox(),
                        .record = spawn_->record(),
                        .descriptors = spawn_->descriptors()},
                       spawn_->id());
}

Decision TemplateServer::fork_spare() {
    return decide_fork({.inherited = &forker_.inherited(),
                        .mailbox = spare_->mailbox.get(),
                        .parking_token = spare_->token.get()},
                       0);
}

void TemplateServer::note_fork(ForkResult fork) {
    const ForkFailure failure = std::move(fork.failure);
    if (failure.stage == Stage::none) tell_birth(std::move(fork));
    if (spare_)
        note_spare(failure);
    else if (failure.stage != Stage::none || !spawn_->go_on())
        finish_spawn(failure);
}

void TemplateServer::tell_birth(ForkResult fork) {
    const std::uint64_t id = last_child_id_, mark = mark_of(fork.pidfd.get());
    newborn(id).mark = mark;
    children_.push_back({id, fork.pid, std::move(fork.pidfd),
                         spare_ ? State::parked : State::running,
                         spare_ ? Lifetime::owner : spawn_->lifetime(), Clock::now()});
    children_.back().is_expected = spare_.has_value();
    children_.back().ended = !children_.back().pidfd;  // and has been reaped
    const std::uint64_t spawn_id = spare_ ? 0 : spawn_->id();
    outbox_.add(make_frame(FrameKind::born, id, fork.pid, static_cast<std::int64_t>(spawn_id)),
                bytes_of(mark));
    stopping_point("template.birth-told");
}

int TemplateServer::sleep_milliseconds() const {
    if (!outbox_.empty()) return -1;
    if (refill_is_due()) return 0;
    const auto now = Clock::now();
    auto next = policy_.next_change(parked(), now);
    for (const Child& child : children_)
        if (child.is_expected)
            next = std::min(next.value_or(Clock::time_point::max()), child.born + kSparePatience);
    if (!next) return -1;
    const auto left = std::chrono::ceil<std::chrono::milliseconds>(*next - now).count();
    return static_cast<int>(std::max<std::int64_t>(left, 0));
}

void TemplateServer::sleep() {
    const bool wants_room = !outbox_.empty();
    commands_.going_to_sleep(wants_room ? WakeFor::frames_and_room : WakeFor::frames);
    if (wants_room) outbox_.flush();
    int timeout = sleep_milliseconds();
    if (wants_room ? outbox_.empty() : !commands_.empty()) timeout = 0;

    std::vector<pollfd> polled{
        {connection_.command_bell.get(), POLLIN, 0},
        {connection_.owner_pidfd.get(), POLLIN, 0},
        // The descriptors that come over this socket are read when their command is.
        {connection_.control.get(), static_cast<short>(socket_is_full_ ? POLLOUT : 0), 0},
        {said_stale_ ? -1 : connection_.inotify.get(), POLLIN, 0},
        {said_stale_ ? -1 : freshness_.mounts(), POLLPRI, 0}};
    const std::size_t children_at = polled.size();
    for (const Child& child : children_)
        polled.push_back({child.ended ? -1 : child.pidfd.get(), POLLIN, 0});

    // A stopped template gets SIGHUP when its owner ends and no other process of its session is
    // left: it has to go on then.
    sigset_t only_hang_up;
    ::sigemptyset(&only_hang_up);
    ::sigaddset(&only_hang_up, SIGHUP);
    const timespec limit{timeout / 1000, timeout % 1000 * 1'000'000L};
    const int ready =
        ::ppoll(polled.data(), polled.size(), timeout < 0 ? nullptr : &limit, &only_hang_up);
    commands_.awake();
    if (ready <= 0) return;
    if (polled[2].revents & POLLOUT) socket_is_full_ = false;
    if (polled[0].revents) silence(connection_.command_bell.get());
    if (polled[1].revents) owner_is_gone_ = true;
    if (polled[2].revents & (POLLHUP | POLLERR)) note_channel_end();
    for (std::size_t i = 0; i < children_.size(); ++i)
        if (polled[i + children_at].revents) children_[i].ended = true;
    if (polled[4].revents & POLLPRI) freshness_.note_mounts();
    if (polled[3].revents || polled[4].revents) static_cast<void>(check_freshness(false));
}

std::vector<int> TemplateServer::own_descriptors() const {
    std::vector<int> own{0,
                         1,
                         2,
                         connection_.control.get(),
                         connection_.command_bell.get(),
                         connection_.completion_bell.get(),
                         connection_.owner_pidfd.get(),
                         connection_.lifeline.get(),
                         connection_.inotify.get(),
                         freshness_.mounts()};
    if (spare_)
        for (int number : {spare_->mailbox.get(), spare_->token.get()}) own.push_back(number);
    if (spawn_) spawn_->list_descriptors(own);
    for (const Child& child : children_)
        for (int number : {child.pidfd.get(), child.token.get()}) own.push_back(number);
    std::sort(own.begin(), own.end());
    return own;
}

}  // namespace warmfork
