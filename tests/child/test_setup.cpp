#include <fcntl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <functional>

#include "child/setup.hpp"
#include "support/catch.hpp"

using namespace warmfork;

namespace {

/// Runs a check in a forked child: these functions change the process they run in.
bool holds_in_child(const std::function<bool()>& check) {
    const pid_t pid = ::fork();
    if (pid == 0) ::_exit(check() ? 0 : 1);
    int status;
    ::waitpid(pid, &status, 0);
    return WIFEXITED(status) && WEXITSTATUS(status) == 0;
}

ino_t inode_of(int number) {
    struct stat status {};
    return ::fstat(number, &status) == 0 ? status.st_ino : 0;
}

std::array<int, 16> room;  ///< for what is kept

RecordView record_of_nothing() {
    RecordView record{};
    record.header.lifetime = Lifetime::detached;
    return record;
}

int open_file(const char* path) {
    return ::open(path, O_RDONLY | O_CLOEXEC);
}

}  // namespace

TEST_CASE("Descriptors reach their numbers, however sources and targets overlap") {
    // Each list is a permutation or shift of numbers that are sources and targets at once.
    const std::vector<std::vector<std::int32_t>> target_lists{
        {10, 11, 12}, {11, 10, 12}, {11, 12, 10}, {12, 10, 11},
        {10, 12, 30}, {30, 31, 10}, {0, 1, 2}};
    for (const auto& targets : target_lists) {
        CHECK(holds_in_child([&] {
            std::array<int, 3> sources{10, 11, 12};
            std::array<ino_t, 3> inodes;
            const char* const paths[] = {"/dev/null", "/etc/passwd", "/proc/self/stat"};
            for (int i = 0; i < 3; ++i) {
                if (::dup2(open_file(paths[i]), sources[i]) < 0) return false;
                inodes[i] = inode_of(sources[i]);
            }
            RecordView record = record_of_nothing();
            record.descriptor_targets = targets;
            ChildDescriptors descriptors;
            descriptors.sources = sources;
            descriptors.kept = room;
            ChildFailure failure;
            if (!set_up_child(record, descriptors, failure)) return false;
            for (int i = 0; i < 3; ++i)
                if (inode_of(targets[i]) != inodes[i] || ::fcntl(targets[i], F_GETFD) != 0)
                    return false;
            for (int number = 0; number < 100; ++number) {
                const bool is_target =
                    std::find(targets.begin(), targets.end(), number) != targets.end();
                if (!is_target && ::fcntl(number, F_GETFD) >= 0) return false;
            }
            return true;
        }));
    }
}

TEST_CASE("The reply socket and the directory survive when targets want their numbers") {
    CHECK(holds_in_child([] {
        const std::int32_t targets[] = {20, 21};
        int sources[] = {open_file("/dev/null"), open_file("/dev/null")};
        ChildDescriptors descriptors;
        descriptors.sources = sources;
        descriptors.kept = room;
        descriptors.reply = ::dup2(open_file("/etc/passwd"), 20);
        descriptors.directory = ::dup2(open_file("/usr"), 21);
        const ino_t reply = inode_of(20);
        RecordView record = record_of_nothing();
        record.descriptor_targets = targets;
        ChildFailure failure;
        char directory[64];
        return set_up_child(record, descriptors, failure) && inode_of(descriptors.reply) == reply &&
               descriptors.reply != 20 && ::getcwd(directory, sizeof directory) &&
               std::string_view(directory) == "/usr";
    }));
}

TEST_CASE("A step that fails is named with its errno") {
    RecordView record = record_of_nothing();
    ChildDescriptors descriptors;
    descriptors.kept = room;
    Stage stage = Stage::none;
    int error_number = 0;
    std::int32_t targets[] = {5};
    int sources[] = {999};
    SECTION("a descriptor that is not open") {
        record.descriptor_targets = targets;
        descriptors.sources = sources;
        stage = Stage::descriptors;
        error_number = EBADF;
    }
    SECTION("a directory that does not exist") {
        record.directory = "/nowhere";
        stage = Stage::directory;
        error_number = ENOENT;
    }
    SECTION("a group of another session") {
        record.header.flags = kRecordProcessGroup;
        record.header.process_group = 0x3fffff;
        stage = Stage::session;
        error_number = EPERM;
    }
    CHECK(holds_in_child([&] {
        ChildFailure failure;
        return !set_up_child(record, descriptors, failure) && failure.stage == stage &&
               failure.error_number == error_number;
    }));
}

TEST_CASE("close_all_but keeps what it is told, in any order") {
    CHECK(holds_in_child([] {
        for (int number = 3; number < 40; ++number) ::dup2(0, number);
        int kept[] = {30, -1, 4, 7, 7};
        if (close_all_but(kept)) return false;
        for (int number = 0; number < 100; ++number)
            if ((::fcntl(number, F_GETFD) >= 0) != (number == 30 || number == 4 || number == 7))
                return false;
        return true;
    }));
}
