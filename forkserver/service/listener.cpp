#include "service/listener.hpp"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <systemd/sd-daemon.h>
#include <unistd.h>

#include <cstddef>
#include <cstring>
#include <filesystem>

#ifndef SO_PASSRIGHTS
#define SO_PASSRIGHTS 83  // asm-generic/socket.h since Linux 6.16
#endif

namespace warmfork::service {
namespace {

constexpr int kBacklog = 128;

/// Checks the parent: whoever may rename what is in it may put another directory in the place of
/// the service's.
int check_parent(const std::string& directory, std::string& ret_error) {
    struct stat status;
    if (::stat(directory.c_str(), &status) < 0) {
        ret_error = fmt::format("cannot look at the directory {}", directory);
        return errno;
    }
    const bool is_trusted = status.st_uid == ::geteuid() || status.st_uid == 0;
    if (is_trusted && (!(status.st_mode & 0022) || (status.st_mode & S_ISVTX))) return 0;
    ret_error = fmt::format(
        "others may rename what is in {}: make it this user's and writable for no other, or set "
        "XDG_RUNTIME_DIR",
        directory);
    return EPERM;
}

/// Checks the directory: where others could put their own files, they could be taken for the
/// service.
int check_directory(const std::string& directory, std::string& ret_error) {
    const mode_t before = ::umask(077);  // this user's might take away what is needed
    const bool is_there = ::mkdir(directory.c_str(), 0700) == 0 || errno == EEXIST;
    const int error = errno;
    ::umask(before);
    if (!is_there) {
        ret_error = fmt::format("cannot make the directory {}", directory);
        return error;
    }
    struct stat status;
    if (::lstat(directory.c_str(), &status) < 0) {
        ret_error = fmt::format("cannot look at the directory {}", directory);
        return errno;
    }
    if (!S_ISDIR(status.st_mode) || status.st_uid != ::geteuid() || (status.st_mode & 0077)) {
        ret_error = fmt::format(
            "{} is not a directory of this user's alone (mode 0700): remove it, or set "
            "XDG_RUNTIME_DIR",
            directory);
        return EPERM;
    }
    // A service whose user's umask took too much has left it.
    if ((status.st_mode & 0700) != 0700 && ::chmod(directory.c_str(), 0700) < 0) {
        ret_error = fmt::format("cannot make the directory {} accessible", directory);
        return errno;
    }
    return check_parent(std::filesystem::path(directory).parent_path(), ret_error);
}

int take_lock(const std::string& path, Descriptor& ret_lock, std::string& ret_error) {
    Descriptor lock(::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600));
    if (!lock) {
        ret_error = fmt::format("cannot open the lock {}", path);
        return errno;
    }
    if (::flock(lock.get(), LOCK_EX | LOCK_NB) < 0) {
        ret_error = fmt::format("another warmforkd holds {}", path);
        return errno == EWOULDBLOCK ? EADDRINUSE : errno;
    }
    ret_lock = std::move(lock);
    return 0;
}

int bind_socket(const std::string& path, Descriptor& ret_socket, std::string& ret_error) {
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    ret_error = fmt::format("cannot listen on {}", path);
    if (path.size() >= sizeof address.sun_path) return ENAMETOOLONG;
    std::memcpy(address.sun_path, path.c_str(), path.size() + 1);
    Descriptor socket(::socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
    if (!socket) return errno;
    // With the lock held nobody else listens there: what is left is a dead service's.
    ::unlink(path.c_str());
    const mode_t before = ::umask(0177);
    const int error =
        ::bind(socket.get(), reinterpret_cast<sockaddr*>(&address), sizeof address) < 0 ? errno : 0;
    ::umask(before);
    if (error) return error;
    if (::listen(socket.get(), kBacklog) < 0) return errno;
    ret_error.clear();
    ret_socket = std::move(socket);
    return 0;
}

}  // namespace

int listen(const std::string& path, Listener& ret_listener, std::string& ret_error) {
    Listener listener;
    const int passed = ::sd_listen_fds(1);
    if (passed > 0) {
        listener.socket = Descriptor(SD_LISTEN_FDS_START);
        if (passed == 1 &&
            ::sd_is_socket_unix(SD_LISTEN_FDS_START, SOCK_SEQPACKET, 1, nullptr, 0) > 0) {
            ::fcntl(SD_LISTEN_FDS_START, F_SETFL, O_NONBLOCK);
            ret_listener = std::move(listener);
            return 0;
        }
        ret_error = "what was passed on is not one listening socket of type SOCK_SEQPACKET";
        return EINVAL;
    }
    const std::string directory = std::filesystem::absolute(path).parent_path();
    listener.path = path;
    if (int error = check_directory(directory, ret_error)) return error;
    if (int error = take_lock(directory + "/lock", listener.lock, ret_error)) return error;
    if (int error = bind_socket(path, listener.socket, ret_error)) return error;
    ret_listener = std::move(listener);
    return 0;
}

std::string path_of(const Listener& listener) {
    sockaddr_un address{};
    socklen_t size = sizeof address;
    if (::getsockname(listener.socket.get(), reinterpret_cast<sockaddr*>(&address), &size) < 0 ||
        size <= offsetof(sockaddr_un, sun_path) || !address.sun_path[0])
        return {};
    // A path that fills its place has no NUL behind it.
    const std::string path(address.sun_path, ::strnlen(address.sun_path, sizeof address.sun_path));
    std::error_code error;
    return std::filesystem::absolute(path, error);
}

int let_descriptors_through(int socket, bool may_be_sent) {
    const int value = may_be_sent;
    if (::setsockopt(socket, SOL_SOCKET, SO_PASSRIGHTS, &value, sizeof value) == 0) return 0;
    return errno == ENOPROTOOPT ? 0 : errno;
}

Descriptor accept(const Listener& listener) {
    return Descriptor(
        ::accept4(listener.socket.get(), nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK));
}

}  // namespace warmfork::service
