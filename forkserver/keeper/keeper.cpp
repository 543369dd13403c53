#include "keeper/keeper.hpp"

#include <signal.h>
#include <sys/socket.h>
#include <sys/wait.h>

#include <array>

#include "channel/deadline.hpp"
#include "channel/message_socket.hpp"
#include "channel/stopping_point.hpp"
#include "child/setup.hpp"
#include "child/vfork.hpp"

namespace warmfork {
namespace {

// For an answer: one that takes longer has been stopped.
constexpr std::chrono::seconds kPatience{3};
using Clock = std::chrono::steady_clock;

/// Plain data, in memory that the caller shares with both children.
struct Launch {
    const char* program;
    int socket, owner, null;  ///< above the numbers that they are placed on
    ChildStack* stack;        ///< for the keeper
    int error = 0;
};

int run_keeper(void* argument) {
    auto& launch = *static_cast<Launch*>(argument);
    char name[] = "warmfork-keeper";
    char* const arguments[] = {name, nullptr};
    char* const environment[] = {stopping_point_variable(), nullptr};
    const std::array<std::array<int, 2>, 5> places{{{launch.null, 0},
                                                    {launch.null, 1},
                                                    {launch.null, 2},
                                                    {launch.socket, kKeeperSocketNumber},
                                                    {launch.owner, kKeeperOwnerNumber}}};
    std::array<int, 5> kept;
    for (std::size_t i = 0; i < places.size(); ++i) {
        if (::dup2(places[i][0], places[i][1]) < 0) launch.error = errno;
        kept[i] = places[i][1];
    }
    if (launch.error == 0) launch.error = close_all_but(kept);
    if (launch.error == 0 && (::setsid() < 0 || !reset_dispositions())) launch.error = errno;
    if (launch.error == 0 && !set_signal_mask(0)) launch.error = errno;
    if (launch.error == 0) {
        ::execve(launch.program, arguments, environment);
        launch.error = errno;
    }
    return 127;
}

/// Makes the keeper, which is no child of the owner: a program that waits for all its children must
/// not wait for it. No wait sees this process either, which is the keeper's parent for a moment.
int run_parent(void* argument) {
    auto& launch = *static_cast<Launch*>(argument);
    Descriptor pidfd;
    const int pid = vfork_on(*launch.stack, run_keeper, argument, SIGCHLD, pidfd);
    if (pid < 0) launch.error = -pid;
    return 0;
}

int wait_for_answer(int keeper, AnswerPoll poll, KeeperAnswer& ret_answer) {
    pollfd polled{keeper, POLLIN, 0};
    const int ready = poll(std::span(&polled, 1), Clock::now() + kPatience);
    if (ready <= 0) return ready < 0 ? errno : ETIMEDOUT;
    return receive_answer(keeper, ret_answer);
}

}  // namespace

int start_keeper(const std::string& program, int owner_pidfd, StartedKeeper& ret_keeper,
                 AnswerPoll poll) {
    Descriptor near, far;
    if (int error = make_message_pair(near, far)) return error;
    const Descriptor low_null(::open("/dev/null", O_RDWR | O_CLOEXEC));
    if (!low_null) return errno;
    far = Descriptor(::fcntl(far.get(), F_DUPFD_CLOEXEC, kKeeperOwnerNumber + 1));
    const Descriptor owner(::fcntl(owner_pidfd, F_DUPFD_CLOEXEC, kKeeperOwnerNumber + 1));
    const Descriptor null(::fcntl(low_null.get(), F_DUPFD_CLOEXEC, kKeeperOwnerNumber + 1));
    if (!far || !owner || !null) return errno;
    ChildStack parent_stack, keeper_stack;
    if (!parent_stack.top() || !keeper_stack.top()) return errno;
    Launch launch{program.c_str(), far.get(), owner.get(), null.get(), &keeper_stack};

    Descriptor pidfd;
    const std::uint64_t mask = signal_mask();
    if (!set_signal_mask(kAllSignals)) return errno;
    const int pid = vfork_on(parent_stack, run_parent, &launch, 0, pidfd);
    static_cast<void>(set_signal_mask(mask));  // as a moment ago
    if (pid < 0) return -pid;
    // Only a wait with __WALL sees it, so nobody else has reaped it.
    if (pidfd)
        static_cast<void>(reap(pidfd.get(), 0, nullptr, nullptr));
    else
        while (::waitpid(pid, nullptr, __WALL) < 0 && errno == EINTR) {
        }
    if (launch.error) return launch.error;
    far.reset();
    KeeperAnswer began{};
    if (int error = wait_for_answer(near.get(), poll, began)) return error;
    if (began.error_number) return began.error_number;
    ret_keeper = {std::move(near), {began.pid, began.mark}};
    return 0;
}

int give_to_keeper(int keeper, int pidfd, bool told_by_kernel, AnswerPoll poll) {
    const KeeperMessage message{told_by_kernel, 0};
    if (int error = send_message(keeper, bytes_of(message), {}, std::span(&pidfd, 1), MSG_DONTWAIT))
        return error == EAGAIN ? ETIMEDOUT : error;
    KeeperAnswer answer{};
    const int error = wait_for_answer(keeper, poll, answer);
    return error ? error : answer.error_number;
}

int send_for(int keeper, int pidfd, int owner_pidfd) {
    const KeeperMessage message{};
    const int descriptors[] = {pidfd, owner_pidfd};
    return send_message(keeper, bytes_of(message), {}, descriptors, MSG_DONTWAIT);
}

int receive_answer(int keeper, KeeperAnswer& ret_answer) {
    ReceivedMessage received;
    int error;
    do
        error = receive_message(keeper, std::as_writable_bytes(std::span(&ret_answer, 1)), {},
                                MSG_DONTWAIT, received);
    while (error == EINTR);
    if (error) return error == ECONNRESET ? EPIPE : error;
    return received.size == sizeof ret_answer ? 0 : EPIPE;
}

namespace {

/// Does what `give_to_keeper` does, and waits until fewer descriptors are in flight: the child is
/// told of for the last time.
int give_in_time(int keeper, int pidfd, bool told_by_kernel) {
    constexpr std::chrono::milliseconds kMoment{1};  // nobody tells when there are fewer
    const auto latest = Clock::now() + kPatience;
    while (true) {
        const int error = give_to_keeper(keeper, pidfd, told_by_kernel);
        if (error != ETOOMANYREFS || Clock::now() >= latest) return error;
        static_cast<void>(poll_through_signals({}, Clock::now() + kMoment));
    }
}

}  // namespace

int leave_to_keepers(const std::string& program, int owner_pidfd, std::span<const int> pidfds,
                     bool told_by_kernel) {
    const KeeperMessage last{0, 1};
    while (!pidfds.empty()) {
        StartedKeeper keeper;
        if (int error = start_keeper(program, owner_pidfd, keeper)) return error;
        std::size_t kept = 0;
        int error = 0;
        while (kept < pidfds.size() && !error) {
            error = give_in_time(keeper.socket.get(), pidfds[kept], told_by_kernel);
            if (!error) ++kept;
        }
        if (kept == 0) return error;
        // A keeper that is full keeps what it has; the next takes the rest.
        if (int said = send_message(keeper.socket.get(), bytes_of(last), {}, {}, MSG_DONTWAIT))
            return said;
        if (error && error != EMFILE) return error;
        pidfds = pidfds.subspan(kept);
    }
    return 0;
}

}  // namespace warmfork
