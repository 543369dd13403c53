#include <sys/mman.h>

#include "channel/segment.hpp"
#include "support/catch.hpp"

using namespace warmfork;

namespace {

Descriptor memfd_of(std::size_t size, int seals) {
    Descriptor memfd(::memfd_create("test", MFD_CLOEXEC | MFD_ALLOW_SEALING));
    REQUIRE(::ftruncate(memfd.get(), static_cast<off_t>(size)) == 0);
    REQUIRE(::fcntl(memfd.get(), F_ADD_SEALS, seals) == 0);
    return memfd;
}

constexpr int kAllSeals = F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL;

}  // namespace

TEST_CASE("What one side writes the other side reads") {
    Segment mine, theirs;
    Descriptor memfd;
    REQUIRE(Segment::create(mine, memfd) == 0);
    REQUIRE(Segment::attach(memfd, theirs) == 0);
    mine.layout().command_bytes[5] = std::byte{42};
    CHECK(theirs.layout().command_bytes[5] == std::byte{42});
}

TEST_CASE("A segment cannot be cut short behind its reader's back") {
    Segment segment;
    Descriptor memfd;
    REQUIRE(Segment::create(segment, memfd) == 0);
    CHECK(::ftruncate(memfd.get(), 0) < 0);
    CHECK(errno == EPERM);
}

TEST_CASE("Memory that is not a segment of this version is refused") {
    Segment segment;
    SECTION("not sealed") {
        CHECK(Segment::attach(memfd_of(sizeof(SegmentLayout), 0), segment) == EPROTO);
    }
    SECTION("too small") {
        CHECK(Segment::attach(memfd_of(4096, kAllSeals), segment) == EPROTO);
    }
    SECTION("without the magic number") {
        CHECK(Segment::attach(memfd_of(sizeof(SegmentLayout), kAllSeals), segment) == EPROTO);
    }
    SECTION("of another version") {
        Segment other;
        Descriptor memfd;
        REQUIRE(Segment::create(other, memfd) == 0);
        other.layout().version = kProtocolVersion + 1;
        CHECK(Segment::attach(memfd, segment) == EPROTONOSUPPORT);
    }
    SECTION("no memfd at all") {
        CHECK(Segment::attach(Descriptor(::open("/dev/null", O_RDWR | O_CLOEXEC)), segment) ==
              EPROTO);
    }
}
