#include "client/service_connection.hpp"

#include <poll.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/un.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cstring>
#include <thread>

#include "channel/deadline.hpp"
#include "channel/stopping_point.hpp"
#include "client/service_launch.hpp"
#include "link/service_place.hpp"
#include "owner/service_address.hpp"
#include "owner/template_process.hpp"

namespace warmfork {
namespace {

using std::chrono::milliseconds;

// How long a service that is starting, or ending in this very moment, is waited for.
constexpr std::chrono::seconds kConnectPatience{10};
constexpr milliseconds kConnectInterval{5};
constexpr milliseconds kLaunchInterval{100};
// A service that says nothing for this long is asked whether it is there, by a question that its
// loop answers at once ...
constexpr std::chrono::seconds kSilence{2};
// ... and hangs, as far as can be told from here, if it says nothing for this long after that.
constexpr std::chrono::seconds kAnswerPatience{6};
constexpr milliseconds kLookInterval{250};
// One that did not greet is not waited for again before this time.
constexpr std::chrono::seconds kRetryPeriod{5};

/// Returns 0 or errno.
int connect_to(const std::string& path, OwnedSocket& ret_socket) {
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    if (path.size() >= sizeof address.sun_path) return ENAMETOOLONG;
    std::memcpy(address.sun_path, path.c_str(), path.size() + 1);
    OwnedSocket socket{
        Descriptor(::socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0))};
    if (!socket) return errno;
    // EAGAIN means that as many are waiting as it lets wait.
    while (::connect(socket.get(), reinterpret_cast<sockaddr*>(&address), sizeof address) < 0)
        if (errno != EINTR) return errno;
    ucred service{};
    socklen_t size = sizeof service;
    if (::getsockopt(socket.get(), SOL_SOCKET, SO_PEERCRED, &service, &size) < 0) return errno;
    if (!link::is_trusted(service)) return EPERM;
    ret_socket = std::move(socket);
    return 0;
}

Failure lost_failure() {
    return {Stage::hand_off, EPIPE, 0, "the service has ended"};
}

/// Can this process not send it, while the connection is not lost?
bool is_refused_here(int error) {
    constexpr std::array kErrors{E2BIG, EFBIG, EMFILE, ENFILE, ENOMEM, ETOOMANYREFS};
    return std::find(kErrors.begin(), kErrors.end(), error) != kErrors.end();
}

Failure hanging_failure() {
    return {Stage::hand_off, ETIMEDOUT, 0, "the service does not answer: it hangs, or was stopped"};
}

}  // namespace

Outcome ServiceConnection::get(std::shared_ptr<ServiceConnection>& ret_connection) {
    struct Current {
        pid_t owner = ::getpid();
        std::mutex mutex;
        std::condition_variable changed;
        bool is_greeting = false;
        std::shared_ptr<ServiceConnection> connection;
        Outcome failure;  ///< of a service that did not answer
        Clock::time_point failed_at{};
    };
    // It is never destroyed: it is used until the very end. A forked copy makes its own: the mutex
    // of the first may be held for ever by a thread that the copy does not have.
    static std::atomic<Current*> current{nullptr};
    Current* instance = current.load();
    if (!instance || instance->owner != ::getpid()) {
        auto* fresh = new Current;
        if (current.compare_exchange_strong(instance, fresh))
            instance = fresh;
        else
            delete fresh;
    }
    // One thread greets for all and holds no lock: a signal's handler may come back here meanwhile.
    const auto deadline = Clock::now() + kConnectPatience;
    Lock lock(instance->mutex);
    while (instance->is_greeting) {
        if (Clock::now() >= deadline) return hanging_failure();
        instance->changed.wait_until(lock, *next_look(deadline));
        if (!may_be_interrupted()) continue;
        lock.unlock();
        if (check_interruption())
            return make_failure(Stage::launch, EINTR, "the wait for the service was broken off");
        lock.lock();
    }
    if (!instance->connection || instance->connection->check_lost()) {
        if (instance->failure && Clock::now() < instance->failed_at + kRetryPeriod)
            return instance->failure;
        instance->is_greeting = true;
        lock.unlock();
        std::shared_ptr<ServiceConnection> connection(new ServiceConnection);
        Outcome failure = connection->greet();
        lock.lock();
        instance->is_greeting = false;
        instance->changed.notify_all();
        const bool has_hung = failure && failure->error_number == ETIMEDOUT;
        instance->failure = has_hung ? failure : std::nullopt;
        instance->failed_at = Clock::now();
        if (failure) return failure;
        instance->connection = std::move(connection);
    }
    ret_connection = instance->connection;
    return {};
}

