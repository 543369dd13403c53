#include "service/peer.hpp"

#include <sys/socket.h>

#include <algorithm>
#include <fstream>

#ifndef SO_PEERPIDFD
#define SO_PEERPIDFD 77  // asm-generic/socket.h since Linux 6.5
#endif

namespace warmfork::service {

int read_peer(int socket, Peer& ret_peer) {
    ucred credentials{};
    socklen_t size = sizeof credentials;
    if (::getsockopt(socket, SOL_SOCKET, SO_PEERCRED, &credentials, &size) < 0) return errno;
    Peer peer;
    peer.uid = credentials.uid;
    peer.pid = credentials.pid;
    int pidfd = -1;
    size = sizeof pidfd;
    if (::getsockopt(socket, SOL_SOCKET, SO_PEERPIDFD, &pidfd, &size) == 0)
        peer.pidfd = Descriptor(pidfd);
    else
        peer.pidfd = open_pidfd(peer.pid);  // an older kernel: its number may be another's by now
    if (!peer.pidfd) return errno;
    std::ifstream file("/proc/" + std::to_string(peer.pid) + "/comm");
    std::getline(file, peer.name);
    // The name goes to terminals, and whoever was refused has chosen it.
    std::replace_if(
        peer.name.begin(), peer.name.end(),
        [](unsigned char character) { return character < 0x20 || character >= 0x7f; }, '?');
    ret_peer = std::move(peer);
    return 0;
}

}  // namespace warmfork::service
