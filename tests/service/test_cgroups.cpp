// Which cgroups are made, found, ended and removed. A plain directory stands for the delegated one:
// the kernel's part is seen by packaging/check-service and, with limits, packaging/check-kernel.
#include <sys/stat.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <sstream>

#include "service/cgroups.hpp"
#include "support/catch.hpp"

using namespace warmfork;
using namespace warmfork::service;

namespace {

namespace fs = std::filesystem;

constexpr pid_t kChild = 4194304;  // beyond any pid: it has no children
constexpr Cgroups::Owner kClient{7, 100}, kOther{17, 100}, kDetached{};

class DelegatedDirectory {
  public:
    DelegatedDirectory() {
        std::string name = fs::temp_directory_path() / "test-cgroups.XXXXXX";
        REQUIRE(::mkdtemp(name.data()));
        path_ = name;
    }
    ~DelegatedDirectory() { fs::remove_all(path_); }

    const fs::path& path() const { return path_; }
    /// With the files that the kernel would put there.
    fs::path make(const std::string& name, std::initializer_list<const char*> files) const {
        fs::create_directory(path_ / name);
        for (const char* file : files) std::ofstream(path_ / name / file);
        return path_ / name;
    }

  private:
    fs::path path_;
};

std::string content(const fs::path& file) {
    std::ostringstream text;
    text << std::ifstream(file).rdbuf();
    return text.str();
}

int place(const Cgroups& cgroups, const Cgroups::Owner& owner) {
    std::string missing;
    return cgroups.place(kChild, owner, "num", {}, missing);
}

}  // namespace

TEST_CASE("a child is moved to the cgroup of its client and template", "[cgroups]") {
    const DelegatedDirectory root;
    const fs::path cgroup = root.make("client-100-7-num", {"cgroup.procs"});
    CHECK(place(Cgroups(root.path()), kClient) == 0);
    CHECK(content(cgroup / "cgroup.procs") == std::to_string(kChild));
}

TEST_CASE("a child that outlives its client is moved to none of the client's", "[cgroups]") {
    const DelegatedDirectory root;
    const fs::path cgroup = root.make("detached-num", {"cgroup.procs"});
    CHECK(place(Cgroups(root.path()), kDetached) == 0);
    CHECK(content(cgroup / "cgroup.procs") == std::to_string(kChild));
}

TEST_CASE("a cgroup is made for the first child, with its limits", "[cgroups]") {
    const DelegatedDirectory root;
    CgroupLimits limits;
    limits.memory_max = 1 << 20;
    std::string missing;
    // There is no kernel that would fill it.
    CHECK(Cgroups(root.path()).place(kChild, kClient, "num", limits, missing) == ENOENT);
    CHECK(fs::is_directory(root.path() / "client-100-7-num"));
    CHECK(missing == "memory.max of 1048576: its controller is not delegated");
}

TEST_CASE("what is to live on is moved to where detached children live", "[cgroups]") {
    const DelegatedDirectory root;
    const fs::path first = root.make("client-100-7-num", {"cgroup.procs", "memory.max"});
    const fs::path other = root.make("client-100-17-num", {"cgroup.procs"});
    const fs::path detached = root.make("detached-num", {"cgroup.procs", "memory.max"});
    std::ofstream(first / "cgroup.procs") << kChild << '\n' << kChild + 1 << '\n';
    std::ofstream(other / "cgroup.procs") << kChild + 2 << '\n';
    std::ofstream(first / "memory.max") << "4096\n";
    Cgroups(root.path()).let_live(kClient, {kChild});
    CHECK(content(detached / "cgroup.procs") == std::to_string(kChild + 1));
    CHECK(content(detached / "memory.max").empty());  // it was there, with limits of its own
}

TEST_CASE("all cgroups of a client are killed and nobody else's", "[cgroups]") {
    const DelegatedDirectory root;
    const fs::path first = root.make("client-100-7-num", {"cgroup.kill"});
    const fs::path second = root.make("client-100-7-web", {"cgroup.kill"});
    const fs::path other = root.make("client-100-17-num", {"cgroup.kill"});
    const fs::path detached = root.make("detached-num", {"cgroup.kill"});
    Cgroups(root.path()).kill(kClient);
    CHECK(content(first / "cgroup.kill") == "1");
    CHECK(content(second / "cgroup.kill") == "1");
    CHECK(content(other / "cgroup.kill").empty());
    CHECK(content(detached / "cgroup.kill").empty());
}

TEST_CASE("cgroups of a client are removed with what a child made below", "[cgroups]") {
    const DelegatedDirectory root;
    root.make("client-100-7-num", {});
    fs::create_directories(root.path() / "client-100-7-num" / "mine" / "deeper");
    root.make("client-100-17-num", {});
    CHECK(Cgroups(root.path()).remove(kClient));
    CHECK_FALSE(fs::exists(root.path() / "client-100-7-num"));
    CHECK(fs::exists(root.path() / "client-100-17-num"));
}

TEST_CASE("a cgroup that is in use is not removed", "[cgroups]") {
    const DelegatedDirectory root;
    root.make("client-100-7-num", {"keeps it"});
    CHECK_FALSE(Cgroups(root.path()).remove(kClient));
}

TEST_CASE("the owners are read from the names, whatever a template is called", "[cgroups]") {
    const DelegatedDirectory root;
    for (const char* name : {"client-100-7-num", "client-100-7-web", "client-100-17-1-2",
                             "detached-num", "daemon", "client-", "client-x-1-num"})
        root.make(name, {});
    std::vector<Cgroups::Owner> owners = Cgroups(root.path()).owners();
    std::sort(owners.begin(), owners.end());
    CHECK(owners == std::vector<Cgroups::Owner>{kDetached, kClient, kOther});
}

TEST_CASE("memory and processor time are sums over a client's cgroups", "[cgroups]") {
    const DelegatedDirectory root;
    for (const char* name : {"client-100-7-num", "client-100-7-web"}) {
        const fs::path cgroup = root.make(name, {});
        std::ofstream(cgroup / "memory.current") << "4096\n";
        std::ofstream(cgroup / "cpu.stat") << "usage_usec 250\nuser_usec 200\n";
    }
    const Cgroups cgroups(root.path());
    CHECK(cgroups.memory(kClient) == 8192);
    CHECK(cgroups.cpu_time(kClient) == 500);
    CHECK(cgroups.memory(kOther) == 0);
}

TEST_CASE("without a delegated cgroup nothing is done", "[cgroups]") {
    const Cgroups none;
    CHECK_FALSE(none);
    CHECK(place(none, kClient) == 0);
    CHECK(none.remove(kClient));
    CHECK(none.owners().empty());
}