/// Connects and says hello; where nobody listens, has a service started.
Outcome ServiceConnection::greet() {
    const std::string path = service_address();
    if (path.empty())
        return Failure{
            Stage::launch, ENOENT, 0,
            "there is no service: XDG_RUNTIME_DIR is not set, so that it has no place to "
            "listen. Set it, or WARMFORK_SOCKET"};
    const auto deadline = Clock::now() + kConnectPatience;
    auto launch_at = Clock::now();
    while (true) {
        const int error = connect_to(path, socket_);
        if (!error) {
            tell(ServiceKind::hello, 0,
                 FieldWriter().number(static_cast<std::uint64_t>(owner_)).bytes());
            stopping_point("client.hello-said");
            Lock lock(mutex_);
            wait_until(lock, deadline, false, [this] { return is_welcome_ || refusal_; });
            if (is_welcome_) return {};
            if (refusal_)
                return Failure{static_cast<Stage>(refusal_->stage),
                               static_cast<int>(refusal_->error_number), 0, refusal_->text};
            // This one was just about to end: the next will do.
            is_lost_ = false;
        } else if (error != ENOENT && error != ECONNREFUSED && error != EAGAIN) {
            return make_failure(Stage::launch, error, "cannot connect to the service at " + path);
        } else if (error != EAGAIN && Clock::now() >= launch_at) {
            if (Outcome failure = launch_service(path)) return failure;
            // It is launched again later, as the one that was quicker may have been about to end.
            launch_at = Clock::now() + kLaunchInterval;
            continue;
        }
        if (Clock::now() >= deadline)
            return make_failure(Stage::launch, ETIMEDOUT,
                                "the service at " + path + " does not answer");
        if (check_interruption())
            return make_failure(Stage::launch, EINTR, "the wait for the service was broken off");
        // Another client has started it, and it has the lock but does not listen yet; or it ends.
        std::this_thread::sleep_for(kConnectInterval);
    }
}

bool ServiceConnection::check_lost() {
    const std::lock_guard lock(mutex_);
    if (!is_lost_ && !somebody_reads_) drain();
    return is_lost_;
}

bool ServiceConnection::hangs() const {
    const std::lock_guard lock(mutex_);
    return hangs_;
}

std::uint64_t ServiceConnection::request(ServiceKind kind, std::span<const std::byte> body,
                                         std::span<const int> descriptors) {
    std::uint64_t id;
    {
        const std::lock_guard lock(mutex_);
        if (hangs_ && !somebody_reads_) drain();
        if (is_lost_ || hangs_) return 0;
        id = ++last_request_;
        answers_[id];
    }
    // The service reads whatever comes, unless it hangs, or this process does not read its answers:
    // so it waits only if answers are being read by nobody, which its own caller is about to do.
    const auto since = Clock::now();
    while (int error =
               send_service_message(socket_.get(), kind, id, body, descriptors, MSG_DONTWAIT)) {
        Lock lock(mutex_);
        if (is_refused_here(error)) {
            const bool is_too_large = error == EFBIG || error == E2BIG;
            refuse(id, is_too_large ? Stage::record : Stage::descriptors, error,
                   is_too_large ? "the request is too large for the service"
                                : "no descriptor is free to send a request to the service");
            return id;
        }
        if (error != EAGAIN || is_lost_ || was_interrupted() || !probe_if_silent(since)) {
            answers_.erase(id);
            return 0;
        }
        pollfd polled{socket_.get(), POLLOUT | POLLIN, 0};
        lock.unlock();
        // Whoever calls may hold a lock: nobody is asked for an interruption here.
        ::poll(&polled, 1, milliseconds_until(Clock::now() + kLookInterval));
        lock.lock();
        if (!somebody_reads_) drain();
    }
    return id;
}

void ServiceConnection::tell(ServiceKind kind, std::uint64_t id, std::span<const std::byte> body) {
    // What does not get through is of no consequence, or the connection is lost anyway.
    static_cast<void>(send_service_message(socket_.get(), kind, id, body, {}, MSG_DONTWAIT));
}

