// A native template: a program with a large table that takes a while to make, and one added call.
//
//   example-native-template          opens itself as a template and spawns three children from it
//   example-native-template NUMBER   cold: makes the table, looks the number up
#include <cstdio>
#include <cstdlib>
#include <string>
#include <vector>

#include "warmfork.hpp"

namespace {

constexpr std::size_t kTableSize = 8u << 20;

std::vector<unsigned> make_table() {
    std::vector<unsigned> table(kTableSize);
    unsigned value = 1;
    for (unsigned& entry : table) entry = value = value * 1664525u + 1013904223u;
    return table;
}

int look_up(const std::vector<unsigned>& table, const char* number) {
    const std::size_t index = std::strtoul(number, nullptr, 10) % table.size();
    std::printf("process %d, child of %d: entry %zu is %u\n", getpid(), getppid(), index,
                table[index]);
    return 0;
}

int own_children(const std::string& program) {
    warmfork::Template table_template = warmfork::Template::native({program, "serve"});
    table_template.wait_ready();  // or let the first child be cold
    for (const char* number : {"1", "1000", "1000000"}) {
        warmfork::Process child = table_template.spawn({program, number});
        const int status = child.wait();
        std::printf("  %s spawn of %d ended with %d\n", child.backend_name(), child.pid(), status);
    }
    return 0;
}

}  // namespace

int main(int argc, char** argv) {
    std::setvbuf(stdout, nullptr, _IOLBF, 0);
    if (argc < 2) {
        try {
            return own_children("/proc/self/exe");
        } catch (const warmfork::Error& error) {
            std::fprintf(stderr, "%s\n", error.what());
            return 1;
        }
    }
    const std::vector<unsigned> table = make_table();
    if (std::string_view(argv[1]) != "serve") return look_up(table, argv[1]);

    warmfork_command command{};
    command.size = sizeof command;
    switch (warmfork_template_serve(&command, nullptr)) {
        case 1:
            std::exit(look_up(table, command.arguments[1]));
        case 0:
            return 0;
        default:
            return 1;
    }
}
