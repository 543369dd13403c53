#include "python/text_pages.hpp"

#include <dlfcn.h>
#include <fcntl.h>
#include <link.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstdint>

#include "channel/descriptor.hpp"

namespace warmfork::python {
namespace {

struct Search {
    int memory;                             ///< /proc/self/mem
    std::array<std::uintptr_t, 2> symbols;  ///< one in each library that is meant
};

void write_as_it_is(int memory, std::uintptr_t address) {
    char byte;
    const auto place = static_cast<off_t>(address);
    // Failure is harmless: see share_text.
    if (::pread(memory, &byte, 1, place) == 1)
        static_cast<void>(::pwrite(memory, &byte, 1, place) == 1);
}

int share_segments(dl_phdr_info* library, std::size_t, void* argument) {
    const auto& search = *static_cast<const Search*>(argument);
    const auto for_each_segment = [library](auto visit) {
        for (int i = 0; i < library->dlpi_phnum; ++i)
            if (const ElfW(Phdr)& header = library->dlpi_phdr[i]; header.p_type == PT_LOAD)
                visit(header, library->dlpi_addr + header.p_vaddr);
    };
    bool is_meant = false;
    for_each_segment([&](const ElfW(Phdr) & header, std::uintptr_t begin) {
        is_meant |= std::any_of(search.symbols.begin(), search.symbols.end(), [&](auto symbol) {
            return symbol >= begin && symbol - begin < header.p_memsz;
        });
    });
    if (!is_meant) return 0;
    for_each_segment([&](const ElfW(Phdr) & header, std::uintptr_t begin) {
        if (!(header.p_flags & PF_W)) write_as_it_is(search.memory, begin);
    });
    return 0;
}

}  // namespace

void share_text() {
    const Descriptor memory(::open("/proc/self/mem", O_RDWR | O_CLOEXEC));
    if (!memory) return;
    const auto address_of = [](const char* symbol) {
        return reinterpret_cast<std::uintptr_t>(::dlsym(RTLD_DEFAULT, symbol));
    };
    Search search{memory.get(), {address_of("Py_FinalizeEx"), address_of("fputs")}};
    ::dl_iterate_phdr(share_segments, &search);
}

}  // namespace warmfork::python
