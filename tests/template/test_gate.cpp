#include <fcntl.h>
#include <pthread.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>

#include <algorithm>
#include <future>
#include <thread>

#include "channel/descriptor.hpp"
#include "support/catch.hpp"
#include "support/processes.hpp"
#include "template/gate.hpp"

using namespace warmfork;

namespace {

std::vector<int> open_now() {
    std::vector<int> numbers;
    for (const DescriptorFact& fact : list_descriptors({})) numbers.push_back(fact.number);
    return numbers;
}

std::string obstacle_of(const AllowList& allowed, const std::vector<int>& own) {
    ForkCheck check(allowed);
    check.prepare(own);
    return check.run() ? std::string() : check.obstacle();
}

std::string descriptors_in_the_way(const AllowList& allowed, const std::vector<int>& own) {
    return obstacle_of(allowed, own);
}

/// None of the descriptors that are open counts.
std::string threads_in_the_way(const AllowList& allowed) {
    return obstacle_of(allowed, open_now());
}

}  // namespace

TEST_CASE("One thread passes") {
    CHECK(threads_in_the_way({}).empty());
}

TEST_CASE("A second thread is named, unless it is allowed") {
    std::promise<void> end;
    std::promise<void> begun;
    std::thread thread([&] {
        ::pthread_setname_np(::pthread_self(), "busybody");
        begun.set_value();
        end.get_future().wait();
    });
    begun.get_future().wait();
    const std::string obstacle = threads_in_the_way({});
    const std::string allowed = threads_in_the_way(AllowList({"thread:busybody"}));
    end.set_value();
    thread.join();
    CHECK(obstacle.find("busybody") != std::string::npos);
    CHECK(allowed.empty());
}

TEST_CASE("A thread that was joined a moment ago is not in the way") {
    for (int i = 0; i < 300; ++i) {
        std::thread([] {}).join();
        REQUIRE(threads_in_the_way({}).empty());
    }
}

TEST_CASE("Memory that is shared and writable is named, unless it is one's own or allowed") {
    const std::size_t size = 4096;
    CHECK(mappings_in_the_way({}, {}).empty());
    void* memory = ::mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    REQUIRE(memory != MAP_FAILED);
    CHECK(mappings_in_the_way({}, {}).find("/dev/zero") != std::string::npos);
    CHECK(mappings_in_the_way({}, {memory}).empty());
    CHECK(mappings_in_the_way(AllowList({"mapping:/dev/zero"}), {}).empty());
    ::mprotect(memory, size, PROT_READ);
    CHECK(mappings_in_the_way({}, {}).empty());
    ::munmap(memory, size);
}

TEST_CASE("What children would share with each other is named, other descriptors are not") {
    const std::vector<int> own = open_now();
    const Descriptor file(::open("/etc/passwd", O_RDONLY | O_CLOEXEC));
    const Descriptor null(::open("/dev/null", O_RDWR | O_CLOEXEC));
    const Descriptor directory(::open("/proc", O_RDONLY | O_CLOEXEC));
    CHECK(descriptors_in_the_way({}, own).empty());
    SECTION("socket") {
        int pair[2];
        REQUIRE(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) == 0);
        const Descriptor one(pair[0]), other(pair[1]);
        CHECK(descriptors_in_the_way({}, own).find("socket:") != std::string::npos);
        CHECK(descriptors_in_the_way(AllowList({"descriptor:socket:"}), own).empty());
    }
    SECTION("pipe") {
        int pair[2];
        REQUIRE(::pipe2(pair, O_CLOEXEC) == 0);
        const Descriptor one(pair[0]), other(pair[1]);
        CHECK(descriptors_in_the_way({}, own).find("pipe:") != std::string::npos);
    }
    SECTION("file that is written to") {
        const Descriptor written(::open("/tmp", O_RDWR | O_TMPFILE | O_CLOEXEC, 0600));
        if (!written) return;  // a file system without
        CHECK(descriptors_in_the_way({}, own).find("/tmp") != std::string::npos);
        CHECK(descriptors_in_the_way(AllowList({"descriptor:/tmp"}), own).empty());
    }
    SECTION("epoll instance") {
        const Descriptor instance(::epoll_create1(EPOLL_CLOEXEC));
        CHECK(descriptors_in_the_way({}, own).find("eventpoll") != std::string::npos);
    }
    SECTION("duplicate of a standard stream") {
        const Descriptor copy(::fcntl(1, F_DUPFD_CLOEXEC, 3));
        CHECK_FALSE(descriptors_in_the_way({}, own).empty());
    }
    SECTION("duplicate of a standard stream, and the same file opened by itself") {
        const Descriptor before(::fcntl(0, F_DUPFD_CLOEXEC, 3));
        ::dup2(file.get(), 0);
        const Descriptor again(::open("/etc/passwd", O_RDONLY | O_CLOEXEC));
        const Descriptor copy(::fcntl(0, F_DUPFD_CLOEXEC, 3));
        std::vector<int> others = own;
        others.insert(others.end(), {file.get(), before.get()});
        std::sort(others.begin(), others.end());
        const std::string obstacle = descriptors_in_the_way({}, others);
        others.push_back(copy.get());
        std::sort(others.begin(), others.end());
        const std::string obstacle_by_itself = descriptors_in_the_way({}, others);
        ::dup2(before.get(), 0);
        CHECK(obstacle_by_itself == "");
        CHECK(obstacle.find("/etc/passwd") != std::string::npos);
    }
    SECTION("socket that is not connected") {
        const Descriptor own_socket(::socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0));
        CHECK(descriptors_in_the_way({}, own).find("socket:") != std::string::npos);
    }
    SECTION("pidfd") {
        const Descriptor self = open_pidfd(::getpid());
        CHECK(descriptors_in_the_way({}, own).find("pidfd") != std::string::npos);
    }
    SECTION("what the kernel shows of the process") {
        const Descriptor state(::open("/proc/self/stat", O_RDONLY | O_CLOEXEC));
        CHECK(descriptors_in_the_way({}, own).find("/stat") != std::string::npos);
    }
    SECTION("device") {
        const Descriptor device(::open("/dev/ptmx", O_RDWR | O_CLOEXEC));
        if (!device) return;  // a container without
        CHECK(descriptors_in_the_way({}, own).find("/dev/") != std::string::npos);
    }
}

