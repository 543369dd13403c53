#include "template/huge_pages.hpp"

#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <cstdlib>
#include <fstream>
#include <sstream>
#include <string>
#include <vector>

namespace warmfork {
namespace {

// MADV_COLLAPSE of linux/mman.h since 6.1; glibc's header may be older.
constexpr int kCollapse = 25;

// A huge page takes memory for all of it. This much of it, in eighths, has to be there already.
constexpr std::size_t kLeastEighths = 7;

// A mapping of which less than this part is there is not looked through: there are some of many
// terabytes.
constexpr std::size_t kLeastPart = 64;

// Where memory is fragmented the kernel has to make room first. What is left then stays as it is.
constexpr std::chrono::seconds kPatience{2};
// How many huge pages one call takes: each has a price of its own, and none is broken off.
constexpr std::size_t kMostAtOnce = 32;

struct Range {
    std::uintptr_t begin = 0, end = 0;
};

/// Returns 0 where the kernel has none.
std::size_t huge_page_size() {
    std::ifstream file("/sys/kernel/mm/transparent_hugepage/hpage_pmd_size");
    std::size_t size = 0;
    file >> size;
    return size;
}

/// Returns the mapping whose account a line of /proc/self/smaps begins, if it is private, may be
/// written to, and comes from no file; otherwise nothing. See proc_pid_maps(5).
Range own_memory_of(const std::string& line) {
    std::istringstream fields(line);
    Range range;
    char dash = 0;
    std::string permissions, offset, device, name;
    unsigned long inode = 0;
    fields >> std::hex >> range.begin >> dash >> range.end >> permissions >> offset >> device >>
        std::dec >> inode;
    if (!fields || dash != '-' || permissions != "rw-p" || inode != 0) return {};
    fields >> name;
    return name.empty() || name == "[heap]" || name.starts_with("[anon:") ? range : Range();
}

std::vector<Range> own_memory() {
    std::vector<Range> ranges;
    std::ifstream smaps("/proc/self/smaps");
    Range range;
    for (std::string line; std::getline(smaps, line);) {
        if (line.find('-') < line.find(' ')) {
            range = own_memory_of(line);
        } else if (line.starts_with("Rss:")) {
            const std::size_t resident = 1024 * std::strtoull(line.c_str() + 4, nullptr, 10);
            if (resident > (range.end - range.begin) / kLeastPart) ranges.push_back(range);
        }
    }
    return ranges;
}

class HugePages {
  public:
    HugePages(std::size_t size, std::size_t small) : size_(size), is_present_(size / small) {}

    /// Collapses each run of huge pages of which enough is there.
    void collapse(Range range) {
        std::uintptr_t page = (range.begin + size_ - 1) / size_ * size_, begin = page;
        for (; page + size_ <= range.end; page += size_) {
            const bool is_enough = check_density(page);
            if (is_enough && page - begin < kMostAtOnce * size_) continue;
            collapse(begin, page);
            begin = is_enough ? page : page + size_;
        }
        collapse(begin, page);
    }

  private:
    /// Finds out, in `is_present_`, whether enough of a huge page is there.
    bool check_density(std::uintptr_t page) {
        if (::mincore(reinterpret_cast<void*>(page), size_, is_present_.data()) != 0) return false;
        const auto present = static_cast<std::size_t>(std::count_if(
            is_present_.begin(), is_present_.end(), [](unsigned char byte) { return byte & 1; }));
        return present >= is_present_.size() / 8 * kLeastEighths;
    }

    void collapse(std::uintptr_t begin, std::uintptr_t end) const {
        if (begin < end && std::chrono::steady_clock::now() < until_)
            static_cast<void>(::madvise(reinterpret_cast<void*>(begin), end - begin, kCollapse));
    }

    const std::size_t size_;
    const std::chrono::steady_clock::time_point until_ =
        std::chrono::steady_clock::now() + kPatience;
    std::vector<unsigned char> is_present_;
};

}  // namespace

void use_huge_pages() {
    const auto small = static_cast<std::size_t>(::sysconf(_SC_PAGESIZE));
    const std::size_t size = huge_page_size();
    if (size < 8 * small) return;
    HugePages pages(size, small);
    for (const Range& range : own_memory()) pages.collapse(range);
}

std::size_t huge_kilobytes() {
    std::ifstream file("/proc/self/smaps_rollup");
    std::string word;
    std::size_t kilobytes = 0;
    while (file >> word)
        if (word == "AnonHugePages:") file >> kilobytes;
    return kilobytes;
}

}  // namespace warmfork
