#include "template/template_server.hpp"

#include <fmt/format.h>
#include <poll.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>

#include <algorithm>
#include <array>
#include <cstring>

#include "channel/message_socket.hpp"
#include "channel/stopping_point.hpp"
#include "child/setup.hpp"
#include "keeper/keeper.hpp"
#include "template/parking_token.hpp"
#include "template/report.hpp"
#include "template/twin.hpp"

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
      check_(AllowList(connection_.allowed)),
      freshness_(connection_.inotify.get(), connection_.segment.layout().freshness) {
    policy_.set_range(connection_.hello.spares_least, connection_.hello.spares_most);
    payload_.reserve(kMaximumFramePayload);
    plan_.host = &host;
    plan_.image = read_image_addresses();
    plan_.owner_pidfd = connection_.owner_pidfd.get();
    owner_stack_ = owner_stack();
    // Each child costs the template a pidfd; children get the owner's limit back.
    rlimit limit{};
    ::getrlimit(RLIMIT_NOFILE, &limit);
    plan_.soft_descriptor_limit = limit.rlim_cur;
    plan_.hard_descriptor_limit = limit.rlim_max;
    limit.rlim_cur = limit.rlim_max;
    ::setrlimit(RLIMIT_NOFILE, &limit);
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
    add_strings(FrameKind::shadowable, without_allowed(facts_.shadowable, check_.allowed()), false);
    freshness_.watch(facts_, origin_.base ? &origin_.base->freshness_ : nullptr);
    static_cast<void>(is_fresh());
}

/// Looks, and tells the owner once if it is not.
bool TemplateServer::is_fresh(bool is_asked) {
    const bool fresh = freshness_.check(is_asked);
    if (!fresh && !std::exchange(said_stale_, true))
        outbox_.add(make_frame(FrameKind::stale), freshness_.change());
    return fresh;
}

std::optional<ChildCommand> TemplateServer::run() {
    while (true) {
        outbox_.flush();
        if (outbox_.broken() || owner_is_gone_) {
            end_with_owner();
            return {};
        }
        if (outbox_.empty()) {
            if (auto command = take_commands()) return command;
            if (shut_down_) {
                end_spares();
                leave_children_to_keeper();
                return {};
            }
            bury_ended_children();
            policy_.tick(Clock::now());
            give_up_surplus();
            look_at_expected_spares();
            if (auto command = refill()) return command;
        }
        wait();
    }
}

std::optional<ChildCommand> TemplateServer::take_commands() {
    FrameHeader header;
    while (outbox_.empty() && !shut_down_) {
        const Pop popped = commands_.pop(header, payload_);
        if (popped == Pop::broken) owner_is_gone_ = true;
        if (popped != Pop::frame) break;
        switch (header.kind) {
            case FrameKind::spawn:
                if (auto command = spawn(header)) return command;
                break;
            case FrameKind::handed_off:
                hand_off(header);
                break;
            case FrameKind::park:
                set_range(header);
                break;
            case FrameKind::report:
                report(header);
                break;
            case FrameKind::shut_down:
                shut_down_ = true;
                break;
            case FrameKind::look:
                outbox_.add(make_frame(FrameKind::looked, header.id, is_fresh()));
                break;
            default:
                owner_is_gone_ = true;
                return {};
        }
        outbox_.ring_if_peer_waits_for_room();
    }
    return {};
}

