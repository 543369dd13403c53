// How a template ends: told to, or by itself; and what becomes of its children then.
#include <signal.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include <algorithm>
#include <sstream>

#include "channel/deadline.hpp"
#include "channel/doorbell.hpp"
#include "owner/child_start.hpp"
#include "owner/cold.hpp"
#include "owner/keeping.hpp"
#include "owner/template_process.hpp"
#include "protocol/messages.hpp"

namespace warmfork {
namespace {

constexpr std::size_t kLastLinesSize = 3072;
// How long a template may take to end after it was told to.
constexpr auto kShutDownPatience = std::chrono::seconds(5);

}  // namespace

std::string no_interpreter_hint() {
    return ". A frozen program, a wrapper or a program that embeds Python is no interpreter: name "
           "one "
           "(Template(python=...); the default is sys.executable)";
}

void TemplateProcess::shut_down() {
    const std::lock_guard lock(mutex_);
    if (std::exchange(is_closing_, true)) return;
    patience_ends_ = Clock::now() + kShutDownPatience;
    drain();
    if (state_ == State::starting || state_ == State::broken) signal_pidfd(pidfd_.get(), SIGKILL);
    // A ring without room belongs to a template that does not answer: it is killed in the end.
    else if (channel_.push(make_frame(FrameKind::shut_down)) == 0)
        channel_.ring();
    // Where the application has closed the bell, the end of file wakes the template as well.
    if (!channel_.can_ring()) channel_.hang_up();
}

bool TemplateProcess::is_over() const {
    return has_ended() || Clock::now() >= patience_ends_.load();
}

TemplateProcess::~TemplateProcess() {
    if (facts_.owner != ::getpid()) return;  // a forked copy
    if (!end_template()) leave_children_to_keeper();
    settle_after_end();
    spares_.end_all();
}

/// Tells the template to end, waits until it has, and reaps it. One that does not end in time, or
/// whose wait is broken off, is killed. Returns false where it did not end in good order, and
/// nobody looks after its children any more.
bool TemplateProcess::end_template() {
    if (!pidfd_) pidfd_ = KeptDescriptor(open_process(facts_.process));
    shut_down();
    pollfd polled{pidfd_.get(), POLLIN, 0};
    // Where there is nothing to wait for a lock may be held, and nobody is asked: see is_over.
    if (!is_over()) static_cast<void>(poll_until(std::span(&polled, 1), patience_ends_.load()));
    if (!has_ended()) signal_pidfd(pidfd_.get(), SIGKILL);
    if (hello_by_ && !channel_.has_said_hello()) end_unproven();
    int status = -1;
    return reap_by(Clock::now() + kKillPatience, pidfd_.get(), &status) == 0 && status == 0;
}

/// Settles what is left when the template has ended: whatever it still said is in the ring and in
/// the socket, and what it has forked and not told of is in the segment. A spare ends when its
/// mailbox is closed.
void TemplateProcess::settle_after_end() {
    ended_ = true;
    receive_messages();
    if (hello_by_ && !channel_.has_said_hello()) end_unproven();
    drain();
    const std::uint64_t last_announced = last_born_;
    for (const Newborn& newborn : channel_.layout().newborns) {
        const std::uint64_t id = newborn.id, spawn = newborn.spawn;
        ProcessIdentity child{newborn.pid, newborn.mark};
        if (id <= last_announced || child.pid <= 0) continue;
        // The template died right after the fork. Nobody has reaped the child since: that would
        // have had to be killed and its number given away in the same moment.
        if (child.mark == 0) child.mark = mark_by_time();
        last_born_ = std::max(last_born_, id);
        if (spawn == 0)
            spares_.let_end(child);
        else if (const auto pending = pending_.find(spawn); pending != pending_.end())
            pending->second.born.push_back(child);
    }
    spares_.drop_mailboxes();
}

void TemplateProcess::leave_children_to_keeper() {
    for (const ProcessIdentity& child : running_children_.entries())
        if (is_running(child)) give_child_to_keeper_when_possible(child);
}

void TemplateProcess::remember_children(const std::vector<ProcessIdentity>& children,
                                        Lifetime lifetime) {
    if (lifetime != Lifetime::owner) return;
    const std::lock_guard lock(mutex_);
    for (const ProcessIdentity& child : children) running_children_.add(child);
}

bool TemplateProcess::has_ended() const {
    return warmfork::has_ended(pidfd_.get());
}

bool TemplateProcess::is_lost() const {
    {
        const std::lock_guard lock(mutex_);
        if (state_ == State::broken || is_closing_ || !channel_.is_intact() || !pidfd_) return true;
        // A template that ended before it was ready still has to say why, and the gate will not
        // change its mind.
        if (state_ == State::starting || state_ == State::refused) return false;
    }
    return has_ended();
}

/// Returns what it has written last, in whole lines.
std::string TemplateProcess::last_output() const {
    struct stat status;
    if (::fstat(log_.get(), &status) < 0) return {};
    const auto size = static_cast<std::size_t>(status.st_size);
    const std::size_t taken = std::min(size, kLastLinesSize);
    std::string text(taken, '\0');
    const ssize_t got = ::pread(log_.get(), text.data(), taken, static_cast<off_t>(size - taken));
    text.resize(got > 0 ? static_cast<std::size_t>(got) : 0);
    if (taken < size) text.erase(0, text.find('\n') + 1);
    return text;
}

std::string TemplateProcess::progress() {
    {
        const std::lock_guard lock(mutex_);
        if (state_ != State::starting) return {};
    }
    const std::string output = last_output();
    const std::size_t mark = output.rfind(kProgressMark);
    if (mark == std::string::npos) return {};
    return output.substr(mark + 1, output.find('\n', mark) - mark - 1);
}

std::string TemplateProcess::last_lines() const {
    std::string text;
    std::istringstream output(last_output());
    for (std::string line; std::getline(output, line);)
        if (!line.starts_with(kProgressMark)) text += line + '\n';
    while (text.ends_with('\n')) text.pop_back();
    return text;
}

/// Returns how it has ended. si_pid is 0 where it has not, or somebody else has reaped it.
siginfo_t TemplateProcess::end() const {
    siginfo_t info{};
    const auto pidfd = static_cast<id_t>(pidfd_.get());
    const bool is_known = ::waitid(P_PIDFD, pidfd, &info, WEXITED | WNOWAIT | WNOHANG) == 0 &&
                          info.si_pid == facts_.process.pid;
    return is_known ? info : siginfo_t{};
}

bool TemplateProcess::was_killed() const {
    const siginfo_t info = end();
    return info.si_pid != 0 && info.si_code != CLD_EXITED;
}

/// Returns why a template that has ended did not serve.
Failure TemplateProcess::end_failure() {
    // A layer may not even have become one.
    if (layer_ && layer_->reply) {
        // It has said what it has to say.
        not_started_ = await_start(layer_->child, layer_->reply.get(), Clock::now());
        layer_.reset();
        if (not_started_ && not_started_->stage == Stage::directory)
            not_started_ =
                make_failure(Stage::launch, not_started_->error_number,
                             "the layer cannot change to the directory " + facts_.directory);
    }
    if (not_started_) return *not_started_;
    const siginfo_t info = end();
    std::string how = "ended";
    if (info.si_pid != 0)
        how = (info.si_code == CLD_EXITED ? "exited with status " : "was killed by signal ") +
              std::to_string(info.si_status);
    const std::string lines = last_lines();
    const std::string last = lines.empty() ? "; it wrote nothing" : "; it wrote last:\n" + lines;
    if (hello_by_ && !channel_.has_said_hello())
        return {Stage::launch, ENOEXEC, 0,
                facts_.program + " was started as a template and is none: it " + how +
                    no_interpreter_hint() + last};
    return {Stage::launch, ECHILD, 0, "the template " + how + " before it was ready" + last};
}

}  // namespace warmfork
