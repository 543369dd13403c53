#include "template/huge_pages.hpp"

#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <vector>

#include "support/catch.hpp"

namespace {

constexpr std::size_t kHuge = 2u << 20, kSmall = 4096, kSize = 4 * kHuge;

/// Memory that begins with a huge page, where these are of two megabytes.
class Memory {
  public:
    Memory()
        : mapped_(static_cast<char*>(::mmap(nullptr, kSize + kHuge, PROT_READ | PROT_WRITE,
                                            MAP_PRIVATE | MAP_ANONYMOUS, -1, 0))) {
        const auto address = reinterpret_cast<std::uintptr_t>(mapped_);
        begin = mapped_ + ((address + kHuge - 1) / kHuge * kHuge - address);
    }
    ~Memory() { ::munmap(mapped_, kSize + kHuge); }

    std::size_t present() const {
        std::vector<unsigned char> pages(kSize / kSmall);
        ::mincore(begin, kSize, pages.data());
        return static_cast<std::size_t>(std::count(pages.begin(), pages.end(), 1));
    }

    char* begin;

  private:
    char* mapped_;
};

bool has_huge_pages() {
    constexpr int kCollapse = 25;  // of linux/mman.h
    const Memory memory;
    std::memset(memory.begin, 1, kSize);
    return ::sysconf(_SC_PAGESIZE) == static_cast<long>(kSmall) &&
           ::madvise(memory.begin, kHuge, kCollapse) == 0;
}

}  // namespace

TEST_CASE("Memory that has been written to comes to lie on huge pages, and stays what it was") {
    if (!has_huge_pages()) return;
    const Memory memory;
    for (std::size_t i = 0; i < kSize; i += kSmall) memory.begin[i] = static_cast<char>(i / kSmall);
    const std::size_t before = warmfork::huge_kilobytes();
    warmfork::use_huge_pages();
    // Where memory is scarce, or in pieces, there may not be enough of them for all of it.
    CHECK(warmfork::huge_kilobytes() >= before + kHuge / 1024);
    bool is_same = true;
    for (std::size_t i = 0; i < kSize; i += kSmall)
        is_same =
            is_same && memory.begin[i] == static_cast<char>(i / kSmall) && memory.begin[i + 1] == 0;
    CHECK(is_same);
}

TEST_CASE("Memory of which little is used does not grow") {
    const Memory memory;
    std::memset(memory.begin, 1, kHuge / 2);
    memory.begin[kSize - 1] = 1;
    const std::size_t before = memory.present();
    warmfork::use_huge_pages();
    CHECK(memory.present() == before);
}
