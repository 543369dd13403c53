// What a template does next, as its server decides it.
#pragma once

#include <atomic>
#include <cstdint>

#include "template/child.hpp"

namespace warmfork {

/// This is plain data: neither the template nor a child that goes on from it owns anything by it.
struct Decision {
    enum class Action {
        fork,   ///< a child with this `plan`
        sleep,  ///< until something happens, or is due
        end,    ///< all is said and done
    };
    Action action;
    ChildPlan plan{};                                ///< fork
    std::atomic<std::int32_t>* shown_pid = nullptr;  ///< fork: where the kernel writes its pid
};

}  // namespace warmfork
