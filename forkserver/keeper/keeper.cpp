#include "keeper/keeper.hpp"

#include <fmt/format.h>
#include <spawn.h>
#include <sys/socket.h>
#include <sys/wait.h>

#include "channel/message_socket.hpp"

namespace warmfork {
namespace {

constexpr int kSocketNumber = 3;
constexpr int kOwnerNumber = 4;

}  // namespace

int start_keeper(const std::string& program, int owner_pidfd, Descriptor& ret_keeper) {
    Descriptor near, far;
    if (int error = make_message_pair(near, far)) return error;
    // Above the two numbers that they are placed on, so that neither overwrites the other.
    far = moved_up(std::move(far), kOwnerNumber + 1);
    Descriptor owner(::fcntl(owner_pidfd, F_DUPFD_CLOEXEC, kOwnerNumber + 1));
    if (!owner) return errno;

    posix_spawn_file_actions_t actions;
    posix_spawnattr_t attributes;
    ::posix_spawn_file_actions_init(&actions);
    ::posix_spawnattr_init(&attributes);
    for (int standard : {0, 1, 2})
        ::posix_spawn_file_actions_addopen(&actions, standard, "/dev/null", O_RDWR, 0);
    ::posix_spawn_file_actions_adddup2(&actions, far.get(), kSocketNumber);
    ::posix_spawn_file_actions_adddup2(&actions, owner.get(), kOwnerNumber);
    ::posix_spawn_file_actions_addclosefrom_np(&actions, kOwnerNumber + 1);
    sigset_t none;
    ::sigemptyset(&none);
    ::posix_spawnattr_setsigmask(&attributes, &none);
    ::posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSIGMASK);

    const std::string numbers[] = {fmt::format("{}", kSocketNumber),
                                   fmt::format("{}", kOwnerNumber)};
    const char* const arguments[] = {"warmfork-keeper", numbers[0].c_str(), numbers[1].c_str(),
                                     nullptr};
    const char* const environment[] = {nullptr};
    pid_t pid;
    const int error =
        ::posix_spawn(&pid, program.c_str(), &actions, &attributes,
                      const_cast<char* const*>(arguments), const_cast<char* const*>(environment));
    ::posix_spawn_file_actions_destroy(&actions);
    ::posix_spawnattr_destroy(&attributes);
    if (error) return error;
    int status;
    while (::waitpid(pid, &status, 0) < 0 && errno == EINTR) {
    }
    ret_keeper = std::move(near);
    return 0;
}

int keep(int keeper, int pidfd, bool told_by_kernel) {
    const KeeperMessage message{told_by_kernel, 0};
    return send_message(keeper, bytes_of(message), {}, std::span(&pidfd, 1), 0);
}

int keep_for(int keeper, int pidfd, int owner_pidfd) {
    const KeeperMessage message{};
    const int descriptors[] = {pidfd, owner_pidfd};
    return send_message(keeper, bytes_of(message), {}, descriptors, MSG_DONTWAIT);
}

void leave_to_itself(Descriptor keeper) {
    const KeeperMessage message{0, 1};
    [[maybe_unused]] const int error = send_message(keeper.get(), bytes_of(message), {}, {}, 0);
}

}  // namespace warmfork