void TemplateServer::hand_off(const FrameHeader& header) {
    for (Child& child : children_) {
        if (child.id != header.id || child.state == State::running) continue;
        child.state = State::running;
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
    const std::string json = make_report(own_descriptors(), fork_microseconds_, freshness_,
                                         spare_facts(), dependences_of(facts_.shadowable), host_);
    outbox_.add(make_frame(FrameKind::reported, header.id), std::as_bytes(std::span(json)));
}

/// One message of descriptors that was sent ahead of a spawn frame. Returns what is wrong.
std::string TemplateServer::receive_descriptors(const FrameHeader& header,
                                                std::vector<Descriptor>& ret_descriptors) {
    DescriptorMessage message{};
    ReceivedMessage received;
    do {
        // What belongs to an older command: the owner could not send all of it, and gave it up.
        ret_descriptors.clear();
        std::array<int, kMaximumMessageDescriptors> numbers;
        const int error = receive_message(connection_.control.get(),
                                          std::as_writable_bytes(std::span(&message, 1)), numbers,
                                          MSG_DONTWAIT, received);
        if (error) return fmt::format("its descriptors did not come: {}", std::strerror(error));
        for (std::size_t i = 0; i < received.descriptor_count; ++i)
            ret_descriptors.emplace_back(numbers[i]);
    } while (received.size == sizeof message && message.spawn_id < header.id);
    if (received.descriptors_truncated)
        return "descriptors got lost: the template is at its limit of open files";
    if (message.spawn_id != header.id) return "its descriptors are those of another command";
    return {};
}

/// Takes the mailboxes and descriptors of a spawn command and its record, and checks all of them.
/// Returns what is wrong.
std::string TemplateServer::receive_spawn(const FrameHeader& header, std::uint32_t count,
                                          RecordView& ret_record) {
    std::string mailbox_error = receive_descriptors(header, spawn_mailboxes_);
    std::string error = receive_descriptors(header, spawn_descriptors_);
    if (!mailbox_error.empty()) return mailbox_error;
    if (!error.empty()) return error;
    if (spawn_mailboxes_.size() != count || spawn_descriptors_.size() != header.descriptor_count)
        return "it has a wrong number of descriptors";
    if (header.values[1] & kSpawnRecordInMemfd) {
        if (spawn_descriptors_.empty()) return "its memfd is missing";
        void* memory = ::mmap(nullptr, kMaximumRecordSize, PROT_READ | PROT_WRITE,
                              MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (memory == MAP_FAILED)
            return fmt::format("there is no memory for it: {}", std::strerror(errno));
        large_record_ = {static_cast<std::byte*>(memory), kMaximumRecordSize};
        std::size_t size = 0;
        if (int read_error = read_sealed_memfd(spawn_descriptors_[0].get(), large_record_, size))
            return fmt::format("its memfd cannot be read: {}", std::strerror(read_error));
        plan_.record = large_record_.first(size);
        spawn_descriptors_.erase(spawn_descriptors_.begin());
    } else {
        plan_.record = payload_;
    }
    const char* invalid = decode_record(plan_.record, ret_record);
    return invalid ? invalid : "";
}

/// So that no later child finds a sibling's environment in its memory.
void TemplateServer::forget_record() {
    plan_.record = {};
    wipe(payload_);
    if (!large_record_.empty()) ::munmap(large_record_.data(), large_record_.size());
    large_record_ = {};
}

void TemplateServer::refuse(const FrameHeader& header, const ForkFailure& failure) {
    outbox_.add(make_frame(FrameKind::not_born, header.id, static_cast<std::int64_t>(failure.stage),
                           failure.error_number),
                failure.text);
}

std::optional<ChildCommand> TemplateServer::spawn(const FrameHeader& header) {
    const auto count =
        static_cast<std::uint32_t>(std::clamp<std::int64_t>(header.values[0], 1, kMaximumBatch));
    RecordView record{};
    const std::string error = receive_spawn(header, count, record);
    stopping_point("template.command-taken");
    // Also for who takes a stale image: the owner wants to know, and preload another.
    const bool fresh = is_fresh();
    ForkFailure failure{};
    if (!error.empty())
        failure = {Stage::record, EBADMSG, "the spawn record is not valid: " + error};
    else if (!fresh && !(header.values[1] & kSpawnFromStaleImage))
        failure = {Stage::stale, ESTALE, freshness_.change()};
    for (const Descriptor& descriptor : spawn_descriptors_)
        plan_.descriptors.push_back(descriptor.get());

    for (std::uint32_t born = 0; failure.stage == Stage::none && born < count; ++born)
        if (auto command = give_birth(State::running, header.id, record.header.lifetime,
                                      std::move(spawn_mailboxes_[born]), failure))
            return command;
    // Said before the mailboxes are closed, which is what the owner waits for.
    if (failure.stage != Stage::none) refuse(header, failure);
    forget_record();
    plan_.descriptors.clear();
    spawn_descriptors_.clear();
    spawn_mailboxes_.clear();
    policy_.none_was_parked(Clock::now());
    return {};
}

std::uint32_t TemplateServer::parked() const {
    return static_cast<std::uint32_t>(std::count_if(
        children_.begin(), children_.end(),
        [](const Child& child) { return child.state == State::parked && !child.ended; }));
}

bool TemplateServer::refill_is_due() const {
    return !socket_is_full_ && parked() < policy_.wanted() && policy_.may_fork(Clock::now());
}

/// Ends a parked child, unless its record has arrived already: then it is the owner's. False: it
/// is.
bool TemplateServer::give_up(Child& child) {
    if (!child.token || !take_parking_token(child.token.get())) return false;
    signal_pidfd(child.pidfd.get(), SIGKILL);
    child.state = State::given_up;
    return true;
}

void TemplateServer::give_up_surplus() {
    std::uint32_t surplus = parked();
    for (Child& child : children_) {
        if (surplus <= policy_.wanted()) return;
        if (child.state == State::parked && !child.ended && give_up(child)) --surplus;
    }
}

void TemplateServer::bury_ended_children() {
    for (const Child& child : children_) {
        if (!child.ended) continue;
        stopping_point("template.child-ended");
        if (child.state == State::running) continue;
        if (child.state == State::parked) policy_.spare_failed(Clock::now());
        outbox_.add(make_frame(FrameKind::gone, child.id, child.pid));
    }
    std::erase_if(children_, [](const Child& child) { return child.ended; });
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

void TemplateServer::wait() {
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

    // A stopped template gets SIGHUP when its owner ends and nobody of its session is left: it has
    // to go on then.
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
    if (polled[3].revents || polled[4].revents) static_cast<void>(is_fresh(false));
}

// How the template ends.

unsigned long TemplateServer::owner_stack() const {
    const std::string file = fmt::format("/proc/{}/stat", connection_.hello.owner_pid);
    return read_image_addresses(file.c_str()).start_stack;
}

/// The owner's end of the channel was closed without a word: by its death, by exec, or by an
/// application that closes descriptors it did not open. Only in the last case its children go on.
void TemplateServer::note_channel_end() {
    owner_is_gone_ = true;
    pollfd polled{connection_.owner_pidfd.get(), POLLIN, 0};
    const bool is_alive = ::poll(&polled, 1, 0) == 0;
    if (is_alive && owner_stack_ != 0 && owner_stack() == owner_stack_) shut_down_ = true;
}

/// The owner tells of a hand-off before it sends the record, so whatever it handed off before it
/// died stands in the ring.
void TemplateServer::note_last_hand_offs() {
    FrameHeader header;
    while (commands_.pop(header, payload_) == Pop::frame) {
        if (header.kind == FrameKind::handed_off) hand_off(header);
        if (header.kind == FrameKind::shut_down) shut_down_ = true;
    }
}

/// Those whose record has arrived are children by now; that they were handed off stands in the
/// ring.
void TemplateServer::end_spares() {
    for (Child& child : children_)
        if (child.state == State::parked) give_up(child);
    note_last_hand_offs();
}

std::vector<Ward> TemplateServer::running_wards() {
    std::vector<Ward> wards;
    // An owner that lives on under another program (exec) sends no parent-death signal.
    pollfd owner{connection_.owner_pidfd.get(), POLLIN, 0};
    const bool told_by_kernel =
        (connection_.hello.flags & kHelloFromMainThread) && ::poll(&owner, 1, 0) == 1;
    for (Child& child : children_)
        if (child.state == State::running && child.lifetime == Lifetime::owner && !child.ended)
            wards.push_back({std::move(child.pidfd), told_by_kernel});
    return wards;
}

void TemplateServer::end_with_owner() {
    stopping_point("template.owner-gone");
    end_spares();
    if (shut_down_)  // it closed the channel in good order, and then went
        leave_children_to_keeper();
    else
        end_processes(running_wards());
}

void TemplateServer::leave_children_to_keeper() {
    const std::vector<Ward> wards = running_wards();
    std::vector<int> pidfds;
    for (const Ward& ward : wards) pidfds.push_back(ward.pidfd.get());
    if (int error = leave_to_keepers(connection_.keeper_program, connection_.owner_pidfd.get(),
                                     pidfds, connection_.hello.flags & kHelloFromMainThread))
        fmt::print(stderr, "warmfork: cannot start {} to end children with their owner: {}\n",
                   connection_.keeper_program, std::strerror(error));
}

}  // namespace warmfork
