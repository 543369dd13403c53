#include "child/title.hpp"

#include <fcntl.h>
#include <linux/prctl.h>
#include <sys/prctl.h>
#include <unistd.h>

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "channel/descriptor.hpp"

namespace warmfork {

ImageAddresses read_image_addresses(const char* stat_file) {
    ImageAddresses image{};
    Descriptor file(::open(stat_file, O_RDONLY | O_CLOEXEC));
    char text[2048];
    const ssize_t size = file ? ::read(file.get(), text, sizeof text - 1) : -1;
    if (size <= 0) return image;
    text[size] = '\0';
    const char* at = std::strrchr(text, ')');  // comm may hold spaces and brackets
    if (!at) return image;
    // The field behind ')' is number 3 of proc(5).
    unsigned long values[53] = {};
    at += 2;
    for (int field = 3; field <= 52 && *at; ++field) {
        char* end;
        values[field] = std::strtoul(at, &end, 10);
        at = std::strchr(at, ' ');
        if (!at) break;
        ++at;
    }
    image = {values[26], values[27], values[45], values[46], values[47], values[28], true};
    return image;
}

void show_title(const ImageAddresses& image, const char* executable,
                std::span<const char> arguments, std::span<const char> environment) {
    const char* name = executable ? executable : arguments.data();
    if (const char* slash = std::strrchr(name, '/')) name = slash + 1;
    ::prctl(PR_SET_NAME, name, 0, 0, 0);
    if (!image.known) return;

    prctl_mm_map map{};
    map.start_code = image.start_code;
    map.end_code = image.end_code;
    map.start_data = image.start_data;
    map.end_data = image.end_data;
    map.start_brk = image.start_brk;
    map.brk = reinterpret_cast<std::uintptr_t>(::sbrk(0));
    map.start_stack = image.start_stack;
    map.arg_start = reinterpret_cast<std::uintptr_t>(arguments.data());
    map.arg_end = map.arg_start + arguments.size();
    map.env_start = reinterpret_cast<std::uintptr_t>(environment.data());
    map.env_end = map.env_start + environment.size();
    map.exe_fd = ~0u;
    ::prctl(PR_SET_MM, PR_SET_MM_MAP, &map, sizeof map, 0);
}

}  // namespace warmfork
