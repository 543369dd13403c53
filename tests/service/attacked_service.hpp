// A service that is at rest before an attack, and has to be so after it.
#pragma once

#include <poll.h>
#include <sys/wait.h>

#include <cstddef>
#include <cstring>
#include <random>
#include <span>
#include <vector>

#include "support/catch.hpp"
#include "support/service.hpp"

namespace warmfork {

/// A service that is at rest, to be at rest again after an attack.
class AttackedService {
  public:
    AttackedService()
        : service([] {
              TestService::Settings settings;
              settings.templates["probe"] = probe_definition("spares = 2\nlimits.children = 40\n");
              return settings;
          }()),
          watcher_(service.socket()) {
        spawn();
        rest();
        descriptors_ = service.descriptors();
    }
    ~AttackedService() {
        CHECK(spawn() == 7);
        rest();
        for (int tries = 0; tries < 2000 && service.descriptors() > descriptors_; ++tries)
            ::poll(nullptr, 0, 5);
        CHECK(service.descriptors() <= descriptors_);
        for (int child : children_of(service.pid())) CHECK(is_running(child));
    }
    int spawn() {
        return as_client(service, [] {
            Template table = Template::connect("probe", WARMFORK_BACKEND_WARM);
            return WEXITSTATUS(table.spawn({WARMFORK_PROBE, "exit", "7"}).wait());
        });
    }

    TestService service;

  private:
    /// Until there are the template and its spares, all taken in, and nothing else.
    void rest() {
        std::vector<int> children;
        for (int tries = 0; tries < 2000; ++tries) {
            children = children_of(service.pid());
            if (children.size() == 3 && parked_spares(watcher_) == 2) return;
            ::poll(nullptr, 0, 5);
        }
        CHECK(children.size() == 3);
    }

    RawClient watcher_;
    std::size_t descriptors_ = 0;
};

inline std::vector<std::byte> random_bytes(std::size_t size, unsigned seed) {
    std::mt19937 source(seed);
    std::vector<std::byte> bytes(size);
    for (std::byte& byte : bytes) byte = static_cast<std::byte>(source());
    return bytes;
}

inline std::vector<std::byte> message_of(const ServiceHeader& header,
                                         std::span<const std::byte> body = {}) {
    std::vector<std::byte> bytes(sizeof header);
    std::memcpy(bytes.data(), &header, sizeof header);
    bytes.insert(bytes.end(), body.begin(), body.end());
    return bytes;
}

inline ServiceHeader header_of(ServiceKind kind, std::uint32_t size) {
    return {kServiceMagic, kServiceVersion, kind, 1, size, 0};
}

}  // namespace warmfork
