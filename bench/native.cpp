// The least that a warm child costs: that of a native template which has next to nothing in its
// memory, spawned and reaped one after the other.
//
//   native COUNT    prints how many seconds that took
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <string_view>

#include "warmfork.hpp"

namespace {

int serve() {
    warmfork_command command{};
    command.size = sizeof command;
    return warmfork_template_serve(&command, nullptr) < 0;  // children leave as well
}

int measure(long count) {
    warmfork::Template own = warmfork::Template::native({"/proc/self/exe", "serve"});
    own.wait_ready();
    const auto began = std::chrono::steady_clock::now();
    for (long i = 0; i < count; ++i) {
        warmfork::Process child = own.spawn({"/proc/self/exe", "child"});
        if (const int status = child.wait()) {
            std::fprintf(stderr, "a child ended with status %d\n", status);
            return 1;
        }
    }
    const std::chrono::duration<double> took = std::chrono::steady_clock::now() - began;
    std::printf("%.9f\n", took.count());
    return 0;
}

}  // namespace

int main(int argc, char** argv) {
    if (argc != 2) return 2;
    if (std::string_view(argv[1]) == "serve") return serve();
    try {
        return measure(std::atol(argv[1]));
    } catch (const warmfork::Error& error) {
        std::fprintf(stderr, "%s\n", error.what());
        return 1;
    }
}
