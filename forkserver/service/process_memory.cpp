#include "service/process_memory.hpp"

#include <fmt/format.h>

#include <fstream>
#include <string>

namespace warmfork::service {

ProcessMemory memory_of(const std::vector<pid_t>& processes) {
    ProcessMemory sum;
    for (pid_t pid : processes) {
        std::ifstream file(fmt::format("/proc/{}/smaps_rollup", pid));
        std::uint64_t size = 0;
        for (std::string word; file >> word;) {
            if (word == "Rss:" && file >> size) sum.resident_kb += size;
            if (word == "Pss:" && file >> size) sum.proportional_kb += size;
        }
    }
    return sum;
}

}  // namespace warmfork::service