TEST_CASE("A descriptor that cannot be asked what it is is in the way") {
    CHECK(in_an_owner([]() -> std::string {
              const std::vector<int> own = open_now();
              int pair[2];
              if (::pipe2(pair, O_CLOEXEC) < 0) return "no pipe";
              for (long number : {SYS_fstat, SYS_newfstatat})
                  if (!refuse_system_call(number)) return {};  // no seccomp here
              const std::string obstacle = descriptors_in_the_way({}, own);
              return obstacle.find("pipe:") != std::string::npos ? "" : "passed: " + obstacle;
          }) == "");
    CHECK(in_an_owner([]() -> std::string {
              const std::vector<int> own = open_now();
              if (::epoll_create1(EPOLL_CLOEXEC) < 0) return "no epoll instance";
              if (!refuse_system_call(SYS_readlinkat)) return {};
              const std::string obstacle = descriptors_in_the_way({}, own);
              return obstacle.find("(unknown)") != std::string::npos ? "" : "passed: " + obstacle;
          }) == "");
}

TEST_CASE("A file that cannot be compared with a standard stream is in the way") {
    CHECK(in_an_owner([]() -> std::string {
              const std::vector<int> own = open_now();
              if (::fcntl(1, F_DUPFD_CLOEXEC, 3) < 0) return "no number";
              for (long number : {SYS_kcmp, SYS_fcntl})
                  if (!refuse_system_call(number)) return {};
              return descriptors_in_the_way({}, own).empty() ? "passed" : "";
          }) == "");
}

TEST_CASE("What a module has done is named, unless it or its package is allowed") {
    const std::vector<Finding> findings{{"identity:pack.part", "it keeps the time"},
                                        {"output:other", "it writes"}};
    const std::string all = findings_in_the_way({}, findings);
    CHECK(all.find("it keeps the time; it writes") != std::string::npos);
    CHECK(all.find("[\"identity:pack.part\", \"output:other\"]") != std::string::npos);
    CHECK(findings_in_the_way(AllowList({"identity:pack", "output:other"}), findings).empty());
    CHECK(findings_in_the_way(AllowList({"identity:pac", "output:othe"}), findings) == all);
    CHECK(findings_in_the_way({}, {}).empty());
}

TEST_CASE("A file that is made at import is allowed by its whole name only") {
    const std::vector<Finding> findings{{"directory:./left.txt", "left.txt was made"}};
    CHECK(findings_in_the_way(AllowList({"directory:./left.txt"}), findings).empty());
    for (const char* part : {"directory:", "directory:.", "directory:./", "directory:./left"})
        CHECK_FALSE(findings_in_the_way(AllowList({part}), findings).empty());
}
