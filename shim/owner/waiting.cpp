#include "owner/waiting.hpp"

#include <algorithm>
#include <cerrno>

#include "channel/deadline.hpp"

namespace warmfork {
namespace {

constexpr std::chrono::milliseconds kLookPeriod{100};

thread_local Interruption* current = nullptr;

}  // namespace

Interruption::Interruption(std::function<bool()> ask) : ask_(std::move(ask)), outer_(current) {
    current = this;
}

Interruption::~Interruption() {
    current = outer_;
}

bool may_be_interrupted() {
    return current != nullptr;
}

bool was_interrupted() {
    return current && current->has_happened_;
}

bool check_interruption() {
    if (!current) return false;
    Interruption& asked = *current;
    if (!asked.has_happened_) asked.has_happened_ = asked.ask_();
    return asked.has_happened_;
}

Deadline next_look(Deadline deadline) {
    if (!current) return deadline;
    const auto next = WaitClock::now() + kLookPeriod;
    return deadline ? std::min(*deadline, next) : next;
}

int poll_until(std::span<pollfd> polled, Deadline deadline) {
    while (true) {
        const int ready =
            ::poll(polled.data(), polled.size(), milliseconds_until(next_look(deadline)));
        if (ready > 0) return ready;
        if (ready < 0 && errno != EINTR) return 0;
        if (check_interruption() || (deadline && WaitClock::now() >= *deadline)) return 0;
    }
}

}  // namespace warmfork
