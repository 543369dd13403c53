#include "client/service_template.hpp"

#include <poll.h>
#include <signal.h>
#include <sys/socket.h>

#include "channel/message_socket.hpp"
#include "channel/stopping_point.hpp"
#include "client/served_child.hpp"
#include "owner/backend.hpp"
#include "owner/cold.hpp"
#include "owner/hand_off.hpp"
#include "owner/interpreted_request.hpp"
#include "owner/request_eligibility.hpp"
#include "owner/spawn_cold.hpp"
#include "protocol/messages.hpp"

namespace warmfork {
namespace {

// A parked child that dies in the moment of its hand-off is replaced by the next. Where that many
// die it is the record that kills them.
constexpr int kHandOffTries = 4;

std::vector<std::string> copy(std::span<char* const> strings) {
    return {strings.begin(), strings.end()};
}

ColdReason hanging_reason(const Failure& failure) {
    return {WARMFORK_REASON_UNRESPONSIVE, failure.text};
}

/// One of several, of which another could not be had.
void end_spawned(const Spawned& child) {
    if (!child.served) return end_child(child.identity());
    ExitReport report;
    static_cast<void>(child.served->signal(SIGKILL));
    static_cast<void>(child.served->wait(true, report));
}

}  // namespace

ServiceTemplate::ServiceTemplate(std::string name, warmfork_backend backend)
    : owner_(::getpid()), name_(std::move(name)), backend_(backend) {}

ServiceTemplate::~ServiceTemplate() {
    if (owner_ == ::getpid()) drop_ahead();
}

Outcome ServiceTemplate::open() {
    std::shared_ptr<ServiceConnection> connection;
    return connect(connection);
}

/// The connection of now. What was leased over one that is lost is of no use any more.
Outcome ServiceTemplate::connect(std::shared_ptr<ServiceConnection>& ret_connection) {
    std::shared_ptr<ServiceConnection> connection;
    if (Outcome failure = ServiceConnection::get(connection)) return failure;
    Lock lock(mutex_);
    if (connection != connection_) {
        // With no lock held while it waits: a signal's handler may come back here.
        lock.unlock();
        ServiceConnection::Answer answer;
        const std::uint64_t request =
            connection->request(ServiceKind::find, FieldWriter().text(name_).bytes());
        Outcome failure = connection->answer(request, {}, answer);
        connection->forget(request);
        if (failure) return failure;
        if (answer.refusal)
            return Failure{static_cast<Stage>(answer.refusal->stage),
                           static_cast<int>(answer.refusal->error_number), 0, answer.refusal->text};
        if (!answer.facts) return Failure{Stage::launch, EPROTO, 0, "the service answers wrongly"};
        lock.lock();
        if (connection != connection_) {
            facts_ = *answer.facts;
            drop_ahead();
            connection_ = connection;
        }
    }
    ret_connection = std::move(connection);
    return {};
}

ServiceTemplate::Wanted ServiceTemplate::plain() const {
    Wanted wanted;
    for (char** variable = environ; variable && *variable; ++variable)
        wanted.environment.emplace_back(*variable);
    return wanted;
}

/// What the request wants of an image; or why none will do.
ColdReason ServiceTemplate::select(const Request& request, PythonCommand& ret_command,
                                   Wanted& ret_wanted) const {
    Selection selection;
    ColdReason reason =
        find_selection(request, facts_.is_python, facts_.program, ret_command, selection);
    ret_wanted = {selection.options, selection.is_isolated, copy(selection.environment)};
    return reason;
}

ColdReason ServiceTemplate::find_reason(const Request& request, const PythonCommand& command,
                                        LeasedImage& image) {
    const ImageTraits traits{static_cast<pid_t>(image.facts().pid), image.descriptors(),
                             image.shadowable(), image.facts().directory};
    if (!facts_.is_python) return find_common_reason(request, traits);
    return find_image_reason(request, command, traits, shadows_);
}

/// A child of the service has its ids, groups and limits.
ColdReason ServiceTemplate::find_state_reason(const LeasedImage& image, const OwnerState& now) {
    std::string change = find_incompatible_change(image.state_at_start(), now, Parent::service);
    if (change.empty() && !can_look_at(connection_->service()) && is_landlock_there())
        change = "this process may not look at the service: perhaps it is confined (Landlock)";
    if (change.empty()) return {};
    return {WARMFORK_REASON_OWNER_CHANGED, "compared with the service: " + change};
}

Outcome ServiceTemplate::spawn_warm(const Request& given, bool may_wait, ColdReason& ret_cold,
                                    Spawned& ret_spawned) {
    std::shared_ptr<ServiceConnection> connection;
    if (Outcome failure = connect(connection)) {
        if (failure->error_number == ETIMEDOUT) ret_cold = hanging_reason(*failure);
        return failure;
    }
    if (facts_.has_fixed_command) return spawn_fixed(given, ret_spawned);
    const InterpretedRequest interpreted(given, facts_.is_python, facts_.program);
    const Request& request = interpreted.get();
    if (Outcome failure = check_size(request)) {
        ret_cold = {WARMFORK_REASON_LIMITS, failure->text};
        return failure;
    }
    PythonCommand command;
    Wanted wanted;
    if ((ret_cold = select(request, command, wanted))) return {};
    const bool is_detached = request.lifetime() == Lifetime::detached;
    const auto began = ServiceConnection::Clock::now();
    Outcome failure;
    for (int tries = 0; tries < kHandOffTries; ++tries) {
        Lease lease;
        failure =
            this->lease(connection, wanted, may_wait, is_detached, tries == 0, lease, ret_cold);
        if (failure && failure->stage == Stage::hand_off && failure->error_number == EPIPE) {
            // The service has gone, or is being replaced: the next one serves.
            if (Outcome lost = connect(connection)) {
                if (lost->error_number == ETIMEDOUT) ret_cold = hanging_reason(*lost);
                return lost;
            }
            continue;
        }
        if (failure && failure->error_number == ETIMEDOUT && !ret_cold)
            ret_cold = hanging_reason(*failure);
        if (failure || ret_cold) return failure;
        stopping_point("client.leased");
        const OwnerState state = read_owner_state();
        ChildRecord record;
        if (!(ret_cold = find_reason(request, command, *lease.image)) &&
            !(ret_cold = find_state_reason(*lease.image, state)))
            failure = make_child_record(request, lease.image->state_at_start(), state,
                                        {Lifetime::detached, 0, false, true}, record, ret_cold);
        if (failure || ret_cold) {
            connection->forget_child(lease.child);
            return failure;
        }
        Born spare;
        spare.pid = lease.pid;
        spare.mailbox = std::move(lease.mailbox);
        const Descriptor& child = lease.pidfd;
        failure = hand_off(record, spare, WaitClock::now() + kStartPatience, [&] {
            signal_pidfd(child.get(), SIGKILL);
            pollfd ended{child.get(), POLLIN, 0};
            ::poll(&ended, 1, poll_timeout(WaitClock::now() + kKillPatience));
        });
        if (!failure) {
            ret_spawned = {lease.pid,
                           true,
                           {},
                           std::make_shared<ServedChild>(connection, lease.child, lease.pid,
                                                         std::move(lease.pidfd))};
            const auto taken = std::chrono::duration_cast<std::chrono::microseconds>(
                ServiceConnection::Clock::now() - began);
            connection->tell(
                ServiceKind::used, lease.child,
                write_body(UseReport{name_, static_cast<std::uint64_t>(taken.count()), 0}));
            const std::lock_guard lock(mutex_);
            ++spawns_;
            if (connection == connection_) ask_ahead();
            return {};
        }
        connection->forget_child(lease.child);
        // It said what failed: that is the answer. Otherwise it died before any user code.
        if (failure->stage != Stage::hand_off || failure->error_number == ECANCELED) break;
        if (!is_late(failure)) continue;
        if (!was_interrupted()) ret_cold = {WARMFORK_REASON_UNRESPONSIVE, failure->text};
        return failure;
    }
    if (failure) describe(*failure, request);
    return failure;
}

/// The template's own command line, for a user that may start no other.
Outcome ServiceTemplate::spawn_fixed(const Request& request, Spawned& ret_spawned) {
    const std::shared_ptr<ServiceConnection> connection = connection_;
    const int descriptors[] = {request.source_of(0), request.source_of(1), request.source_of(2)};
    ServiceConnection::Answer answer;
    Outcome failure;
    for (int tries = 0; tries < kHandOffTries; ++tries) {
        const std::uint64_t id =
            connection->request(ServiceKind::run, FieldWriter().text(name_).bytes(), descriptors);
        failure = connection->answer(id, {}, answer);
        connection->forget(id);
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

/// A limit of this process's, or the service's, that a cold child does not meet: a reason to be
/// cold. Who may only run the template's own command has no cold child.
ColdReason ServiceTemplate::find_limit(const Outcome& failure) {
    if (!failure || facts_.has_fixed_command) return {};
    const int error = failure->error_number;
    const bool is_too_large = failure->stage == Stage::record && (error == E2BIG || error == EFBIG);
    if (!is_too_large && !is_lack_of_descriptors(*failure)) return {};
    if (!is_too_large) {
        // What is leased ahead takes numbers that the cold child, and the wait for it, have to
        // have.
        const std::lock_guard lock(mutex_);
        drop_ahead();
        wanted_ahead_ = 0;
    }
    return {WARMFORK_REASON_LIMITS, failure->text};
}

Outcome ServiceTemplate::spawn_one(const Request& request, warmfork_backend backend,
                                   Spawned& ret_spawned) {
    ColdReason reason{WARMFORK_REASON_ASKED, "the cold backend was asked for"};
    if (backend != WARMFORK_BACKEND_COLD) {
        reason = {};
        Outcome failure =
            spawn_warm(request, backend == WARMFORK_BACKEND_WARM, reason, ret_spawned);
        if (!failure && !reason) ++handed_off_;
        if (!reason) reason = find_limit(failure);
        if (!reason) return failure;
        if (backend == WARMFORK_BACKEND_WARM || request.may_not_be_cold())
            return failure ? failure
                           : Outcome(Failure{Stage::eligibility, ENOTSUP, 0,
                                             "cannot be served warm: " + reason.text});
    }
    std::vector<Spawned> spawned;
    if (Outcome failure = spawn_without_template(request, 1, reason, spawned)) return failure;
    ret_spawned = std::move(spawned.front());
    ++cold_;
    ++cold_by_reason_[reason.reason];
    const std::lock_guard lock(mutex_);
    if (connection_)
        connection_->tell(
            ServiceKind::used, 0,
            write_body(UseReport{name_, 0, static_cast<std::uint64_t>(reason.reason)}));
    return {};
}

Outcome ServiceTemplate::spawn(const Request& request, std::uint32_t count,
                               std::vector<Spawned>& ret_spawned) {
    const warmfork_backend backend = choose_backend(request.backend(), backend_);
    std::vector<Spawned> spawned;
    for (std::uint32_t i = 0; i < count; ++i) {
        Spawned child;
        if (Outcome failure = spawn_one(request, backend, child)) {
            for (const Spawned& born : spawned) end_spawned(born);
            return failure;
        }
        spawned.push_back(std::move(child));
    }
    ret_spawned = std::move(spawned);
    return {};
}

Outcome ServiceTemplate::explain(const Request& given, ColdReason& ret_reason) {
    if (choose_backend(given.backend(), backend_) == WARMFORK_BACKEND_COLD) {
        ret_reason = {WARMFORK_REASON_ASKED, "the cold backend was asked for"};
        return {};
    }
    std::shared_ptr<ServiceConnection> connection;
    if (Outcome failure = connect(connection)) {
        ret_reason = find_limit(failure);
        return ret_reason ? Outcome() : failure;
    }
    const InterpretedRequest interpreted(given, facts_.is_python, facts_.program);
    const Request& request = interpreted.get();
    if (const Outcome failure = check_size(request)) {
        ret_reason = {WARMFORK_REASON_LIMITS, failure->text};
        return {};
    }
    PythonCommand command;
    Wanted wanted;
    if ((ret_reason = select(request, command, wanted))) return {};
    // Leased and given back: so the service says what it would say to a spawn.
    Lease lease;
    Outcome failure = this->lease(connection, wanted, false, true, false, lease, ret_reason);
    if (!ret_reason) ret_reason = find_limit(failure);
    if (ret_reason) return {};
    if (failure) return failure;
    connection->forget_child(lease.child);
    if ((ret_reason = find_reason(request, command, *lease.image))) return {};
    ret_reason = find_state_reason(*lease.image, read_owner_state());
    return {};
}

Outcome ServiceTemplate::wait_ready(Deadline deadline) {
    return wait_parked(0, deadline);
}

Outcome ServiceTemplate::wait_parked(std::uint32_t count, Deadline deadline) {
    std::shared_ptr<ServiceConnection> connection;
    if (Outcome failure = connect(connection)) return failure;
    if (facts_.has_fixed_command) return {};
    const Wanted wanted = [&] {
        const std::lock_guard lock(mutex_);
        return last_.environment.empty() ? plain() : last_;
    }();
    {
        const std::lock_guard lock(mutex_);
        want(wanted);
        take_in_ahead();
        if (!ahead_.empty() && !ahead_.front().lease.image->is_fresh()) drop_ahead();
    }
    for (bool is_lost = false;;) {
        // The service has gone: the next one serves.
        if (std::exchange(is_lost, false))
            if (Outcome failure = connect(connection)) return failure;
        // What an earlier call has asked for, and did not wait long enough for, is still to come.
        std::uint64_t id;
        {
            const std::lock_guard lock(mutex_);
            take_in_ahead();
            if (ahead_.size() >= std::max(count, std::uint32_t{1})) break;
            id = std::exchange(awaited_, 0);
        }
        if (id == 0) id = ask(*connection, wanted, kLeaseMayWait);
        Lease lease;
        ColdReason cold;
        const Outcome failure = await(*connection, id, deadline, lease, cold);
        const std::lock_guard lock(mutex_);
        const bool is_late = failure && failure->error_number == ETIMEDOUT;
        if (is_late && awaited_ == 0 && connection == connection_)
            awaited_ = id;
        else
            connection->forget(id);
        is_lost = failure && failure->stage == Stage::hand_off;
        if (failure && !is_lost) return failure;
        if (cold) return Failure{Stage::launch, ENOTSUP, 0, cold.text};
        if (!is_lost) ahead_.push_back({std::move(lease), false});
    }
    // Each says so when it is prepared.
    const std::lock_guard lock(mutex_);
    for (LeasedAhead& ahead : ahead_) {
        pollfd polled{ahead.lease.mailbox.get(), POLLIN, 0};
        MailboxReply reply{};
        ReceivedMessage received;
        if (ahead.has_parked) continue;
        if (::poll(&polled, 1, poll_timeout(deadline)) == 0)
            return Failure{Stage::launch, ETIMEDOUT, 0, "not enough children are parked yet"};
        ahead.has_parked =
            receive_message(ahead.lease.mailbox.get(), std::as_writable_bytes(std::span(&reply, 1)),
                            {}, MSG_DONTWAIT, received) == 0;
    }
    return {};
}

pid_t ServiceTemplate::pid() {
    const std::lock_guard lock(mutex_);
    return ahead_.empty() ? 0 : static_cast<pid_t>(ahead_.front().lease.image->facts().pid);
}

std::uint32_t ServiceTemplate::parked() {
    const std::lock_guard lock(mutex_);
    if (connection_) take_in_ahead();
    return static_cast<std::uint32_t>(ahead_.size());
}

Outcome ServiceTemplate::report(std::string& ret_json) {
    std::shared_ptr<ServiceConnection> connection;
    if (Outcome failure = connect(connection)) return failure;
    return ask_to_manage(*connection, "show", name_, ret_json);
}

void ServiceTemplate::counts(warmfork_counts& ret_counts) const {
    ret_counts.handed_off = handed_off_;
    ret_counts.cold = cold_;
    for (int reason = 0; reason < WARMFORK_REASON_COUNT; ++reason)
        ret_counts.cold_by_reason[reason] = cold_by_reason_[reason];
}

Outcome ask_to_manage(ServiceConnection& connection, const std::string& verb,
                      const std::string& name, std::string& ret_json) {
    const std::uint64_t request =
        connection.request(ServiceKind::manage, FieldWriter().text(verb).text(name).bytes());
    ServiceConnection::Answer answer;
    Outcome failure = connection.answer(request, {}, answer);
    connection.forget(request);
    if (failure) return failure;
    if (answer.refusal)
        return Failure{static_cast<Stage>(answer.refusal->stage),
                       static_cast<int>(answer.refusal->error_number), 0, answer.refusal->text};
    ret_json = answer.managed.value_or("");
    return {};
}

}  // namespace warmfork
