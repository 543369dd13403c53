#include "owner/template_process.hpp"

#include <poll.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/wait.h>

#include <algorithm>

#include "channel/doorbell.hpp"
#include "owner/keeping.hpp"
#include "protocol/messages.hpp"

namespace warmfork {
namespace {

Failure failure_of(const FrameHeader& not_born, const std::string& text) {
    const auto stage = static_cast<Stage>(not_born.values[0]);
    const auto error_number = static_cast<int>(not_born.values[1]);
    if (stage == Stage::fork) return make_failure(stage, error_number, text);
    return {stage, error_number, 0, text};  // the text says it all
}

// The time between the end of file on a process's channel and its end.
constexpr std::chrono::seconds kEndPatience{1};

/// Says which thread has the turn to command, while it has it.
class Commanding {
  public:
    explicit Commanding(std::atomic<std::thread::id>& commander) : commander_(commander) {
        commander_ = std::this_thread::get_id();
    }
    ~Commanding() { commander_ = std::thread::id(); }
    Commanding(const Commanding&) = delete;
    Commanding& operator=(const Commanding&) = delete;

  private:
    std::atomic<std::thread::id>& commander_;
};

/// Both have as many elements as there are children to be made.
Outcome make_mailboxes(std::vector<Born>& ret_born, std::vector<OwnedSocket>& ret_child_ends) {
    for (std::size_t i = 0; i < ret_born.size(); ++i)
        if (int error = make_owned_pair(ret_born[i].mailbox, ret_child_ends[i]))
            return make_failure(Stage::hand_off, error, "cannot make a mailbox");
    return {};
}

Outcome check_open(std::span<const int> descriptors) {
    for (int number : descriptors)
        if (::fcntl(number, F_GETFD) < 0)
            return make_failure(
                Stage::descriptors, errno,
                "descriptor " + std::to_string(number) + " of the request is not open");
    return {};
}

}  // namespace

TemplateProcess::TemplateProcess(LaunchedTemplate launched)
    : serial_([] {
          static std::atomic<std::uint64_t> last{0};
          return ++last;
      }()),
      facts_(std::move(launched.facts)),
      pidfd_(std::move(launched.pidfd)),
      log_(std::move(launched.log)),
      lifeline_(std::move(launched.lifeline)),
      channel_(std::move(launched.channel)),
      watch_(channel_.ends()),
      layer_(std::move(launched.layer)),
      hello_by_(launched.hello_by) {}

// Here is what comes from the template.

void TemplateProcess::receive_hello() {
    const bool had_hung_up = channel_.has_hung_up();
    channel_.receive_hello();
    // The template ends, or has become another program. Its status tells more, where it comes soon.
    if (channel_.has_hung_up() && !had_hung_up && hello_by_)
        hello_by_ = std::min(*hello_by_, Clock::now() + kEndPatience);
    if (channel_.hello_error().empty()) return;
    state_ = State::broken;
    refusal_ = channel_.hello_error();
}

void TemplateProcess::receive_messages() {
    if (!channel_.has_said_hello()) receive_hello();
    while (channel_.has_said_hello() && state_ != State::broken) {
        MailboxMessage message{};
        OwnedSocket mailbox;
        if (!channel_.receive_mailbox(message, mailbox)) return;
        // Without its descriptor (too many open files here) the child is lost to us, and ends by
        // itself.
        spares_.add_mailbox(message.child_id, std::move(mailbox),
                            Clock::time_point(std::chrono::nanoseconds(message.made)));
    }
}

void TemplateProcess::drain() {
    FrameHeader header;
    bool popped = false;
    while (true) {
        const Pop result = channel_.pop(header);
        if (result == Pop::broken) {
            state_ = State::broken;
            refusal_ = "the template broke the completion ring";
        }
        if (result != Pop::frame) break;
        popped = true;
        dispatch(header);
    }
    if (popped) channel_.tell_of_room();
}

void TemplateProcess::dispatch(const FrameHeader& header) {
    const std::span<const std::byte> payload = channel_.payload();
    const std::string_view text(reinterpret_cast<const char*>(payload.data()), payload.size());
    switch (header.kind) {
        case FrameKind::ready: {
            image_descriptors_.resize(payload.size() / sizeof(int));
            if (!image_descriptors_.empty())
                std::memcpy(image_descriptors_.data(), payload.data(),
                            image_descriptors_.size() * sizeof(int));
            state_ = State::ready;
            start_took_ = Clock::now() - facts_.started_at;
            layer_.reset();
            lifeline_.release();  // by now it watches its owner itself
            break;
        }
        case FrameKind::variables:
        case FrameKind::shadowable:
            take_strings(header);
            break;
        case FrameKind::stale:
            change_ = text;
            break;
        case FrameKind::refused:
            refusal_ = text;
            refusal_error_ = header.values[0] == ENOMEM ? ENOMEM : EBUSY;
            state_ = State::refused;
            break;
        case FrameKind::born:
            add_born(header);
            break;
        case FrameKind::gone:
            receive_messages();
            spares_.remove(header.id);
            break;
        case FrameKind::not_born:
            if (auto pending = pending_.find(header.id); pending != pending_.end())
                pending->second.failure = failure_of(header, std::string(text));
            break;
        case FrameKind::reported:
        case FrameKind::looked:
            if (auto pending = pending_.find(header.id); pending != pending_.end()) {
                pending->second.report = text;
                pending->second.was_fresh = header.values[0] != 0;
                pending->second.is_answered = true;
            }
            break;
        default:
            state_ = State::broken;
            refusal_ = "the template sent a completion of an unknown kind";
    }
}

void TemplateProcess::take_strings(const FrameHeader& header) {
    if (header.kind == FrameKind::variables && header.values[0]) variables_.all = true;
    const std::span<const std::byte> payload = channel_.payload();
    std::string_view text(reinterpret_cast<const char*>(payload.data()), payload.size());
    while (!text.empty()) {
        const std::string_view string = text.substr(0, text.find('\0'));
        const std::size_t equals = string.find('=');
        if (header.kind == FrameKind::variables)
            variables_.names.emplace(string);
        else if (equals != std::string_view::npos)
            shadowable_.emplace(string.substr(0, equals), string.substr(equals + 1));
        text.remove_prefix(std::min(text.size(), string.size() + 1));
    }
}

ProcessIdentity TemplateProcess::born_of(const FrameHeader& header) const {
    ProcessIdentity born{static_cast<pid_t>(header.values[0]), 0};
    const std::span<const std::byte> payload = channel_.payload();
    if (payload.size() == sizeof born.mark)
        std::memcpy(&born.mark, payload.data(), sizeof born.mark);
    return born;
}

void TemplateProcess::add_born(const FrameHeader& header) {
    last_born_ = std::max(last_born_, header.id);
    if (header.values[1] != 0) {  // it is of a command: the child itself tells whoever waits for it
        const auto pending = pending_.find(static_cast<std::uint64_t>(header.values[1]));
        if (pending != pending_.end()) pending->second.born.push_back(born_of(header));
        return;
    }
    receive_messages();
    if (spares_.add(header.id, born_of(header))) return;
    // No number was free for its mailbox, so no more spares are wanted.
    lacks_descriptors_ = true;
    const auto kept = static_cast<std::int64_t>(spares_.size());
    if (channel_.push(make_frame(FrameKind::park, 0, kept, kept)) == 0) channel_.ring();
}

std::vector<int> TemplateProcess::image_descriptors() {
    const std::lock_guard lock(mutex_);
    return image_descriptors_;
}

std::uint32_t TemplateProcess::parked() {
    const std::lock_guard lock(mutex_);
    drain();
    spares_.reap_ended();
    return static_cast<std::uint32_t>(spares_.size());
}

ReadVariables TemplateProcess::variables() {
    const std::lock_guard lock(mutex_);
    return variables_;
}

void TemplateProcess::attend() {
    const std::lock_guard lock(mutex_);
    channel_.silence();
    if (!ended_ && has_ended()) settle_after_end();
    // It is announced before the last look at the ring, so that what comes after it rings.
    channel_.announce_sleep();
    drain();
    spares_.reap_ended();
}

std::uint64_t TemplateProcess::look() {
    const std::lock_guard lock(mutex_);
    const std::uint64_t id = ++last_id_;
    if (channel_.push(make_frame(FrameKind::look, id))) return 0;
    pending_[id] = {};
    channel_.ring_if_asleep();
    return id;
}

std::optional<bool> TemplateProcess::take_look_answer(std::uint64_t request) {
    const std::lock_guard lock(mutex_);
    const auto pending = pending_.find(request);
    if (pending == pending_.end() || !pending->second.is_answered) return {};
    const bool was_fresh = pending->second.was_fresh;
    pending_.erase(pending);
    return was_fresh;
}

void TemplateProcess::cancel_look(std::uint64_t request) {
    const std::lock_guard lock(mutex_);
    pending_.erase(request);
}

std::string TemplateProcess::change() {
    const std::lock_guard lock(mutex_);
    drain();
    return change_.empty() ? "a file that the image came from has changed" : change_;
}

std::optional<Born> TemplateProcess::take_spare(Lifetime lifetime, Clock::time_point now) {
    const std::lock_guard lock(mutex_);
    if (is_closing_) return {};
    drain();
    spares_.reap_ended();
    while (std::optional<Born> spare = spares_.take()) {
        // This comes before the record, so that a template whose owner dies here knows whom to end
        // or to leave.
        const bool is_old = now - spare->made > kOldestSpare;
        if (channel_.push(make_frame(FrameKind::handed_off, spare->id,
                                     static_cast<std::int64_t>(lifetime),
                                     is_old ? kHandedOffToEnd : 0)) != 0) {
            spares_.give_back(std::move(*spare));
            return {};
        }
        if (!is_old) return spare;
        // ps and the like would show when it was started. The template makes another, and says when
        // this one has ended, so that it is reaped then.
        spares_.let_end(std::move(*spare));
    }
    return {};
}

void TemplateProcess::wake_to_refill() {
    {
        const std::lock_guard lock(mutex_);
        if (spares_.size() > 0) return;
    }
    channel_.ring_if_asleep();
}

Outcome TemplateProcess::fork_on_command(std::span<const std::byte> record, int memfd,
                                         std::span<const int> descriptors, std::uint32_t count,
                                         std::int64_t flags, bool nonblocking,
                                         std::uint64_t& ret_id, std::vector<Born>& ret_born) {
    std::vector<Born> born(count);
    std::vector<OwnedSocket> child_ends(count);
    std::vector<int> child_numbers;
    if (Outcome outcome = make_mailboxes(born, child_ends)) return outcome;
    if (Outcome outcome = check_open(descriptors)) return outcome;
    for (const OwnedSocket& end : child_ends) child_numbers.push_back(end.get());
    std::vector<int> sent(descriptors.begin(), descriptors.end());
    if (memfd >= 0) {
        sent.insert(sent.begin(), memfd);
        record = {};
    }
    // The command's place in the ring and its messages on the socket must keep the same order: one
    // thread at a time, also while it waits for room.
    std::unique_lock turn(command_turn_, std::defer_lock);
    if (int error = take_command_turn(turn, nonblocking))
        return make_failure(Stage::hand_off, error, "the command ring is full");
    const Commanding commanding(commander_);
    Lock lock(mutex_);
    const std::uint64_t id = ++last_id_;
    FrameHeader header =
        make_frame(FrameKind::spawn, id, count, flags | (memfd >= 0 ? kSpawnRecordInMemfd : 0));
    header.descriptor_count = static_cast<std::uint16_t>(sent.size());
    const std::span<const int> messages[] = {child_numbers, sent};
    std::size_t messages_sent = 0;
    int error = EAGAIN;
    while (error == EAGAIN) {
        if (ended_ || is_closing_ || state_ == State::broken) {
            error = EPIPE;
        } else if (channel_.has_room(record.size())) {
            error = 0;
            while (!error && messages_sent < std::size(messages)) {
                error = channel_.send_descriptors(id, messages[messages_sent]);
                if (!error) ++messages_sent;
            }
        }
        // The template throws away what went out of a command that is given up here.
        if (error != EAGAIN) break;
        if (nonblocking) return make_failure(Stage::hand_off, EAGAIN, "the command ring is full");
        const std::uint64_t before = count_signs_of_life();
        wait_for_room(lock, Clock::now() + kStartPatience);
        if (was_interrupted())
            return make_failure(Stage::hand_off, EINTR, "the wait for the template was broken off");
        if (ended_ || state_ == State::broken || count_signs_of_life() != before) continue;
        kill_stuck(lock);
        return make_failure(Stage::hand_off, ETIMEDOUT, "the template takes no commands");
    }
    if (!error) error = channel_.push(header, record);
    if (error)
        return make_failure(Stage::hand_off, error == ECONNRESET ? EPIPE : error,
                            "cannot give the command to the template");
    pending_[id] = {};
    channel_.ring_if_asleep();
    ret_id = id;
    ret_born = std::move(born);
    return {};
}

Outcome TemplateProcess::finish_command(std::uint64_t id, std::uint32_t count, bool explain,
                                        const std::vector<ProcessIdentity>& started,
                                        Clock::duration patience) {
    Lock lock(mutex_);
    // The kernel closes the mailboxes of a template that dies before its pidfd tells of its death,
    // and one that does not fork says why first: one of the three arrives.
    const auto is_known = [&] {
        const Pending& pending = pending_[id];
        return pending.failure || pending.born.size() >= count;
    };
    while (explain) {
        const std::uint64_t before = count_signs_of_life();
        if (wait_until(lock, Clock::now() + patience, is_known, false) || ended_ ||
            state_ == State::broken)
            break;
        if (count_signs_of_life() != before) continue;
        kill_stuck(lock);
        break;
    }
    Pending pending = std::move(pending_[id]);
    pending_.erase(id);
    if (!explain) return {};
    for (const ProcessIdentity& born : pending.born)
        if (std::ranges::find(started, born.pid, &ProcessIdentity::pid) == started.end())
            end_child(born);
    if (pending.failure || pending.born.size() >= count) return pending.failure;
    return make_failure(Stage::hand_off, EPIPE, "the template ended before it had forked");
}

bool TemplateProcess::lacks_descriptors() const {
    const std::lock_guard lock(mutex_);
    return lacks_descriptors_;
}

int TemplateProcess::set_spares(std::uint32_t least, std::uint32_t most) {
    const std::lock_guard lock(mutex_);
    lacks_descriptors_ = false;
    const int error = channel_.push(make_frame(FrameKind::park, 0, least, most));
    if (!error) channel_.ring_if_asleep();
    return error;
}

}  // namespace warmfork
