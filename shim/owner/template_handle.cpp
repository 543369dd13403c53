#include "owner/template_handle.hpp"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/wait.h>

#include <cstdlib>

#include "child/setup.hpp"
#include "owner/cold.hpp"
#include "owner/keeping.hpp"

namespace warmfork {
namespace {

// A parked child that dies in the moment of its hand-off is replaced by the next. Where that many
// die it is the record that kills them.
constexpr int kHandOffTries = 4;

/// Waits until the child is set up, or has failed to be. `born.pid` is filled in where the template
/// ended before it could tell.
Outcome await_start(Born& born) {
    // Not for the reply, but for the end of file behind it. A message on a socket wakes its reader
    // on the sender's processor, where it would take the child's place in the moment of its start;
    // a hang-up wakes it wherever a processor is idle.
    pollfd hang_up{born.mailbox.get(), 0, 0};
    while (::poll(&hang_up, 1, -1) < 0 && errno == EINTR) {
    }
    MailboxReply reply{};
    do {
        ReceivedMessage received;
        int error;
        do
            error = receive_message(born.mailbox.get(),
                                    std::as_writable_bytes(std::span(&reply, 1)), {}, 0, received);
        while (error == EINTR);
        if (error || received.size != sizeof reply)
            return Failure{Stage::hand_off, ECHILD, 0, "the child ended before it was set up"};
        born.pid = reply.pid;
    } while (reply.kind == ReplyKind::parked);
    if (reply.kind == ReplyKind::started) return {};
    return make_failure(reply.stage, reply.error_number, "the child cannot be set up",
                        reply.detail);
}

std::vector<pid_t> spawned_pids(const std::vector<Spawned>& spawned) {
    std::vector<pid_t> pids;
    for (const Spawned& child : spawned) pids.push_back(child.pid);
    return pids;
}

/// "cannot be set up" in the words of the step.
void describe(Failure& failure, const Request& request) {
    std::string what;
    switch (failure.stage) {
        case Stage::directory:
            what = "cannot change to directory " + std::string(request.contents().directory.empty()
                                                                   ? "."
                                                                   : request.contents().directory);
            break;
        case Stage::descriptors:
            what = "cannot place descriptor " + std::to_string(failure.detail) + " of the child";
            break;
        case Stage::session:
            what = "cannot enter the session or process group";
            break;
        case Stage::limits:
            what = "cannot set the child's limits";
            break;
        default:
            return;
    }
    failure = make_failure(failure.stage, failure.error_number, what, failure.detail);
}

}  // namespace

Outcome spawn_without_template(const Request& request, std::uint32_t count, ColdReason reason,
                               std::vector<Spawned>& ret_spawned) {
    RecordContents contents = request.contents();
    contents.payload = {};
    contents.header.owner_pid = ::getpid();
    if (::gettid() == ::getpid()) contents.header.flags |= kRecordParentDeathSignal;
    if (contents.header.signals_ignored) contents.header.flags |= kRecordSignalsIgnored;
    std::vector<std::byte> bytes;
    if (int error = encode_record(contents, bytes))
        return make_failure(Stage::record, error, "the request does not fit into a record");
    std::vector<Spawned> spawned;
    Outcome failure;
    for (std::uint32_t i = 0; i < count && !failure; ++i) {
        ColdPlan plan;
        if (const char* error = decode_record(bytes, plan.record))
            return make_failure(Stage::record, EINVAL, error);
        plan.sources = request.sources();
        plan.candidates = executable_candidates(request.program(), request.environment());
        plan.signals_default = request.signals_default();
        plan.signal_mask =
            request.has_signal_mask() ? request.contents().header.signal_mask : signal_mask();
        Spawned child{0, false, reason};
        failure = spawn_kept(plan, child.pid);
        if (!failure) spawned.push_back(child);
    }
    if (failure) {
        for (const Spawned& child : spawned) {
            end_child(child.pid);
        }
        return failure;
    }
    ret_spawned = std::move(spawned);
    return {};
}

TemplateHandle::TemplateHandle(Definition definition)
    : owner_(::getpid()), definition_(std::move(definition)) {}

TemplateHandle::~TemplateHandle() {
    if (process_ && is_usable()) process_->shut_down();
}

TemplateHandle::Process TemplateHandle::current() {
    const std::lock_guard lock(mutex_);
    return process_;
}

/// The current process, started if there is none or if it has ended.
Outcome TemplateHandle::running_process(Process& ret_process) {
    Process lost;  // ended after the mutex is released: that may take a while
    const std::lock_guard lock(mutex_);
    if (process_ && process_->is_lost()) {
        lost = std::move(process_);
        is_restarting_ = false;
    }
    if (!process_) {
        if (Outcome failure = TemplateProcess::start(definition_.launch, process_)) return failure;
        ++starts_;
    }
    ret_process = process_;
    return {};
}

/// Ends a process that new children must not come from, and begins to preload another.
void TemplateHandle::retire(const Process& process) {
    const std::lock_guard lock(mutex_);
    if (process_ != process) return;
    process_->shut_down();
    process_.reset();
    is_restarting_ = !TemplateProcess::start(definition_.launch, process_);
    if (is_restarting_) ++starts_;
}

/// So that the next request starts another.
void TemplateHandle::forget(const Process& process) {
    const std::lock_guard lock(mutex_);
    if (process_ == process) process_.reset();  // the caller's reference is the last
}

Outcome TemplateHandle::start() {
    Process process;
    return running_process(process);
}

Outcome TemplateHandle::wait_ready(Deadline deadline) {
    Process process;
    if (Outcome failure = running_process(process)) return failure;
    Outcome failure = process->wait_ready(deadline);
    if (failure && failure->error_number != ETIMEDOUT) forget(process);
    return failure;
}

Outcome TemplateHandle::wait_parked(std::uint32_t count, Deadline deadline) {
    if (Outcome failure = wait_ready(deadline)) return failure;
    const Process process = current();
    return process ? process->wait_parked(count, deadline)
                   : Outcome(Failure{Stage::launch, ECHILD, 0, "the template has ended"});
}

pid_t TemplateHandle::pid() {
    const Process process = current();
    return process && !process->has_ended() ? process->pid() : 0;
}

std::uint32_t TemplateHandle::parked() {
    const Process process = current();
    return process ? process->parked() : 0;
}

int TemplateHandle::set_spares(std::uint32_t least, std::uint32_t most) {
    const std::lock_guard lock(mutex_);
    definition_.launch.spares_least = least;
    definition_.launch.spares_most = most;
    return process_ ? process_->set_spares(least, most) : 0;
}

Outcome TemplateHandle::report(std::string& ret_json) {
    if (Outcome failure = wait_ready({})) return failure;
    const Process process = current();
    return process ? process->report(ret_json)
                   : Outcome(Failure{Stage::launch, ECHILD, 0, "the template has ended"});
}

void TemplateHandle::counts(warmfork_counts& ret_counts) const {
    ret_counts.handed_off = handed_off_;
    ret_counts.forked = forked_;
    ret_counts.cold = cold_;
    ret_counts.template_starts = starts_;
    for (int reason = 0; reason < WARMFORK_REASON_COUNT; ++reason)
        ret_counts.cold_by_reason[reason] = cold_by_reason_[reason];
}

warmfork_backend TemplateHandle::choose_backend(const Request& request) const {
    if (request.backend() != WARMFORK_BACKEND_DEFAULT) return request.backend();
    if (definition_.backend != WARMFORK_BACKEND_DEFAULT) return definition_.backend;
    return default_backend();
}

warmfork_backend default_backend() {
    const char* chosen = std::getenv("WARMFORK_BACKEND");
    for (warmfork_backend backend :
         {WARMFORK_BACKEND_AUTO, WARMFORK_BACKEND_WARM, WARMFORK_BACKEND_COLD})
        if (chosen && std::strcmp(chosen, warmfork_backend_name(backend)) == 0) return backend;
    return WARMFORK_BACKEND_AUTO;
}

Outcome TemplateHandle::spawn(const Request& request, std::uint32_t count,
                              std::vector<Spawned>& ret_spawned) {
    const warmfork_backend backend = choose_backend(request);
    ColdReason reason{WARMFORK_REASON_ASKED, "the cold backend was asked for"};
    if (backend != WARMFORK_BACKEND_COLD) {
        reason = {};
        Outcome failure = spawn_warm(request, count, backend, reason, ret_spawned);
        if (!reason) return failure;
        if (backend == WARMFORK_BACKEND_WARM)
            return failure ? failure
                           : Outcome(Failure{Stage::eligibility, ENOTSUP, 0,
                                             "cannot be served warm: " + reason.text});
    }
    return spawn_cold_counted(request, count, reason, ret_spawned);
}

Outcome TemplateHandle::spawn_cold_counted(const Request& request, std::uint32_t count,
                                           const ColdReason& reason,
                                           std::vector<Spawned>& ret_spawned) {
    Outcome failure = spawn_without_template(request, count, reason, ret_spawned);
    if (!failure) {
        cold_ += count;
        cold_by_reason_[reason.reason] += count;
    }
    return failure;
}

/// What the request and the template's definition say; nothing that changes from call to call.
ColdReason TemplateHandle::static_reason(const Request& request, TemplateProcess& process) const {
    if (request.has_exec_limits())
        return {WARMFORK_REASON_LIMITS,
                "a limit on stack, data or address space only takes effect at exec"};
    const std::vector<int> image_descriptors = process.image_descriptors();
    const TemplateTraits traits{definition_.is_python, definition_.program,
                                process.environment_at_start(), image_descriptors};
    return find_cold_reason(traits, request.program(), request.arguments(), request.environment(),
                            request.contents().descriptor_targets);
}

/// Sets `ret_cold` where the request is to be served cold; with it a failure for who insists on
/// warm.
Outcome TemplateHandle::spawn_warm(const Request& request, std::uint32_t count,
                                   warmfork_backend backend, ColdReason& ret_cold,
                                   std::vector<Spawned>& ret_spawned) {
    const bool may_wait = backend == WARMFORK_BACKEND_WARM;
    // Twice: a template that no longer fits the owner is replaced by one that does.
    for (bool is_second_try : {false, true}) {
        Process process;
        if (Outcome failure = running_process(process)) return failure;
        if (is_restarting_ && !may_wait) {
            const auto now = TemplateProcess::Clock::now();
            if (Outcome failure = process->wait_ready(now);
                failure && failure->error_number == ETIMEDOUT) {
                ret_cold = {WARMFORK_REASON_RESTARTING, "the template is being preloaded again"};
                return failure;
            }
        }
        if (Outcome failure = process->wait_ready({})) {
            if (failure->stage == Stage::gate)
                ret_cold = {WARMFORK_REASON_GATE, failure->text};
            else
                forget(process);
            return failure;
        }
        if ((ret_cold = static_reason(request, *process))) return {};

        const OwnerState state = read_owner_state();
        std::string change = find_incompatible_change(process->state_at_start(), state);
        if (change.empty() && process->could_compare() && !can_compare_with(process->pid()))
            change = "the owner has been confined since the template was started";
        if (!change.empty()) {
            retire(process);
            if (may_wait && !is_second_try) continue;
            ret_cold = {WARMFORK_REASON_OWNER_CHANGED, change};
            return {};
        }
        Outcome failure = spawn_in(*process, state, request, count, ret_spawned);
        const bool template_was_lost =
            failure && failure->stage == Stage::hand_off && failure->error_number == EPIPE;
        if (template_was_lost && !is_second_try) {
            forget(process);
            continue;
        }
        if (failure && failure->stage == Stage::gate)
            ret_cold = {WARMFORK_REASON_GATE, failure->text};
        else if (failure && failure->stage == Stage::fork)
            ret_cold = {WARMFORK_REASON_FORK, failure->text};
        return failure;
    }
    return {};
}

Outcome TemplateHandle::spawn_in(TemplateProcess& process, const OwnerState& state,
                                 const Request& request, std::uint32_t count,
                                 std::vector<Spawned>& ret_spawned) {
    RecordContents contents = request.contents();
    add_differences(process.state_at_start(), state, contents);
    contents.header.owner_pid = owner_;
    contents.header.flags |= kRecordSignalMask | kRecordSignalsIgnored | kRecordDirectoryDescriptor;
    if (process.opened_by_main_thread()) contents.header.flags |= kRecordParentDeathSignal;
    contents.header.signals_ignored = (state.signals_ignored & ~request.signals_default()) |
                                      request.contents().header.signals_ignored;
    if (!request.has_signal_mask()) contents.header.signal_mask = state.signal_mask;
    if (!(contents.header.flags & (kRecordNewSession | kRecordProcessGroup))) {
        contents.header.flags |= kRecordProcessGroup;
        contents.header.process_group = state.process_group;
    }
    const Descriptor directory(::open(".", O_PATH | O_DIRECTORY | O_CLOEXEC));
    if (!directory) return make_failure(Stage::directory, errno, "cannot open the directory .");
    std::vector<int> descriptors = request.sources();
    descriptors.push_back(directory.get());
    std::vector<std::byte> record;
    if (int error = encode_record(contents, record))
        return make_failure(Stage::record, error, "the request does not fit into a record");

    if (count == 1) {
        Spawned spawned{0, true, {}};
        bool done = false;
        Outcome failure =
            spawn_by_hand_off(process, record, descriptors, request.lifetime(), done, spawned);
        if (failure) describe(*failure, request);
        if (failure || done) {
            if (!failure) ++handed_off_, ret_spawned = {spawned};
            return failure;
        }
    }

    std::uint64_t id;
    std::vector<Born> born;
    if (Outcome failure =
            process.fork_on_command(record, descriptors, count, request.nonblocking(), id, born))
        return failure;
    std::vector<Spawned> spawned;
    Outcome failure;
    bool is_unexplained = false;
    for (Born& child : born) {
        Outcome start_failure = await_start(child);
        if (!start_failure) {
            spawned.push_back({child.pid, true, {}});
            continue;
        }
        end_child(child.pid);
        is_unexplained = is_unexplained || child.pid == 0;
        if (!failure) failure = std::move(start_failure);
    }
    // A mailbox was closed without a word: was its child never forked, or did it die?
    if (Outcome explanation =
            process.finish_command(id, count, is_unexplained, spawned_pids(spawned)))
        failure = std::move(explanation);
    if (spawned.size() == count) {
        process.remember_children(spawned_pids(spawned), request.lifetime());
        forked_ += count;
        ret_spawned = std::move(spawned);
        return {};
    }
    for (const Spawned& child : spawned) {
        end_child(child.pid);
    }
    describe(*failure, request);
    return failure;
}

/// Sends the record to a parked child. `ret_done` stays false if there is none to be had.
Outcome TemplateHandle::spawn_by_hand_off(TemplateProcess& process,
                                          std::span<const std::byte> record,
                                          std::span<const int> descriptors, Lifetime lifetime,
                                          bool& ret_done, Spawned& ret_spawned) {
    MailboxHeader header{kMailboxMagic, static_cast<std::uint32_t>(record.size())};
    std::vector<int> sent(descriptors.begin(), descriptors.end());
    Descriptor memfd;
    if (record.size() > kInlineRecordSize) {
        memfd = make_sealed_memfd(record);
        if (!memfd) return make_failure(Stage::record, errno, "cannot make a memfd for the record");
        sent.insert(sent.begin(), memfd.get());
        header.record_size = 0;
        record = {};
    }
    Outcome failure;
    for (int tries = 0; tries < kHandOffTries; ++tries) {
        std::optional<Born> spare = process.take_spare(lifetime);
        if (!spare) return {};
        const int error = send_message(spare->mailbox.get(), bytes_of(header), record, sent, 0);
        if (error == EBADF || error == ETOOMANYREFS) {
            spare->mailbox.reset();
            end_child(spare->pid);
            return make_failure(Stage::descriptors, error,
                                error == EBADF ? "a descriptor of the request is not open"
                                               : "too many descriptors are in flight");
        }
        if (!error) failure = await_start(*spare);
        if (!error && !failure) {
            ret_spawned.pid = spare->pid;
            ret_done = true;
            process.remember_children({spare->pid}, lifetime);
            break;
        }
        spare->mailbox.reset();
        end_child(spare->pid);
        // It said what failed: that is the answer. Otherwise it died before any user code.
        if (!error && failure->stage != Stage::hand_off) break;
        failure.reset();
    }
    // The child is on its way: now the template may use the processor to fork the next one.
    process.wake_to_refill();
    return failure;
}

}  // namespace warmfork
