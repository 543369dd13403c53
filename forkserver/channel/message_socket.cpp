#include "channel/message_socket.hpp"

#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/uio.h>

#include <cstring>

namespace warmfork {
namespace {

constexpr std::size_t kControlSize =
    CMSG_SPACE(sizeof(int) * kMaximumMessageDescriptors) + CMSG_SPACE(sizeof(ucred));

}  // namespace

int make_message_pair(Descriptor& ret_one, Descriptor& ret_other) {
    int pair[2];
    if (::socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) < 0) return errno;
    ret_one = Descriptor(pair[0]);
    ret_other = Descriptor(pair[1]);
    return 0;
}

int send_message(int socket, std::span<const std::byte> head, std::span<const std::byte> body,
                 std::span<const int> descriptors, int flags) {
    if (descriptors.size() > kMaximumMessageDescriptors) return E2BIG;
    iovec pieces[2] = {{const_cast<std::byte*>(head.data()), head.size()},
                       {const_cast<std::byte*>(body.data()), body.size()}};
    alignas(cmsghdr) char control[kControlSize];
    msghdr message{};
    message.msg_iov = pieces;
    message.msg_iovlen = body.empty() ? 1 : 2;
    if (!descriptors.empty()) {
        message.msg_control = control;
        message.msg_controllen = CMSG_SPACE(descriptors.size_bytes());
        cmsghdr* rights = CMSG_FIRSTHDR(&message);
        rights->cmsg_level = SOL_SOCKET;
        rights->cmsg_type = SCM_RIGHTS;
        rights->cmsg_len = CMSG_LEN(descriptors.size_bytes());
        std::memcpy(CMSG_DATA(rights), descriptors.data(), descriptors.size_bytes());
    }
    while (::sendmsg(socket, &message, flags | MSG_NOSIGNAL) < 0)
        if (errno != EINTR) return errno;
    return 0;
}

int receive_message(int socket, std::span<std::byte> buffer, std::span<int> ret_descriptors,
                    int flags, ReceivedMessage& ret_message) {
    iovec piece{buffer.data(), buffer.size()};
    alignas(cmsghdr) char control[kControlSize];
    msghdr message{};
    message.msg_iov = &piece;
    message.msg_iovlen = 1;
    message.msg_control = control;
    message.msg_controllen = sizeof control;
    ssize_t size = ::recvmsg(socket, &message, flags | MSG_CMSG_CLOEXEC);
    // Where the other end has closed with something unread, the kernel says so once, ahead of what
    // it has sent.
    if (size < 0 && errno == ECONNRESET)
        size = ::recvmsg(socket, &message, flags | MSG_CMSG_CLOEXEC);
    if (size < 0) return errno;

    ReceivedMessage received;
    received.size = static_cast<std::size_t>(size);
    received.truncated = message.msg_flags & MSG_TRUNC;
    received.descriptors_truncated = message.msg_flags & MSG_CTRUNC;
    for (cmsghdr* part = CMSG_FIRSTHDR(&message); part; part = CMSG_NXTHDR(&message, part)) {
        if (part->cmsg_level != SOL_SOCKET) continue;
        if (part->cmsg_type == SCM_CREDENTIALS) {
            ucred credentials;
            std::memcpy(&credentials, CMSG_DATA(part), sizeof credentials);
            received.sender = credentials.pid;
        }
        if (part->cmsg_type != SCM_RIGHTS) continue;
        const std::size_t count = (part->cmsg_len - CMSG_LEN(0)) / sizeof(int);
        for (std::size_t i = 0; i < count; ++i) {
            int number;
            std::memcpy(&number, CMSG_DATA(part) + i * sizeof number, sizeof number);
            if (received.descriptor_count < ret_descriptors.size())
                ret_descriptors[received.descriptor_count++] = number;
            else
                ::close(number);
        }
    }
    ret_message = received;
    return 0;
}

std::uint64_t socket_cookie(int socket) {
    std::uint64_t cookie = 0;
    socklen_t size = sizeof cookie;
    if (::getsockopt(socket, SOL_SOCKET, SO_COOKIE, &cookie, &size) < 0) return 0;
    return cookie;
}

Descriptor make_sealed_memfd(std::span<const std::byte> bytes) {
    if (!may_make_file_of(bytes.size())) return Descriptor();
    Descriptor memfd(::memfd_create("warmfork-record", MFD_CLOEXEC | MFD_ALLOW_SEALING));
    if (!memfd) return memfd;
    for (std::size_t written = 0; written < bytes.size();) {
        const ssize_t some = ::write(memfd.get(), bytes.data() + written, bytes.size() - written);
        if (some < 0) return Descriptor();
        written += static_cast<std::size_t>(some);
    }
    if (::fcntl(memfd.get(), F_ADD_SEALS,
                F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE | F_SEAL_SEAL) < 0)
        return Descriptor();
    return memfd;
}

int read_sealed_memfd(int memfd, std::span<std::byte> buffer, std::size_t& ret_size) {
    const int seals = ::fcntl(memfd, F_GET_SEALS);
    if (seals < 0) return errno;
    if (!(seals & F_SEAL_WRITE) || !(seals & F_SEAL_SHRINK)) return EPERM;
    struct stat status;
    if (::fstat(memfd, &status) < 0) return errno;
    const auto size = static_cast<std::size_t>(status.st_size);
    if (size > buffer.size()) return EMSGSIZE;
    for (std::size_t got = 0; got < size;) {
        const ssize_t some =
            ::pread(memfd, buffer.data() + got, size - got, static_cast<off_t>(got));
        if (some < 0) return errno;
        if (some == 0) return EMSGSIZE;
        got += static_cast<std::size_t>(some);
    }
    ret_size = size;
    return 0;
}

}  // namespace warmfork
