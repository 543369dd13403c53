#include "owner/companions.hpp"

#include <dlfcn.h>
#include <unistd.h>

#include <filesystem>
#include <vector>

namespace warmfork {
namespace {

namespace fs = std::filesystem;

/// Returns the directory of the library or program that holds this code.
fs::path own_directory() {
    Dl_info info;
    if (::dladdr(reinterpret_cast<void*>(&find_companion), &info) == 0 || !info.dli_fname)
        return {};
    std::error_code error;
    // For the main program dladdr tells what it was called, which may be no path.
    const fs::path file = std::string_view(info.dli_fname).find('/') == std::string_view::npos
                              ? fs::read_symlink("/proc/self/exe", error)
                              : fs::canonical(info.dli_fname, error);
    return file.parent_path();
}

/// It is looked up when this code is loaded: what the loader was given may be relative to the
/// directory at that time.
const fs::path own = own_directory();

std::string first_existing(const std::vector<fs::path>& candidates) {
    std::error_code error;
    for (const fs::path& candidate : candidates)
        if (fs::exists(candidate, error)) return fs::canonical(candidate, error).string();
    return {};
}

}  // namespace

std::string find_companion(const std::string& name) {
    const fs::path installed(WARMFORK_LIBEXEC_DIRECTORY);
    return first_existing({own / "_libexec" / name, own / WARMFORK_LIBEXEC_FROM_PROGRAMS / name,
                           own / WARMFORK_LIBEXEC_FROM_LIBRARIES / name,
                           own / WARMFORK_LIBEXEC_FROM_PACKAGE / name,
                           // This is beside this code, which is a companion itself. It is not own /
                           // name: for a program `python` is something else there.
                           own.parent_path() / "_libexec" / name,
                           own.parent_path() / installed.filename() / name, installed / name});
}

std::string find_python_path() {
    // This is the package that this code belongs to: children that preload it find it where their
    // owner did.
    std::error_code error;
    for (const fs::path& package :
         {own, own.parent_path()})  // a companion's lies in the folder above
        if (fs::exists(package / "_template.py", error)) return package.parent_path().string();
    // Others do not get the folder that it lies in: beside it are modules that other interpreters
    // must not find.
    return find_companion("python");
}

}  // namespace warmfork
