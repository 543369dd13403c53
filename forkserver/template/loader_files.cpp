#include "template/loader_files.hpp"

#include <link.h>
#include <sys/auxv.h>

#include <array>
#include <cstdlib>
#include <filesystem>
#include <string_view>
#include <vector>

namespace warmfork {
namespace {

namespace fs = std::filesystem;

constexpr std::array kFiles{"/etc/ld.so.cache", "/etc/ld.so.preload",
                            "/usr/lib/locale/locale-archive", "/usr/share/locale/locale.alias"};

constexpr std::string_view kZones = "/usr/share/zoneinfo";

/// What the loader looks into before the directory itself, for processors that have more.
constexpr std::array kVariants{"glibc-hwcaps/x86-64-v4", "glibc-hwcaps/x86-64-v3",
                               "glibc-hwcaps/x86-64-v2"};

/// What is known of one loaded object.
struct Loaded {
    fs::path path;
    std::vector<std::string> needed;
    std::string rpath, runpath;
};

/// Adds a file as a source, or as what was looked for.
void add_file(ImageFacts& facts, const std::string& path) {
    (stamp_of(path) ? facts.sources : facts.absent).insert(path);
}

/// Returns the file that the time zone comes from: what TZ names, if it is a file at all.
std::string zone_file() {
    const char* variable = std::getenv("TZ");
    if (!variable) return "/etc/localtime";
    std::string_view zone = variable;
    if (zone.starts_with(':')) zone.remove_prefix(1);
    if (zone.empty() || zone.starts_with('/')) return std::string(zone);
    const char* zones = std::getenv("TZDIR");
    return std::string(zones && *zones ? std::string_view(zones) : kZones) + "/" +
           std::string(zone);
}

/// Returns the strings that the dynamic section of an object points to. The loader puts its own
/// address there, except where the section is read-only.
const char* strings_of(const dl_phdr_info& object, const ElfW(Dyn) * section) {
    for (; section->d_tag != DT_NULL; ++section) {
        if (section->d_tag != DT_STRTAB) continue;
        const ElfW(Addr) at = section->d_un.d_ptr;
        return reinterpret_cast<const char*>(at < object.dlpi_addr ? object.dlpi_addr + at : at);
    }
    return nullptr;
}

int add_loaded(dl_phdr_info* object, std::size_t, void* list) {
    Loaded loaded;
    std::error_code error;
    loaded.path = object->dlpi_name && object->dlpi_name[0]
                      ? fs::path(object->dlpi_name)
                      : fs::read_symlink("/proc/self/exe", error);
    for (int i = 0; i < object->dlpi_phnum; ++i) {
        const auto& header = object->dlpi_phdr[i];
        if (header.p_type != PT_DYNAMIC) continue;
        const auto* section =
            reinterpret_cast<const ElfW(Dyn)*>(object->dlpi_addr + header.p_vaddr);
        const char* strings = strings_of(*object, section);
        for (; strings && section->d_tag != DT_NULL; ++section) {
            const char* text = strings + section->d_un.d_val;
            if (section->d_tag == DT_NEEDED) loaded.needed.emplace_back(text);
            if (section->d_tag == DT_RPATH) loaded.rpath = text;
            if (section->d_tag == DT_RUNPATH) loaded.runpath = text;
        }
    }
    if (loaded.path.is_absolute())
        static_cast<std::vector<Loaded>*>(list)->push_back(std::move(loaded));
    return 0;
}

void replace_all(std::string& text, std::string_view name, const std::string& value) {
    for (const std::string& token : {"${" + std::string(name) + "}", "$" + std::string(name)})
        for (std::size_t at; (at = text.find(token)) != std::string::npos;)
            text.replace(at, token.size(), value);
}

/// Returns the directories of a search list. $LIB, which only preloaded libraries use, is left out.
std::vector<std::string> directories_of(std::string_view list, const fs::path& object) {
    std::vector<std::string> directories;
    while (!list.empty()) {
        const std::size_t size = std::min(list.find_first_of(":;"), list.size());
        std::string directory(list.substr(0, size));
        list.remove_prefix(std::min(list.size(), size + 1));
        replace_all(directory, "ORIGIN", object.parent_path().string());
        if (const auto platform = ::getauxval(AT_PLATFORM))
            replace_all(directory, "PLATFORM", reinterpret_cast<const char*>(platform));
        if (directory.starts_with('/') && directory.find('$') == std::string::npos)
            directories.push_back(std::move(directory));
    }
    return directories;
}

/// Adds what would be found under this name before what is there.
void add_search(ImageFacts& facts, const std::vector<std::string>& directories,
                const std::string& name) {
    if (name.find('/') != std::string::npos) return;
    for (const std::string& directory : directories) {
        std::vector<std::string> places;
        for (const char* variant : kVariants) places.push_back(directory + "/" + variant);
        places.push_back(directory);
        for (const std::string& place : places) {
            const std::string path = place + "/" + name;
            if (stamp_of(path)) return;
            facts.absent.insert(path);
        }
    }
}

}  // namespace

void add_loader_files(ImageFacts& facts) {
    for (const char* path : kFiles) add_file(facts, path);
    if (const std::string zone = zone_file(); !zone.empty()) add_file(facts, zone);

    std::vector<Loaded> objects;
    ::dl_iterate_phdr(add_loaded, &objects);
    if (objects.empty()) return;
    const char* variable = std::getenv("LD_LIBRARY_PATH");
    const std::string everybody = variable ? variable : "";
    for (const Loaded& object : objects) {
        if (object.path.filename().string().starts_with("libc.so."))
            add_file(facts, object.path.parent_path() / "gconv/gconv-modules.cache");
        std::vector<std::string> directories;
        const auto add = [&](std::string_view list, const fs::path& of) {
            for (std::string& directory : directories_of(list, of))
                directories.push_back(std::move(directory));
        };
        // This is the loader's order. The program's own RPATH counts for what its libraries need.
        if (object.runpath.empty()) {
            add(object.rpath, object.path);
            if (objects[0].runpath.empty()) add(objects[0].rpath, objects[0].path);
        }
        add(everybody, object.path);
        add(object.runpath, object.path);
        for (const std::string& name : object.needed) add_search(facts, directories, name);
        // It may have been opened by its name alone.
        add_search(facts, directories_of(everybody, object.path), object.path.filename());
    }
}

}  // namespace warmfork
