#include "client/leased_source.hpp"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/socket.h>

#include "channel/deadline.hpp"
#include "channel/message_socket.hpp"
#include "channel/stopping_point.hpp"
#include "client/served_child.hpp"
#include "owner/cold.hpp"
#include "protocol/messages.hpp"

namespace warmfork {
namespace {

// The service may go, or be replaced, while it is asked. Where that happens this often, it does not
// stay.
constexpr int kMostLostServices = 4;

std::vector<std::string> copy(std::span<char* const> strings) {
    return {strings.begin(), strings.end()};
}

ColdReason hanging_reason(const Failure& failure) {
    return {WARMFORK_REASON_UNRESPONSIVE, failure.text};
}

/// Returns a child's ties. The service sees to its lifetime, and decides who its parent is.
ChildTies ties_of_service() {
    return {Lifetime::detached, 0, false, true};
}

}  // namespace

class LeasedSource::Image : public ChosenImage {
  public:
    Image(LeasedSource& source, Connection connection, Lease lease, WaitClock::time_point began)
        : ChosenImage({static_cast<pid_t>(lease.image->facts().pid), lease.image->descriptors(),
                       lease.image->shadowable(), lease.image->facts().directory},
                      lease.image->state_at_start(), ties_of_service()),
          source_(source),
          connection_(std::move(connection)),
          lease_(std::move(lease)),
          began_(began) {}
    ~Image() override {
        if (!has_started_) connection_->release_child(lease_.child);
    }

    OwnerChange find_change(const OwnerState& now) override;
    Born* take_parked() override;
    Spawned release_started() override;
    void end_parked() override;

