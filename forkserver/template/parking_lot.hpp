// Who has a spare: one word each, shared by the template and its parked children, so that a spare
// is never ended in the moment in which the owner takes it.
#pragma once

#include <sys/mman.h>

#include <atomic>
#include <cstdint>
#include <vector>

#include "protocol/limits.hpp"

namespace warmfork {

/// A spare's word. Either side moves it away from `parked` by compare-and-exchange, so one of them
/// wins.
using ParkingPlace = std::atomic<std::uint32_t>;
inline constexpr std::uint32_t kParked = 0;
inline constexpr std::uint32_t kTaken = 1;    ///< by the spare, when its record has arrived
inline constexpr std::uint32_t kGivenUp = 2;  ///< by the template, which ends it then

/// True if the word was `parked` and is `to` now.
inline bool leave_parking_place(ParkingPlace& place, std::uint32_t to) {
    std::uint32_t expected = kParked;
    return place.compare_exchange_strong(expected, to);
}

class ParkingLot {
  public:
    ParkingLot() {
        void* memory =
            ::mmap(nullptr, kSize, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
        places_ = memory == MAP_FAILED ? nullptr : static_cast<ParkingPlace*>(memory);
        for (std::uint32_t i = kMaximumSpares; places_ && i > 0; --i) free_.push_back(i - 1);
    }
    ParkingLot(const ParkingLot&) = delete;
    ParkingLot& operator=(const ParkingLot&) = delete;
    ~ParkingLot() { unmap(); }

    /// A place for one spare, `parked`; null: none is free.
    ParkingPlace* claim() {
        if (free_.empty()) return nullptr;
        ParkingPlace* place = &places_[free_.back()];
        free_.pop_back();
        place->store(kParked);
        return place;
    }
    /// When the spare has ended, or has become a child.
    void release(ParkingPlace* place) {
        if (place) free_.push_back(static_cast<std::uint32_t>(place - places_));
    }
    const void* address() const { return places_; }
    /// In a child, which has no business here any more. No allocation.
    void unmap() {
        if (places_) ::munmap(static_cast<void*>(places_), kSize);
        places_ = nullptr;
    }

  private:
    static constexpr std::size_t kSize = kMaximumSpares * sizeof(ParkingPlace);
    ParkingPlace* places_;
    std::vector<std::uint32_t> free_;
};

}  // namespace warmfork
