#include "template/atfork.hpp"

#include <dlfcn.h>
#include <elf.h>
#include <link.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

namespace warmfork {
namespace {

/// 0: it is mapped, or none. ENOMEM: it is not. Else errno: that cannot be told.
int look_for(void (*code)()) {
    if (!code) return 0;
    static const auto page_size = static_cast<std::uintptr_t>(::sysconf(_SC_PAGESIZE));
    const auto page = reinterpret_cast<std::uintptr_t>(code) & ~(page_size - 1);
    unsigned char resident;
    return ::mincore(reinterpret_cast<void*>(page), 1, &resident) == 0 ? 0 : errno;
}

/// What the dynamic section of a loaded object says of its relocations.
struct Relocations {
    const ElfW(Rela) * entries[2] = {};
    std::size_t counts[2] = {};
    const ElfW(Sym) * symbols = nullptr;
    const char* names = nullptr;
};

Relocations read_relocations(const ElfW(Dyn) * dynamic, ElfW(Addr) base) {
    Relocations found;
    std::size_t sizes[2] = {};
    for (; dynamic->d_tag != DT_NULL; ++dynamic) {
        // ld.so relocates these pointers in place, but not those of a read-only section.
        const ElfW(Addr) written = dynamic->d_un.d_ptr;
        const ElfW(Addr) value = written < base ? written + base : written;
        switch (dynamic->d_tag) {
            case DT_RELA:
                found.entries[0] = reinterpret_cast<const ElfW(Rela)*>(value);
                break;
            case DT_RELASZ:
                sizes[0] = dynamic->d_un.d_val;
                break;
            case DT_JMPREL:
                found.entries[1] = reinterpret_cast<const ElfW(Rela)*>(value);
                break;
            case DT_PLTRELSZ:
                sizes[1] = dynamic->d_un.d_val;
                break;
            case DT_SYMTAB:
                found.symbols = reinterpret_cast<const ElfW(Sym)*>(value);
                break;
            case DT_STRTAB:
                found.names = reinterpret_cast<const char*>(value);
                break;
            default:
                break;
        }
    }
    for (int table = 0; table < 2; ++table)
        found.counts[table] = found.entries[table] ? sizes[table] / sizeof(ElfW(Rela)) : 0;
    return found;
}

/// Is a slot of this object bound to `real`, for the symbol __register_atfork?
bool is_bound_to(const void* real, const dl_phdr_info& object) {
    const ElfW(Dyn)* dynamic = nullptr;
    for (int i = 0; i < object.dlpi_phnum; ++i)
        if (object.dlpi_phdr[i].p_type == PT_DYNAMIC)
            dynamic =
                reinterpret_cast<const ElfW(Dyn)*>(object.dlpi_addr + object.dlpi_phdr[i].p_vaddr);
    if (!dynamic) return false;
    const Relocations relocations = read_relocations(dynamic, object.dlpi_addr);
    if (!relocations.symbols || !relocations.names) return false;
    for (int table = 0; table < 2; ++table) {
        for (std::size_t i = 0; i < relocations.counts[table]; ++i) {
            const ElfW(Rela)& entry = relocations.entries[table][i];
            const auto symbol = ELF64_R_SYM(entry.r_info);
            if (symbol == 0) continue;
            const char* name = relocations.names + relocations.symbols[symbol].st_name;
            if (std::strcmp(name, "__register_atfork") != 0) continue;
            const auto slot = reinterpret_cast<void* const*>(object.dlpi_addr + entry.r_offset);
            if (*slot == real) return true;
        }
    }
    return false;
}

struct Scan {
    const PreloadInterface* preload;
    std::vector<std::string> found;
};

int scan_object(dl_phdr_info* object, std::size_t, void* data) {
    auto& scan = *static_cast<Scan*>(data);
    if (is_bound_to(scan.preload->real_register_atfork, *object))
        scan.found.emplace_back(*object->dlpi_name ? object->dlpi_name : "the program itself");
    return 0;
}

}  // namespace

const PreloadInterface* find_preload() {
    const auto entry = reinterpret_cast<PreloadEntry>(::dlsym(RTLD_DEFAULT, kPreloadSymbol));
    const PreloadInterface* preload = entry ? entry() : nullptr;
    return preload && preload->version == kPreloadVersion ? preload : nullptr;
}

int AtforkRun::take(const PreloadInterface& preload) {
    std::size_t count;
    const AtforkHandlers* all = preload.handlers(&count);
    handlers_.clear();
    handlers_.reserve(count);
    for (std::size_t i = 0; i < count; ++i) {
        int error = 0;
        for (const auto handler : {all[i].prepare, all[i].parent, all[i].child})
            if (error == 0) error = look_for(handler);
        if (error == 0)
            handlers_.push_back(all[i]);
        else if (error != ENOMEM)
            return error;
    }
    return 0;
}

void AtforkRun::prepare() const {
    for (auto handlers = handlers_.rbegin(); handlers != handlers_.rend(); ++handlers)
        if (handlers->prepare) handlers->prepare();
}

void AtforkRun::parent() const {
    for (const AtforkHandlers& handlers : handlers_)
        if (handlers.parent) handlers.parent();
}

void AtforkRun::child() const {
    for (const AtforkHandlers& handlers : handlers_)
        if (handlers.child) handlers.child();
}

std::vector<std::string> libraries_past_the_recorder(const PreloadInterface& preload) {
    Scan scan{&preload, {}};
    ::dl_iterate_phdr(scan_object, &scan);
    return std::move(scan.found);
}

}  // namespace warmfork