/// Asks a service that has been silent for a template that does not exist, which its loop answers
/// at once. Returns false where it has not answered in time.
bool ServiceConnection::probe_if_silent(Clock::time_point since) {
    const auto now = Clock::now();
    if (!hangs_ && !asked_at_ && now >= std::max(since, heard_at_) + kSilence) {
        tell(ServiceKind::find, ++last_request_, FieldWriter().text("").bytes());
        asked_at_ = now;
    }
    hangs_ = hangs_ || (asked_at_ && now >= *asked_at_ + kAnswerPatience);
    return !hangs_;
}

template <typename Done>
bool ServiceConnection::wait_until(Lock& lock, Deadline deadline, bool is_asked, Done done) {
    const auto since = Clock::now();
    while (true) {
        if (!somebody_reads_) drain();
        if (done()) return true;
        if (is_lost_ || was_interrupted() || (deadline && Clock::now() >= *deadline)) return false;
        if (is_asked && !probe_if_silent(since)) return false;
        // Whoever reads for all may leave, and others are to see that the service hangs.
        auto look = Clock::now() + kLookInterval;
        if (deadline) look = std::min(look, *deadline);
        if (somebody_reads_) {
            changed_.wait_until(lock, *next_look(look));
            if (!may_be_interrupted()) continue;
            lock.unlock();
            static_cast<void>(check_interruption());
            lock.lock();
            continue;
        }
        somebody_reads_ = true;
        pollfd polled{socket_.get(), POLLIN, 0};
        lock.unlock();
        const int ready = ::poll(&polled, 1, milliseconds_until(next_look(look)));
        lock.lock();
        somebody_reads_ = false;
        drain();
        changed_.notify_all();
        if (ready > 0 || !may_be_interrupted()) continue;
        lock.unlock();
        static_cast<void>(check_interruption());
        lock.lock();
    }
}

Failure ServiceConnection::failure_of_wait() const {
    if (is_lost_) return lost_failure();
    if (was_interrupted())
        return make_failure(Stage::launch, EINTR, "the wait for the service was broken off");
    if (hangs_) return hanging_failure();
    return {Stage::launch, ETIMEDOUT, 0, "the service has not answered yet"};
}

void ServiceConnection::drain() {
    while (!is_lost_) {
        if (!socket_.is_intact()) {
            is_lost_ = true;  // closed by somebody
            return;
        }
        ServiceMessage message;
        const int error = receive_service_message(socket_.get(), MSG_DONTWAIT, message);
        if (error == EAGAIN) return;
        if (error == EINTR) continue;
        heard_at_ = Clock::now();
        asked_at_.reset();
        hangs_ = false;
        if (error == EMFILE && message.kind == ServiceKind::leased) {
            // It ends with its mailbox. One that runs already has none.
            if (const auto leased = read_leased_child(message.body); leased && leased->image == 0)
                tell(ServiceKind::signal, leased->child, FieldWriter().number(SIGKILL).bytes());
            refuse(message.id, Stage::descriptors, EMFILE,
                   "no descriptor is free for the child of the service, which was ended");
            continue;
        }
        if (error == EMFILE) continue;  // it was an image: the first lease of it says so
        if (error == EPROTONOSUPPORT)
            refusal_ = Refusal{static_cast<std::uint64_t>(Stage::launch), EPROTONOSUPPORT, 0,
                               "the service speaks another version of the protocol than this "
                               "library: restart the older of the two"};
        if (error) {
            is_lost_ = true;
            return;
        }
        dispatch(message);
    }
}

/// Says to whoever waits what this process could not do for its request.
void ServiceConnection::refuse(std::uint64_t request, Stage stage, int error_number,
                               const char* text) {
    const auto answers = answers_.find(request);
    if (answers == answers_.end()) return;
    Failure failure = make_failure(stage, error_number, text);
    answers->second.push_back(
        {{},
         {},
         Refusal{static_cast<std::uint64_t>(stage), static_cast<std::uint64_t>(error_number), 0,
                 std::move(failure.text)},
         {}});
}

void ServiceConnection::take_image(ServiceMessage& message) {
    std::erase_if(images_,
                  [&](const auto& known) { return known.first >> 32 != message.id >> 32; });
    std::shared_ptr<LeasedImage> image;
    if (auto facts = read_shared_image(message.body))
        if (LeasedImage::make(std::move(*facts), std::move(message.descriptors), image) == 0)
            images_[message.id] = std::move(image);
}

