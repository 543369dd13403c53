#include "python/image_pages.hpp"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <bit>
#include <cerrno>

#include "channel/descriptor.hpp"
#include "template/atfork.hpp"

namespace warmfork::python {
namespace {

constexpr std::size_t kLargestPage = 65536;

// This stands in place of an object, for a page that may have nothing but a head.
constexpr std::uint32_t kNone = UINT32_MAX;

// These are bits of an entry of /proc/self/pagemap: see pagemap.rst of the kernel's documentation.
constexpr std::uint64_t kIsPresent = 1ull << 63, kIsSwapped = 1ull << 62, kIsExclusive = 1ull << 56;

// To read on over pages that are not asked about costs less than another system call.
constexpr std::size_t kMostEntries = 512, kLargestGap = 64;

alignas(kLargestPage) volatile char page_of_child[kLargestPage];

std::uintptr_t page_size() {
    static const auto size = static_cast<std::uintptr_t>(::sysconf(_SC_PAGESIZE));
    return size;
}

bool is_shared(std::uint64_t entry) {
    return (entry & kIsPresent) && !(entry & kIsExclusive);
}

/// Does this process share nothing that it has written to?
bool is_alone(int pagemap) {
    std::uint64_t entry;
    const auto own = reinterpret_cast<std::uintptr_t>(&page_of_child[0]) / page_size();
    return ::pread(pagemap, &entry, sizeof entry, static_cast<off_t>(own * sizeof entry)) ==
               sizeof entry &&
           (entry & kIsPresent) && !is_shared(entry);
}

/// Does the kernel merge pages that are alike? They are one then, also where they have been written
/// to.
bool has_merged_pages() {
    const Descriptor file(::open("/proc/self/ksm_merging_pages", O_RDONLY | O_CLOEXEC));
    if (!file) return errno != ENOENT;  // a kernel that cannot merge any
    std::array<char, 2> digits;
    return ::read(file.get(), digits.data(), digits.size()) <= 0 || digits[0] != '0';
}

}  // namespace

void ImagePages::clear() {
    for (auto* list : {&unknown_, &begins_, &objects_, &head_pages_}) list->clear();
    added_.clear();
    heads_.clear();
    pages_.clear();
}

void ImagePages::add(const void* head, const std::vector<Extent>* parts) {
    const auto object = static_cast<Index>(heads_.size());
    heads_.push_back(reinterpret_cast<std::uintptr_t>(head) / page_size());
    added_.emplace_back(heads_.back(), kNone);
    if (!parts) unknown_.push_back(object);
    for (const Extent& part : parts ? *parts : std::vector<Extent>()) {
        const std::uintptr_t last = (part.address + part.size - 1) / page_size();
        for (std::uintptr_t page = part.address / page_size(); page <= last; ++page)
            added_.emplace_back(page, object);
    }
}

void ImagePages::close() {
    std::sort(added_.begin(), added_.end());
    for (const auto& [page, object] : added_) {
        if (pages_.empty() || pages_.back() != page) {
            pages_.push_back(page);
            begins_.push_back(static_cast<Index>(objects_.size()));
        }
        if (object != kNone) objects_.push_back(object);
    }
    begins_.push_back(static_cast<Index>(objects_.size()));
    for (std::uintptr_t head : heads_)
        head_pages_.push_back(static_cast<Index>(
            std::lower_bound(pages_.begin(), pages_.end(), head) - pages_.begin()));
    added_ = {};
    heads_ = {};
    states_.assign(pages_.size(), State::written);
    const PreloadInterface* preload = find_preload();
    has_filter_ = preload ? preload->has_filter : nullptr;
    chosen_.assign(head_pages_.size() / 64 + 1, 0);
}

void ImagePages::begin_child() {
    page_of_child[0] = 1;
}

bool ImagePages::choose() {
    if (!has_filter_ || *has_filter_) return false;
    const Descriptor pagemap(::open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC));
    if (!pagemap || !is_alone(pagemap.get()) || has_merged_pages()) return false;
    for (std::size_t first = 0; first < pages_.size();) {
        std::size_t end = first + 1;
        while (end < pages_.size() && pages_[end] - pages_[end - 1] <= kLargestGap &&
               pages_[end] - pages_[first] < kMostEntries)
            ++end;
        if (!read(pagemap.get(), first, end - first)) return false;
        first = end;
    }
    if (!is_alone(pagemap.get())) return false;  // C code has forked meanwhile
    std::fill(chosen_.begin(), chosen_.end(), 0);
    for (Index object : unknown_) mark(object);
    for (std::size_t page = 0; page < pages_.size(); ++page)
        if (states_[page] != State::as_it_was)
            for (Index i = begins_[page]; i < begins_[page + 1]; ++i) mark(objects_[i]);
    return true;
}

ImagePages::State ImagePages::state_of(std::uint64_t entry) {
    if (is_shared(entry)) return State::as_it_was;
    return entry & (kIsPresent | kIsSwapped) ? State::written : State::gone;
}

/// Reads the entries of pages that lie close to each other.
bool ImagePages::read(int pagemap, std::size_t first, std::size_t count) {
    std::array<std::uint64_t, kMostEntries> entries;
    const std::uintptr_t begin = pages_[first];
    const std::size_t size = (pages_[first + count - 1] - begin + 1) * sizeof entries[0];
    if (::pread(pagemap, entries.data(), size, static_cast<off_t>(begin * sizeof entries[0])) !=
        static_cast<ssize_t>(size))
        return false;
    for (std::size_t i = first; i < first + count; ++i)
        states_[i] = state_of(entries[pages_[i] - begin]);
    return true;
}

std::size_t ImagePages::next_chosen(std::size_t index) const {
    if (index >= size()) return size();
    std::uint64_t left = chosen_[index / 64] >> index % 64;
    if (left) return index + static_cast<std::size_t>(std::countr_zero(left));
    for (std::size_t word = index / 64 + 1; word < chosen_.size(); ++word)
        if (chosen_[word])
            return word * 64 + static_cast<std::size_t>(std::countr_zero(chosen_[word]));
    return size();
}

}  // namespace warmfork::python
