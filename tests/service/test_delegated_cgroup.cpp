// A service to which its cgroup is delegated, as that of its unit is. See also
// test_left_running.py.
#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

#include <chrono>
#include <filesystem>
#include <fstream>
#include <thread>

#include "support/catch.hpp"
#include "support/service.hpp"

using namespace warmfork;
namespace fs = std::filesystem;

namespace {

constexpr const char* kOwnCgroup = "/proc/self/cgroup";

/// The directory of the cgroup of version 2 that this process is in; empty: there is none.
fs::path own_cgroup() {
    std::string mount, line;
    std::ifstream mounts("/proc/mounts");
    for (std::string device, place, type; mounts >> device >> place >> type;
         std::getline(mounts, line))
        if (type == "cgroup2") mount = place;
    std::ifstream file(kOwnCgroup);
    while (!mount.empty() && std::getline(file, line))
        if (line.starts_with("0::/")) return mount + line.substr(3);
    return {};
}

bool move_here(const fs::path& cgroup) {
    return bool(std::ofstream(cgroup / "cgroup.procs") << "0" << std::flush);
}

/// A cgroup that this process is in while it lives, and what it starts for good.
class Delegation {
  public:
    Delegation() : before_(own_cgroup()) {
        if (before_.empty()) return;
        const fs::path made = before_ / fmt::format("warmfork-test-{}", ::getpid());
        std::error_code error;
        if (!fs::create_directory(made, error)) return;
        made_ = made;
        has_moved_ = move_here(made_);
    }
    ~Delegation() {
        if (made_.empty()) return;
        leave();
        // What has been killed is in its cgroup for a moment more, and nobody tells when not.
        for (int i = 0; i < 1000 && !remove(made_); ++i)
            std::this_thread::sleep_for(std::chrono::milliseconds(10));
    }
    Delegation(const Delegation&) = delete;
    Delegation& operator=(const Delegation&) = delete;

    explicit operator bool() const { return has_moved_; }
    void leave() {
        if (std::exchange(has_moved_, false)) static_cast<void>(move_here(before_));
    }

  private:
    static bool remove(const fs::path& directory) {
        std::error_code error;
        for (const fs::directory_entry& entry : fs::directory_iterator(directory, error))
            if (entry.is_directory(error)) static_cast<void>(remove(entry.path()));
        return ::rmdir(directory.c_str()) == 0 || errno == ENOENT;
    }

    fs::path before_, made_;
    bool has_moved_ = false;
};

}  // namespace

TEST_CASE("A fixed command is in its client's cgroup from its first instruction on") {
    Delegation delegation;
    if (!delegation) return;  // no cgroup can be made here
    TestService::Settings settings;
    settings.options = {"--delegated-cgroup"};
    settings.templates["fixed"] =
        probe_definition(fmt::format("command = [\"{}\", \"cgroup\"]\n", WARMFORK_PROBE));
    TestService service(std::move(settings));
    delegation.leave();
    REQUIRE(service.is_ready());
    RawClient client(service.socket());
    for (std::uint64_t request = 1; request <= 20; ++request) {
        Pipe output;
        const int standard[] = {output.write_end.get(), output.write_end.get(),
                                output.write_end.get()};
        client.send(ServiceKind::run, request,
                    FieldWriter().text("fixed").text(client.sight()).bytes(), standard);
        ServiceMessage leased;
        REQUIRE(client.receive(ServiceKind::leased, leased) == 0);
        CHECK_THAT(output.read_all(), Catch::Contains("/client-"));
        ServiceMessage exited;
        REQUIRE(client.receive(ServiceKind::exited, exited) == 0);
    }
}