/// Returns nothing where it is none; what is in the way of its image is the answer then.
std::optional<Lease> ServiceConnection::take_lease(ServiceMessage& message) {
    const auto leased = read_leased_child(message.body);
    if (!leased || message.descriptors.empty()) return {};
    Lease lease;
    lease.child = leased->child;
    lease.pid = static_cast<pid_t>(leased->pid);
    lease.pidfd = std::move(message.descriptors[0]);
    if (message.descriptors.size() > 1)
        lease.mailbox = OwnedSocket(std::move(message.descriptors[1]));
    if (const auto image = images_.find(leased->image); image != images_.end()) {
        lease.image = image->second;
    } else if (leased->image != 0) {
        tell(ServiceKind::missed, leased->image, {});
        refuse(message.id, Stage::descriptors, EMFILE,
               "no descriptor is free for the image of a child");
        return {};
    }
    children_.insert(lease.child);
    return lease;
}

void ServiceConnection::dispatch(ServiceMessage& message) {
    const auto answers = answers_.find(message.id);
    const auto add = [&](Answer answer) {
        if (answers != answers_.end()) answers->second.push_back(std::move(answer));
    };
    switch (message.kind) {
        case ServiceKind::welcome:
            is_welcome_ = true;
            welcome_ = read_welcome(message.body);
            return;
        case ServiceKind::found:
            return add({read_template_facts(message.body), {}, {}, {}});
        case ServiceKind::managed:
            return add({{}, {}, {}, FieldReader(message.body).text()});
        case ServiceKind::refused: {
            auto refusal = read_refusal(message.body);
            if (message.id == 0) refusal_ = refusal;
            return add({{}, {}, std::move(refusal), {}});
        }
        case ServiceKind::gone:
            images_.erase(message.id);
            return;
        case ServiceKind::image:
            return take_image(message);
        case ServiceKind::leased: {
            // Nobody waits for it, and it ends with its mailbox.
            if (answers == answers_.end()) return;
            std::optional<Lease> lease = take_lease(message);
            if (!lease) return;
            Answer answer;
            answer.lease = std::move(*lease);
            return add(std::move(answer));
        }
        case ServiceKind::exited:
            if (const auto report = read_exit_report(message.body);
                report && children_.erase(message.id) > 0)
                exits_[message.id] = *report;
            return;
        default:
            is_lost_ = true;  // it does not speak this protocol
    }
}

Outcome ServiceConnection::answer(std::uint64_t request, Deadline deadline, Answer& ret_answer) {
    Lock lock(mutex_);
    const auto answers = answers_.find(request);
    if (answers == answers_.end())
        return hangs_ || was_interrupted() ? failure_of_wait() : lost_failure();
    if (!wait_until(lock, deadline, true, [&] { return !answers->second.empty(); }))
        return failure_of_wait();
    ret_answer = std::move(answers->second.front());
    answers->second.pop_front();
    return {};
}

std::optional<ServiceConnection::Answer> ServiceConnection::take_answer(std::uint64_t request) {
    const std::lock_guard lock(mutex_);
    if (!somebody_reads_) drain();
    const auto answers = answers_.find(request);
    if (answers == answers_.end() || answers->second.empty()) return {};
    Answer answer = std::move(answers->second.front());
    answers->second.pop_front();
    return answer;
}

void ServiceConnection::cancel(std::uint64_t request) {
    const std::lock_guard lock(mutex_);
    const auto answers = answers_.find(request);
    if (answers == answers_.end()) return;
    // Nobody has taken these children, which end with their mailboxes, and nobody asks how.
    for (const Answer& answer : answers->second)
        if (answer.lease) drop_lease(answer.lease->child);
    answers_.erase(answers);
}

std::optional<ExitReport> ServiceConnection::exit_of(std::uint64_t child, Deadline deadline) {
    Lock lock(mutex_);
    const auto has_ended = [&] { return exits_.count(child) > 0; };
    if (!wait_until(lock, deadline, true, has_ended)) return {};
    return exits_[child];
}

void ServiceConnection::release_child(std::uint64_t child) {
    if (owner_ != ::getpid()) return;  // in a forked copy the mutex may be held for ever
    const std::lock_guard lock(mutex_);
    drop_lease(child);
}

void ServiceConnection::drop_lease(std::uint64_t child) {
    children_.erase(child);
    exits_.erase(child);
}

}  // namespace warmfork
