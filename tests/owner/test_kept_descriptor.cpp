// What the shim keeps open, in an application that closes descriptors that it did not open.
#include "owner/kept_descriptor.hpp"

#include <sys/eventfd.h>
#include <sys/inotify.h>
#include <sys/mman.h>

#include <functional>
#include <set>
#include <string>
#include <vector>

#include "support/catch.hpp"

using warmfork::Descriptor;
using warmfork::KeptDescriptor;

namespace {

using Open = std::function<Descriptor()>;

const std::vector<std::pair<const char*, Open>> kKinds{
    {"eventfd", [] { return Descriptor(::eventfd(0, EFD_CLOEXEC)); }},
    {"inotify", [] { return Descriptor(::inotify_init1(IN_CLOEXEC)); }},
    {"pidfd", [] { return warmfork::open_pidfd(::getpid()); }},
    {"memfd", [] { return Descriptor(::memfd_create("test", MFD_CLOEXEC)); }},
};

bool is_open(int number) {
    return ::fcntl(number, F_GETFD) >= 0;
}

/// Among the numbers that are kept, with room for twins.
std::set<int> open_numbers() {
    std::set<int> numbers;
    for (int number = warmfork::lowest_kept_number(); number < 1024; ++number)
        if (is_open(number)) numbers.insert(number);
    return numbers;
}

/// Keeps a file; `ret_numbers`: all that it took for it.
KeptDescriptor keep(const Open& open, std::set<int>& ret_numbers) {
    const std::set<int> before = open_numbers();
    KeptDescriptor kept(open());
    for (int number : open_numbers())
        if (!before.count(number)) ret_numbers.insert(number);
    return kept;
}

}  // namespace

TEST_CASE("A kept descriptor is at a high number, stays what it was, and leaves nothing open") {
    for (const auto& [kind, open] : kKinds) {
        CAPTURE(kind);
        const std::set<int> before = open_numbers();
        {
            KeptDescriptor kept(open());
            CHECK(kept.get() >= warmfork::lowest_kept_number());
            CHECK(kept.get() == kept.unchecked());
            const int number = kept.get();
            KeptDescriptor moved(std::move(kept));
            CHECK(moved.get() == number);
            CHECK(kept.get() == -1);
        }
        CHECK(open_numbers() == before);
    }
}

TEST_CASE("A kept descriptor whose number has become another file of its kind is let alone") {
    for (const auto& [kind, open] : kKinds) {
        // A pidfd of the same process is the same file where pidfds have inodes.
        if (kind == std::string("pidfd")) continue;
        CAPTURE(kind);
        std::set<int> numbers;
        {
            const KeptDescriptor kept = keep(open, numbers);
            REQUIRE_FALSE(numbers.empty());
            for (int number : numbers) ::dup3(open().get(), number, O_CLOEXEC);
            CHECK(kept.get() == -1);
            CHECK_FALSE(kept);
        }
        for (int number : numbers) {
            CHECK(is_open(number));
            ::close(number);
        }
    }
}

TEST_CASE("A kept descriptor that was closed reads as closed") {
    for (const auto& [kind, open] : kKinds) {
        CAPTURE(kind);
        std::set<int> numbers;
        const KeptDescriptor kept = keep(open, numbers);
        for (int number : numbers) ::close(number);
        CHECK(kept.get() == -1);
    }
}
