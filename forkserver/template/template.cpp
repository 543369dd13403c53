#include "template/template.hpp"

#include <fmt/format.h>
#include <poll.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>

#include <algorithm>
#include <array>
#include <cstring>

#include "channel/message_socket.hpp"
#include "child/setup.hpp"
#include "keeper/keeper.hpp"
#include "template/parking_token.hpp"
#include "template/report.hpp"
#include "template/twin.hpp"

namespace warmfork {
namespace {

using Clock = SparePolicy::Clock;

constexpr std::size_t kMostImageDescriptors = 256;
constexpr std::size_t kStringsFrameSize = 8u << 10;  // several fit into the completion ring

/// How many descriptors are open, in one system call; 0 before Linux 6.2, which does not say.
std::size_t count_descriptors() {
    struct stat status;
    return ::stat("/proc/self/fd", &status) == 0 ? static_cast<std::size_t>(status.st_size) : 0;
}

std::span<std::byte> ring_bytes(std::byte* bytes, std::size_t size) {
    return {bytes, size};
}

}  // namespace

Template::Template(Connection connection, const PreloadInterface& preload, Host& host,
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
      allowed_(connection_.allowed),
      freshness_(connection_.inotify.get(), connection_.segment.layout().freshness) {
    policy_.set_range(connection_.hello.spares_least, connection_.hello.spares_most);
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

std::string Template::open_gate() {
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
    if (obstacle.empty()) obstacle = libraries_in_the_way(preload_);
    if (obstacle.empty()) obstacle = mappings_in_the_way(allowed_, {&connection_.segment.layout()});
    if (obstacle.empty()) {
        // The handlers are part of what makes one thread: OpenBLAS ends its pool in its own.
        const AtforkRun handlers(preload_);
        host_.before_fork();
        handlers.prepare();
        obstacle = fork_obstacle();
        handlers.parent();
        host_.after_fork_in_template();
    }
    plan_.image_descriptors.assign(image.begin(), image.end());
    describe_image();
    if (obstacle.empty())
        outbox_.add(make_frame(FrameKind::ready, 0, ::getpid()), std::as_bytes(std::span(image)));
    else
        outbox_.add(make_frame(FrameKind::refused), obstacle);
    return obstacle;
}

/// Tells the owner what the image depends on, ahead of `ready`, and begins to watch it.
void Template::describe_image() {
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
    add_strings(FrameKind::shadowable, facts_.shadowable, false);
    freshness_.watch(facts_, origin_.base ? &origin_.base->freshness_ : nullptr);
    static_cast<void>(is_fresh());
}

/// Looks, and tells the owner once if it is not.
bool Template::is_fresh() {
    const bool fresh = freshness_.check();
    if (!fresh && !std::exchange(said_stale_, true))
        outbox_.add(make_frame(FrameKind::stale), freshness_.change());
    return fresh;
}

std::unordered_set<int> Template::own_descriptors() const {
    std::unordered_set<int> own{0,
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
        for (const Descriptor& descriptor : *descriptors) own.insert(descriptor.get());
    for (const Child& child : children_)
        for (int number : {child.pidfd.get(), child.token.get()}) own.insert(number);
    return own;
}

std::string Template::fork_obstacle() {
    std::string obstacle = threads_in_the_way(allowed_);
    const std::size_t open = count_descriptors();
    if (!obstacle.empty() || (open != 0 && open == descriptors_checked_)) return obstacle;
    obstacle = descriptors_in_the_way(allowed_, own_descriptors());
    if (obstacle.empty()) descriptors_checked_ = open;
    return obstacle;
}

std::optional<ChildCommand> Template::run() {
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
            if (auto command = refill()) return command;
        }
        wait();
    }
}

std::optional<ChildCommand> Template::take_commands() {
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

void Template::hand_off(const FrameHeader& header) {
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

void Template::set_range(const FrameHeader& header) {
    const auto bounded = [](std::int64_t value) {
        return static_cast<std::uint32_t>(
            std::clamp<std::int64_t>(value, 0, static_cast<std::int64_t>(kMaximumSpares)));
    };
    policy_.set_range(bounded(header.values[0]), bounded(header.values[1]));
}

void Template::report(const FrameHeader& header) {
    const std::string json =
        make_report(own_descriptors(), fork_microseconds_, freshness_, host_.report());
    outbox_.add(make_frame(FrameKind::reported, header.id), std::as_bytes(std::span(json)));
}

/// One message of descriptors that was sent ahead of a spawn frame. Returns what is wrong.
std::string Template::receive_descriptors(const FrameHeader& header,
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
std::string Template::receive_spawn(const FrameHeader& header, std::uint32_t count,
                                    RecordView& ret_record) {
    std::string mailbox_error = receive_descriptors(header, spawn_mailboxes_);
    std::string error = receive_descriptors(header, spawn_descriptors_);
    if (!mailbox_error.empty()) return mailbox_error;
    if (!error.empty()) return error;
    if (spawn_mailboxes_.size() != count || spawn_descriptors_.size() != header.descriptor_count)
        return "it has a wrong number of descriptors";
    if (header.values[1] & kSpawnRecordInMemfd) {
        if (spawn_descriptors_.empty()) return "its memfd is missing";
        payload_.resize(kMaximumRecordSize);
        std::size_t size = 0;
        if (int read_error = read_sealed_memfd(spawn_descriptors_[0].get(), payload_, size))
            return fmt::format("its memfd cannot be read: {}", std::strerror(read_error));
        payload_.resize(size);
        spawn_descriptors_.erase(spawn_descriptors_.begin());
    }
    const char* invalid = decode_record(payload_, ret_record);
    return invalid ? invalid : "";
}

void Template::refuse(const FrameHeader& header, const ForkFailure& failure) {
    outbox_.add(make_frame(FrameKind::not_born, header.id, static_cast<std::int64_t>(failure.stage),
                           failure.error_number),
                failure.text);
}

std::optional<ChildCommand> Template::spawn(const FrameHeader& header) {
    const auto count =
        static_cast<std::uint32_t>(std::clamp<std::int64_t>(header.values[0], 1, kMaximumBatch));
    RecordView record{};
    const std::string error = receive_spawn(header, count, record);
    // Also for who takes a stale image: the owner wants to know, and preload another.
    const bool fresh = is_fresh();
    ForkFailure failure{};
    if (!error.empty())
        failure = {Stage::record, EBADMSG, "the spawn record is not valid: " + error};
    else if (!fresh && !(header.values[1] & kSpawnFromStaleImage))
        failure = {Stage::stale, ESTALE, freshness_.change()};
    else
        plan_.record = payload_;
    for (const Descriptor& descriptor : spawn_descriptors_)
        plan_.descriptors.push_back(descriptor.get());

    for (std::uint32_t born = 0; failure.stage == Stage::none && born < count; ++born)
        if (auto command = give_birth(State::running, header.id, record.header.lifetime,
                                      std::move(spawn_mailboxes_[born]), failure))
            return command;
    // Said before the mailboxes are closed, which is what the owner waits for.
    if (failure.stage != Stage::none) refuse(header, failure);
    plan_.record = {};
    plan_.descriptors.clear();
    spawn_descriptors_.clear();
    spawn_mailboxes_.clear();
    policy_.none_was_parked(Clock::now());
    return {};
}

std::optional<ChildCommand> Template::refill() {
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
int Template::make_spare_mailbox(Descriptor& ret_child_end) {
    Descriptor owner_end, child_end;
    if (int error = make_message_pair(owner_end, child_end)) return error;
    const MailboxMessage message{last_child_id_ + 1};
    const int number = owner_end.get();
    const int error = send_message(connection_.control.get(), bytes_of(message), {},
                                   std::span(&number, 1), MSG_DONTWAIT);
    socket_is_full_ = error == EAGAIN;
    if (!error) ret_child_end = std::move(child_end);
    return error;
}

/// Where the kernel is to write the pid.
std::atomic<std::int32_t>& Template::show_newborn(std::uint64_t id, std::uint64_t spawn_id) {
    Newborn& newborn = connection_.segment.layout().newborns[id % kNewborns];
    newborn.pid = 0;
    newborn.id = id;
    newborn.spawn = spawn_id;
    return newborn.pid;
}

std::optional<ChildCommand> Template::give_birth(State state, std::uint64_t spawn_id,
                                                 Lifetime lifetime, Descriptor mailbox,
                                                 ForkFailure& ret_failure) {
    const std::uint64_t id = ++last_child_id_;
    child_mailbox_ = mailbox.get();
    const AtforkRun handlers(preload_);
    const std::size_t open_before = count_descriptors();
    if (descriptors_checked_ != 0) descriptors_checked_ = open_before;
    host_.before_fork();
    handlers.prepare();
    Descriptor pidfd;
    const std::string obstacle = fork_obstacle();
    const auto began = Clock::now();
    const int pid =
        obstacle.empty() ? clone_.clone_sibling(show_newborn(id, spawn_id), pidfd) : -ECANCELED;
    if (pid == 0) {
        TwinBirth twin;
        // Before the handlers, so that the twin is as little touched as the template itself.
        if (connection_.hello.flags & kHelloNested) twin = leave_twin(clone_, plan_, mailbox);
        handlers.child();
        host_.after_fork_in_child();
        if (twin.is_this_process) return serve_as_twin(std::move(twin.channel));
        if (twin.channel)
            plan_.image_descriptors.push_back(
                host_.keep_twin(twin.pid, std::move(twin.channel), facts_));
        return live_until_user_code(plan_, std::move(mailbox));
    }
    fork_microseconds_ = std::chrono::duration<double, std::micro>(Clock::now() - began).count();
    handlers.parent();
    host_.after_fork_in_template();
    if (pid < 0) {
        if (obstacle.empty())
            ret_failure = {Stage::fork, -pid, "the template cannot fork"};
        else
            ret_failure = {Stage::gate, EBUSY, obstacle};
        return {};
    }
    // One descriptor more than before, the pidfd: else a handler has opened or closed something.
    if (count_descriptors() != open_before + 1) descriptors_checked_ = 0;
    children_.push_back({id, pid, std::move(pidfd), state, lifetime});
    outbox_.add(make_frame(FrameKind::born, id, pid, static_cast<std::int64_t>(spawn_id)));
    return {};
}

/// In a twin that has been woken. Returns the command in each child, and never in the twin.
std::optional<ChildCommand> Template::serve_as_twin(Descriptor control) {
    const TwinReply reply{kTwinMagic, ::getpid()};
    if (send_message(control.get(), bytes_of(reply), {}, {}, 0)) ::_exit(0);
    const ServeResult result = serve_channel(std::move(control), preload_, host_, {this});
    if (result.end == ServeResult::End::child) return result.command;
    // By no other way: what the program does behind `serve` is for the template's own end.
    if (result.end == ServeResult::End::failed) fmt::print(stderr, "{}\n", result.error);
    ::_exit(result.end == ServeResult::End::failed);
}

std::uint32_t Template::parked() const {
    return static_cast<std::uint32_t>(std::count_if(
        children_.begin(), children_.end(),
        [](const Child& child) { return child.state == State::parked && !child.ended; }));
}

bool Template::refill_is_due() const {
    return !socket_is_full_ && parked() < policy_.wanted() && policy_.may_fork(Clock::now());
}

/// Ends a parked child, unless its record has arrived already: then it is the owner's. False: it
/// is.
bool Template::give_up(Child& child) {
    if (!child.token || !take_parking_token(child.token.get())) return false;
    signal_pidfd(child.pidfd.get(), SIGKILL);
    child.state = State::given_up;
    return true;
}

void Template::give_up_surplus() {
    std::uint32_t surplus = parked();
    for (Child& child : children_) {
        if (surplus <= policy_.wanted()) return;
        if (child.state == State::parked && !child.ended && give_up(child)) --surplus;
    }
}

void Template::bury_ended_children() {
    for (const Child& child : children_) {
        if (!child.ended || child.state == State::running) continue;
        if (child.state == State::parked) policy_.spare_failed(Clock::now());
        outbox_.add(make_frame(FrameKind::gone, child.id, child.pid));
    }
    std::erase_if(children_, [](const Child& child) { return child.ended; });
}

int Template::sleep_milliseconds() const {
    if (!outbox_.empty()) return -1;
    if (refill_is_due()) return 0;
    const auto now = Clock::now();
    const auto next = policy_.next_change(parked(), now);
    if (!next) return -1;
    const auto left = std::chrono::ceil<std::chrono::milliseconds>(*next - now).count();
    return static_cast<int>(std::max<std::int64_t>(left, 0));
}

void Template::wait() {
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

    sigset_t none;
    ::sigemptyset(&none);
    const timespec limit{timeout / 1000, timeout % 1000 * 1'000'000L};
    const int ready = ::ppoll(polled.data(), polled.size(), timeout < 0 ? nullptr : &limit, &none);
    commands_.awake();
    if (ready <= 0) return;
    if (polled[2].revents & POLLOUT) socket_is_full_ = false;
    if (polled[0].revents) silence(connection_.command_bell.get());
    if (polled[1].revents) owner_is_gone_ = true;
    if (polled[2].revents & (POLLHUP | POLLERR)) note_channel_end();
    for (std::size_t i = 0; i < children_.size(); ++i)
        if (polled[i + children_at].revents) children_[i].ended = true;
    if (polled[4].revents & POLLPRI) freshness_.note_mounts();
    if (polled[3].revents || polled[4].revents) static_cast<void>(is_fresh());
}

// How the template ends.

unsigned long Template::owner_stack() const {
    const std::string file = fmt::format("/proc/{}/stat", connection_.hello.owner_pid);
    return read_image_addresses(file.c_str()).start_stack;
}

/// The owner's end of the channel was closed without a word: by its death, by exec, or by an
/// application that closes descriptors it did not open. Only in the last case its children go on.
void Template::note_channel_end() {
    owner_is_gone_ = true;
    pollfd polled{connection_.owner_pidfd.get(), POLLIN, 0};
    const bool is_alive = ::poll(&polled, 1, 0) == 0;
    if (is_alive && owner_stack_ != 0 && owner_stack() == owner_stack_) shut_down_ = true;
}

/// The owner tells of a hand-off before it sends the record, so whatever it handed off before it
/// died stands in the ring.
void Template::note_last_hand_offs() {
    FrameHeader header;
    while (commands_.pop(header, payload_) == Pop::frame) {
        if (header.kind == FrameKind::handed_off) hand_off(header);
        if (header.kind == FrameKind::shut_down) shut_down_ = true;
    }
}

/// Those whose record has arrived are children by now; that they were handed off stands in the
/// ring.
void Template::end_spares() {
    for (Child& child : children_)
        if (child.state == State::parked) give_up(child);
    note_last_hand_offs();
}

std::vector<Ward> Template::running_wards() {
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

void Template::end_with_owner() {
    end_spares();
    if (shut_down_)  // it closed the channel in good order, and then went
        leave_children_to_keeper();
    else
        end_processes(running_wards());
}

void Template::leave_children_to_keeper() {
    std::vector<Ward> wards = running_wards();
    if (wards.empty()) return;
    Descriptor keeper;
    int error = start_keeper(connection_.keeper_program, connection_.owner_pidfd.get(), keeper);
    for (const Ward& ward : wards)
        if (!error)
            error = keep(keeper.get(), ward.pidfd.get(),
                         connection_.hello.flags & kHelloFromMainThread);
    if (error) {
        fmt::print(stderr, "warmfork: cannot start {} to end children with their owner: {}\n",
                   connection_.keeper_program, std::strerror(error));
        return;
    }
    leave_to_itself(std::move(keeper));
}

}  // namespace warmfork
