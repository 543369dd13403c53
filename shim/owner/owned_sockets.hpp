// The sockets whose end of file tells a template or a spare that its owner is gone, and the pipes
// whose end of file tells the owner that a child has gone. A forked copy of the owner must not keep
// them open: a handler of pthread_atfork closes them there.
#pragma once

#include <cstdint>
#include <span>

#include "channel/descriptor.hpp"
#include "channel/message_socket.hpp"

namespace warmfork {

/// A socket that is closed in every forked copy of this process. It lies at a high number, and the
/// kernel's cookie tells whether the number still means this socket: where an application closes
/// descriptors that it did not open, another file may get the number.
class OwnedSocket {
  public:
    OwnedSocket() = default;
    OwnedSocket(OwnedSocket&&) noexcept;
    OwnedSocket& operator=(OwnedSocket&&) noexcept;
    ~OwnedSocket();

    /// Takes a socket over. Between its birth and this call a fork may copy it: where that matters
    /// use `receive_owned`.
    explicit OwnedSocket(Descriptor socket);

    int get() const { return number_; }
    explicit operator bool() const { return number_ >= 0; }
    bool is_intact() const { return number_ >= 0 && socket_cookie(number_) == cookie_; }
    void reset();

  private:
    friend int make_owned_pair(OwnedSocket&, OwnedSocket&);
    friend int receive_owned(int, std::span<std::byte>, OwnedSocket&, ReceivedMessage&);
    void adopt(Descriptor socket);

    int number_ = -1;
    std::uint64_t cookie_ = 0;
};

/// The pipe on which one child says that it has started or failed. It lives within one call.
class ReplyPipe {
  public:
    ReplyPipe() = default;
    ReplyPipe(const ReplyPipe&) = delete;
    ReplyPipe& operator=(const ReplyPipe&) = delete;
    ~ReplyPipe();

    /// Makes the pipe. Must be called once. Returns 0 or errno.
    [[nodiscard]] int open();
    int read_end() const { return ends_[0]; }
    int write_end() const { return ends_[1]; }
    /// Must be called when the child has its own: from then on the end of file is the child's.
    void close_write_end();

  private:
    friend void close_replies_in_forked_copy();
    int ends_[2] = {-1, -1};
};

/// Makes a connected pair of which no forked copy of this process keeps an end. Returns 0 or errno.
[[nodiscard]] int make_owned_pair(OwnedSocket& ret_one, OwnedSocket& ret_other);

/// Does what receive_message does with MSG_DONTWAIT, for a message that carries at most one socket.
/// No fork of this process gets between the arrival of the socket and its registration. A socket
/// for which no high number is free is closed, and `ret_socket` left alone.
[[nodiscard]] int receive_owned(int socket, std::span<std::byte> buffer, OwnedSocket& ret_socket,
                                ReceivedMessage& ret_message);

}  // namespace warmfork