  private:
    LeasedSource& source_;
    const Connection connection_;
    Lease lease_;
    const WaitClock::time_point began_;
    Born parked_;
    bool has_started_ = false;
};

/// Compares the owner with the service: a child of the service has its ids, groups and limits.
OwnerChange LeasedSource::Image::find_change(const OwnerState& now) {
    std::string change = find_incompatible_change(state_at_start(), now, Parent::service);
    if (change.empty() && !can_look_at(connection_->service()) && is_landlock_there())
        change = "this process may not look at the service: perhaps it is confined (Landlock)";
    if (!change.empty()) change = "compared with the service: " + change;
    return {std::move(change)};
}

Born* LeasedSource::Image::take_parked() {
    if (!lease_.mailbox) return nullptr;
    parked_.pid = lease_.pid;
    parked_.mailbox = std::move(lease_.mailbox);
    return &parked_;
}

Spawned LeasedSource::Image::release_started() {
    has_started_ = true;
    const auto taken =
        std::chrono::duration_cast<std::chrono::microseconds>(WaitClock::now() - began_);
    connection_->tell(
        ServiceKind::used, lease_.child,
        write_body(UseReport{source_.name_, static_cast<std::uint64_t>(taken.count()), 0}));
    source_.note_spawn(connection_);
    return {lease_.pid,
            true,
            {},
            std::make_shared<ServedChild>(connection_, lease_.child, lease_.pid,
                                          std::move(lease_.pidfd))};
}

void LeasedSource::Image::end_parked() {
    signal_pidfd(lease_.pidfd.get(), SIGKILL);
    pollfd ended{lease_.pidfd.get(), POLLIN, 0};
    static_cast<void>(poll_through_signals(std::span(&ended, 1), WaitClock::now() + kKillPatience));
}

LeasedSource::LeasedSource(std::string name) : owner_(::getpid()), name_(std::move(name)) {}

LeasedSource::~LeasedSource() {
    if (owner_ == ::getpid()) drop_prefetched();
}

Outcome LeasedSource::open() {
    Connection connection;
    return connect(connection);
}

/// Gets the current connection. What was leased over one that is lost is of no use any more.
Outcome LeasedSource::connect(Connection& ret_connection, TemplateFacts* ret_facts) {
    Connection connection;
    if (Outcome failure = ServiceConnection::get(connection)) return failure;
    Lock lock(mutex_);
    if (connection != connection_) {
        // No lock is held while it waits: a signal's handler may come back here.
        lock.unlock();
        ServiceConnection::Answer answer;
        const std::uint64_t request =
            connection->request(ServiceKind::find, FieldWriter().text(name_).bytes());
        Outcome failure = connection->answer(request, WaitClock::now() + kServicePatience, answer);
        connection->cancel(request);
        if (failure) return failure;
        if (answer.refusal)
            return Failure{static_cast<Stage>(answer.refusal->stage),
                           static_cast<int>(answer.refusal->error_number), 0, answer.refusal->text};
        if (!answer.facts) return Failure{Stage::launch, EPROTO, 0, "the service answers wrongly"};
        lock.lock();
        if (connection != connection_) {
            facts_ = *answer.facts;
            drop_prefetched();
            connection_ = connection;
        }
    }
    if (ret_facts) *ret_facts = facts_;
    ret_connection = std::move(connection);
    return {};
}

LeasedSource::Wanted LeasedSource::plain() const {
    Wanted wanted;
    for (char** variable = environ; variable && *variable; ++variable)
        wanted.environment.emplace_back(*variable);
    return wanted;
}

LeasedSource::Connection LeasedSource::current() {
    const std::lock_guard lock(mutex_);
    return connection_;
}

Outcome LeasedSource::find_program(TemplateProgram& ret_program, ColdReason& ret_cold) {
    Connection connection;
    TemplateFacts facts;
    if (Outcome failure = connect(connection, &facts)) {
        ret_cold =
            failure->error_number == ETIMEDOUT ? hanging_reason(*failure) : find_limit(*failure);
        return failure;
    }
    ret_program = {facts.is_python, std::move(facts.program), facts.has_fixed_command};
    return {};
}

Outcome LeasedSource::choose(const Wish& wish, std::unique_ptr<ChosenImage>& ret_image,
                             ColdReason& ret_cold) {
    Connection connection;
    Lease lease;
    Outcome failure = take_lease(wish, connection, lease, ret_cold);
    if (failure && !ret_cold)
        ret_cold =
            failure->error_number == ETIMEDOUT ? hanging_reason(*failure) : find_limit(*failure);
    if (failure || ret_cold) return failure;
    stopping_point("client.leased");
    ret_image = std::make_unique<Image>(*this, std::move(connection), std::move(lease), wish.began);
    return {};
}

/// Takes a lease. A question takes one as well, and gives it back, so that the service says what it
/// would say to a spawn.
Outcome LeasedSource::take_lease(const Wish& wish, Connection& ret_connection, Lease& ret_lease,
                                 ColdReason& ret_cold) {
    const Wanted wanted{wish.selection.options, wish.selection.is_isolated,
                        copy(wish.selection.environment)};
    const bool is_detached = wish.is_question || wish.lifetime == Lifetime::detached;
    Outcome failure;
    ret_connection = current();
    for (int tries = 0; tries < kMostLostServices; ++tries) {
        failure = lease(ret_connection, wanted, wish, is_detached, tries == 0 && !wish.is_repeated,
                        ret_lease, ret_cold);
        const bool is_lost =
            failure && failure->stage == Stage::hand_off && failure->error_number == EPIPE;
        if (!is_lost || wish.is_question) break;
        // The service has gone, or is being replaced: the next one serves.
        if (Outcome lost = connect(ret_connection)) return lost;
    }
    return failure;
}

void LeasedSource::end(const Spawned& child) {
    if (!child.served) return end_child(child.identity());
    ExitReport report;
    static_cast<void>(child.served->signal(SIGKILL));
    static_cast<void>(child.served->wait(true, report));
}

/// Gives back what is leased ahead: it takes numbers that the cold child, and the wait for it,
/// need.
void LeasedSource::free_descriptors() {
    const std::lock_guard lock(mutex_);
    drop_prefetched();
    prefetch_count_ = 0;
}

/// Finds a reason to be cold: a limit of this process's, or the service's, that a cold child does
/// not meet. Whoever may only run the template's own command has no cold child.
ColdReason LeasedSource::find_limit(const Failure& failure) {
    const int error = failure.error_number;
    const bool is_too_large = failure.stage == Stage::record && (error == E2BIG || error == EFBIG);
    const bool is_lack = is_lack_of_descriptors(failure);
    {
        const std::lock_guard lock(mutex_);
        if (facts_.has_fixed_command || (!is_too_large && !is_lack)) return {};
    }
    if (is_lack) free_descriptors();
    return {WARMFORK_REASON_LIMITS, failure.text};
}

/// Notes a spawn. What is asked for ahead now comes while the caller is busy with its child.
void LeasedSource::note_spawn(const Connection& connection) {
    const std::lock_guard lock(mutex_);
    ++spawns_;
    if (connection == connection_) prefetch();
}

void LeasedSource::note_cold(warmfork_reason reason) {
    const std::lock_guard lock(mutex_);
    if (connection_)
        connection_->tell(ServiceKind::used, 0,
                          write_body(UseReport{name_, 0, static_cast<std::uint64_t>(reason)}));
}

/// Runs the template's own command line, for a user that may start no other.
Outcome LeasedSource::run_own_command(const Request& request, Spawned& ret_spawned) {
    const Connection connection = current();
    const int descriptors[] = {request.source_of(0), request.source_of(1), request.source_of(2)};
    ServiceConnection::Answer answer;
    Outcome failure;
    const auto deadline = WaitClock::now() + kServicePatience;
    for (int tries = 0; tries < kHandOffTries; ++tries) {
        // This is tried before it runs: the command is the account's, and a cold one would be this
        // user's.
        if (!Descriptor(::open("/", O_PATH | O_CLOEXEC)))
            return make_failure(Stage::descriptors, errno, "no descriptor is free for the child");
        const std::uint64_t id =
            connection->request(ServiceKind::run, FieldWriter().text(name_).bytes(), descriptors);
        failure = connection->answer(id, deadline, answer);
        connection->cancel(id);
        // It died in the moment of its hand-off, before any user code.
        const bool has_died = !failure && answer.refusal &&
                              answer.refusal->stage == static_cast<std::uint64_t>(Stage::hand_off);
        if (!has_died) break;
        if (tries + 1 < kHandOffTries) answer = {};
    }
    if (failure) return failure;
    if (answer.lease) {
        Lease& lease = *answer.lease;
        ret_spawned = {lease.pid,
                       true,
                       {},
                       std::make_shared<ServedChild>(connection, lease.child, lease.pid,
                                                     std::move(lease.pidfd))};
        return {};
    }
    if (!answer.refusal) return Failure{Stage::launch, EPROTO, 0, "the service answers wrongly"};
    return Failure{static_cast<Stage>(answer.refusal->stage),
                   static_cast<int>(answer.refusal->error_number), 0, answer.refusal->text};
}

Outcome LeasedSource::wait_ready(Deadline deadline) {
    return wait_parked(0, deadline);
}

Outcome LeasedSource::wait_parked(std::uint32_t count, Deadline deadline) {
    Connection connection;
    if (Outcome failure = connect(connection)) return failure;
    if (facts_.has_fixed_command) return {};
    const Wanted wanted = [&] {
        const std::lock_guard lock(mutex_);
        return last_.environment.empty() ? plain() : last_;
    }();
    {
        const std::lock_guard lock(mutex_);
        want(wanted);
        collect_prefetched();
        if (!prefetched_.empty() && !prefetched_.front().lease.image->check_freshness())
            drop_prefetched();
    }
    for (bool is_lost = false;;) {
        // The service has gone: the next one serves.
        if (std::exchange(is_lost, false))
            if (Outcome failure = connect(connection)) return failure;
        // What an earlier call has asked for, and did not wait long enough for, is still to come.
        std::uint64_t id;
        {
            const std::lock_guard lock(mutex_);
            collect_prefetched();
            if (prefetched_.size() >= std::max(count, std::uint32_t{1})) break;
            id = std::exchange(awaited_, 0);
        }
        if (id == 0) id = ask(*connection, wanted, kLeaseMayWait);
        Lease lease;
        ColdReason cold;
        Outcome failure = await(*connection, id, deadline, lease, cold);
        const std::lock_guard lock(mutex_);
        // The service gives up after minutes, which this call need not.
        if (cold && failure && failure->error_number == ETIMEDOUT) {
            connection->cancel(id);
            if (!deadline || WaitClock::now() < *deadline) continue;
        }
        const bool is_late = failure && !cold && failure->error_number == ETIMEDOUT;
        if (is_late && awaited_ == 0 && connection == connection_)
            awaited_ = id;
        else
            connection->cancel(id);
        is_lost = failure && failure->stage == Stage::hand_off;
        if (failure && !is_lost) return failure;
        if (cold) return Failure{Stage::launch, ENOTSUP, 0, cold.text};
        if (!is_lost) prefetched_.push_back({std::move(lease), false});
    }
    return await_prefetched(deadline);
}

/// Until each of those that are leased ahead has said that it is prepared. Waits with no lock held,
/// as other threads spawn meanwhile, and may take the one that is waited for.
Outcome LeasedSource::await_prefetched(Deadline deadline) {
    while (true) {
        Descriptor mailbox;
        {
            const std::lock_guard lock(mutex_);
            for (PrefetchedLease& prefetched : prefetched_) {
                MailboxReply reply{};
                ReceivedMessage received;
                if (prefetched.has_parked) continue;
                const int error = receive_message(prefetched.lease.mailbox.get(),
                                                  std::as_writable_bytes(std::span(&reply, 1)), {},
                                                  MSG_DONTWAIT, received);
                // What else is wrong with it a spawn finds.
                prefetched.has_parked = error != EAGAIN && error != EINTR;
                if (prefetched.has_parked) continue;
                mailbox = Descriptor(::fcntl(prefetched.lease.mailbox.get(), F_DUPFD_CLOEXEC, 3));
                if (!mailbox)
                    return make_failure(Stage::descriptors, errno,
                                        "no descriptor is free to wait for a parked child");
                break;
            }
        }
        if (!mailbox) return {};
        pollfd polled{mailbox.get(), POLLIN, 0};
        if (poll_until(std::span(&polled, 1), deadline) == 0)
            return Failure{Stage::launch, ETIMEDOUT, 0, "not enough children are parked yet"};
    }
}

pid_t LeasedSource::pid() {
    const std::lock_guard lock(mutex_);
    return prefetched_.empty() ? 0
                               : static_cast<pid_t>(prefetched_.front().lease.image->facts().pid);
}

std::uint32_t LeasedSource::parked() {
    const std::lock_guard lock(mutex_);
    if (connection_) collect_prefetched();
    return static_cast<std::uint32_t>(prefetched_.size());
}

Outcome LeasedSource::report(std::string&) {
    return Failure{Stage::launch, ENOTSUP, 0,
                   "the template " + name_ +
                       " is the service's, which tells of it by `warmfork template list --json`"};
}

Outcome ask_to_manage(ServiceConnection& connection, const std::string& verb,
                      const std::string& name, std::string& ret_json) {
    const std::uint64_t request =
        connection.request(ServiceKind::manage, FieldWriter().text(verb).text(name).bytes());
    ServiceConnection::Answer answer;
    Outcome failure = connection.answer(request, WaitClock::now() + kServicePatience, answer);
    connection.cancel(request);
    if (failure) return failure;
    if (answer.refusal)
        return Failure{static_cast<Stage>(answer.refusal->stage),
                       static_cast<int>(answer.refusal->error_number), 0, answer.refusal->text};
    ret_json = answer.managed.value_or("");
    return {};
}

}  // namespace warmfork
