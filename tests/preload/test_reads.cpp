// Which files a native image came from: those that it asked libc for, by whatever name.
#include <dlfcn.h>
#include <fcntl.h>
#include <sched.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdlib>
#include <exception>
#include <filesystem>
#include <fstream>
#include <functional>

#include "support/catch.hpp"
#include "support/processes.hpp"

namespace {

struct Folder {
    Folder() {
        std::string name = std::filesystem::temp_directory_path() / "warmfork-XXXXXX";
        if (::mkdtemp(name.data())) path = name;
    }
    ~Folder() { std::filesystem::remove_all(path); }
    std::filesystem::path path;
};

void write(const std::filesystem::path& path, const char* text) {
    std::ofstream(path) << text;
}

/// Of this process's environment, for a while.
struct Variable {
    Variable(const char* variable, const std::string& value) : name(variable) {
        ::setenv(name, value.c_str(), 1);
    }
    ~Variable() { ::unsetenv(name); }
    const char* name;
};

/// How a spawn is served now: warm is NONE.
warmfork_reason reason_of_spawn(warmfork::Template& table) {
    ProbeRequest request({"exit", "0"});
    warmfork::Process child = table.spawn(request.get());
    CHECK(child.wait() == 0);
    return child.reason();
}

warmfork::Template asking(const std::string& function, const std::filesystem::path& path) {
    warmfork::Template table =
        probe_template(1, {"ask:" + function + ":" + path.string()}, WARMFORK_BACKEND_AUTO);
    table.wait_parked(1);
    return table;
}

/// The first image may have begun in the moment in which one of its files was written.
void spawn_warm(warmfork::Template& table) {
    ProbeRequest request({"exit", "0"});
    request.request.backend = WARMFORK_BACKEND_WARM;
    table.spawn(request.get()).wait();
}

std::filesystem::path library_of_c() {
    Dl_info library{};
    if (::dladdr(reinterpret_cast<void*>(&::getpid), &library) == 0) return {};
    return library.dli_fname;
}

/// Is it, in a process of its own?
bool is_possible(const std::function<bool()>& change) {
    return in_an_owner([&] { return change() ? "" : "no"; }) == "";
}

/// Puts an empty directory in the place of one of the machine's, for this process and those that it
/// starts.
bool cover(const std::filesystem::path& directory, const Folder& folder) {
    return ::unshare(CLONE_NEWNS) == 0 &&
           ::mount("none", "/", nullptr, MS_REC | MS_PRIVATE, nullptr) == 0 &&
           ::mount("none", folder.path.c_str(), "tmpfs", 0, nullptr) == 0 &&
           ::mount(folder.path.c_str(), directory.c_str(), nullptr, MS_BIND, nullptr) == 0;
}

/// Where `file`, one of the machine's, is another one or there is none.
std::string stale_after_change(const std::filesystem::path& file, bool is_there) {
    const Folder folder;
    return in_an_owner([&]() -> std::string {
        if (!cover(file.parent_path(), folder)) return "no place for it";
        if (is_there) write(file, "");
        warmfork::Template table = probe_template(1, {}, WARMFORK_BACKEND_AUTO);
        spawn_warm(table);
        if (reason_of_spawn(table) != WARMFORK_REASON_NONE) return "not warm before";
        write(file.string() + ".new", "# \n");
        if (reason_of_spawn(table) != WARMFORK_REASON_NONE) return "another file counts";
        std::filesystem::rename(file.string() + ".new", file);
        return reason_of_spawn(table) == WARMFORK_REASON_STALE ? "" : "not stale";
    });
}

}  // namespace

TEST_CASE("A file that was asked about belongs to the image") {
    for (const char* function : {"stat", "lstat", "fstatat", "__xstat", "__lxstat", "__fxstatat"}) {
        CAPTURE(function);
        const Folder folder;
        write(folder.path / "table", "one");
        warmfork::Template table = asking(function, folder.path / "table");
        CHECK(reason_of_spawn(table) == WARMFORK_REASON_NONE);
        write(folder.path / "table", "two");
        CHECK(reason_of_spawn(table) == WARMFORK_REASON_STALE);
    }
}

TEST_CASE("A file that was looked for and not there belongs to the image") {
    for (const char* function :
         {"stat", "lstat", "fstatat", "__xstat", "__lxstat", "__fxstatat", "access", "faccessat"}) {
        CAPTURE(function);
        const Folder folder;
        warmfork::Template table = asking(function, folder.path / "table");
        CHECK(reason_of_spawn(table) == WARMFORK_REASON_NONE);
        write(folder.path / "table", "one");
        CHECK(reason_of_spawn(table) == WARMFORK_REASON_STALE);
    }
}

TEST_CASE("A directory that was listed belongs to the image, by the names in it") {
    for (const char* function : {"opendir", "fdopendir", "scandir"}) {
        CAPTURE(function);
        const Folder folder;
        write(folder.path / "one", "1");
        warmfork::Template table = asking(function, folder.path);
        CHECK(reason_of_spawn(table) == WARMFORK_REASON_NONE);
        write(folder.path / "one", "another");
        CHECK(reason_of_spawn(table) == WARMFORK_REASON_NONE);
        write(folder.path / "two", "2");
        CHECK(reason_of_spawn(table) == WARMFORK_REASON_STALE);
    }
}

TEST_CASE("A directory that was to be listed and not there belongs to the image") {
    const Folder folder;
    warmfork::Template table = asking("opendir", folder.path / "plugins");
    CHECK(reason_of_spawn(table) == WARMFORK_REASON_NONE);
    std::filesystem::create_directory(folder.path / "plugins");
    CHECK(reason_of_spawn(table) == WARMFORK_REASON_STALE);
}

TEST_CASE("What comes and goes in a listed directory does not make its image stale") {
    const Folder folder;
    write(folder.path / "one", "1");
    warmfork::Template table = asking("opendir", folder.path);
    std::filesystem::create_directory(folder.path / "__pycache__");
    for (const char* name : {"one~", ".one.swp", "download.part", "one.cpython-311.pyc"}) {
        CAPTURE(name);
        write(folder.path / name, "passing");
        CHECK(reason_of_spawn(table) == WARMFORK_REASON_NONE);
    }
    for (const char* name : {"two", "three"}) {
        write(folder.path / name, "passing");
        std::filesystem::remove(folder.path / name);
        CHECK(reason_of_spawn(table) == WARMFORK_REASON_NONE);
    }
    std::filesystem::rename(folder.path / "one", folder.path / "another");
    CHECK(reason_of_spawn(table) == WARMFORK_REASON_STALE);
}

TEST_CASE("A directory in which everybody leaves temporary files does not count by its names") {
    const Folder folder;
    REQUIRE(::chmod(folder.path.c_str(), 01777) == 0);
    warmfork::Template table = asking("opendir", folder.path);
    write(folder.path / "one", "1");
    CHECK(reason_of_spawn(table) == WARMFORK_REASON_NONE);
}

TEST_CASE("Whether a file may be executed belongs to the image") {
    const Folder folder;
    write(folder.path / "tool", "#!/bin/sh\n");
    warmfork::Template table = asking("may-execute", folder.path / "tool");
    CHECK(reason_of_spawn(table) == WARMFORK_REASON_NONE);
    REQUIRE(::chmod((folder.path / "tool").c_str(), 0755) == 0);
    CHECK(reason_of_spawn(table) == WARMFORK_REASON_STALE);
}

TEST_CASE("A file that was opened by the kernel's link to its directory belongs to the image") {
    const Folder folder;
    write(folder.path / "table", "one");
    warmfork::Template table = asking("open-below-descriptor", folder.path / "table");
    CHECK(reason_of_spawn(table) == WARMFORK_REASON_NONE);
    write(folder.path / "table", "two");
    CHECK(reason_of_spawn(table) == WARMFORK_REASON_STALE);
}

TEST_CASE("The file of the time zone belongs to every image") {
    const Folder folder;
    write(folder.path / "zone", "one");
    const Variable zone("TZ", folder.path / "zone");
    warmfork::Template table = probe_template(1, {}, WARMFORK_BACKEND_AUTO);
    spawn_warm(table);
    CHECK(reason_of_spawn(table) == WARMFORK_REASON_NONE);
    write(folder.path / "zone", "another");
    CHECK(reason_of_spawn(table) == WARMFORK_REASON_STALE);
}

TEST_CASE("A library that the loader would find first now makes the image stale") {
    Dl_info library{};
    REQUIRE(::dladdr(reinterpret_cast<void*>(static_cast<void (*)()>(std::terminate)), &library));
    const std::filesystem::path path = library.dli_fname;
    if (!path.filename().string().starts_with("libstdc++.so")) return;  // it is linked statically
    const Folder folder;
    const Variable search("LD_LIBRARY_PATH", folder.path);
    warmfork::Template table = probe_template(1, {}, WARMFORK_BACKEND_AUTO);
    table.wait_parked(1);
    CHECK(reason_of_spawn(table) == WARMFORK_REASON_NONE);
    std::filesystem::copy(path, folder.path / path.filename());
    CHECK(reason_of_spawn(table) == WARMFORK_REASON_STALE);
}

TEST_CASE("A library that the loader would find first in a RUNPATH makes the image stale") {
    // It has $ORIGIN/before as its RUNPATH, and needs libc.
    const Folder folder;
    const auto library = folder.path / "library.so";
    std::filesystem::create_directory(folder.path / "before");
    std::filesystem::copy(TEST_RUNPATH_LIBRARY, library);
    warmfork::Template table =
        probe_template(1, {"load:" + library.string()}, WARMFORK_BACKEND_AUTO);
    spawn_warm(table);
    CHECK(reason_of_spawn(table) == WARMFORK_REASON_NONE);
    write(folder.path / "before" / "another", "");
    CHECK(reason_of_spawn(table) == WARMFORK_REASON_NONE);
    write(folder.path / "before" / library_of_c().filename(), "");
    CHECK(reason_of_spawn(table) == WARMFORK_REASON_STALE);
}

TEST_CASE("The loader's own files and those of libc belong to every image") {
    const std::vector<std::filesystem::path> files{
        "/etc/ld.so.cache",
        "/etc/ld.so.preload",
        "/etc/localtime",
        "/usr/lib/locale/locale-archive",
        "/usr/share/locale/locale.alias",
        library_of_c().parent_path() / "gconv/gconv-modules.cache"};
    for (const auto& file : files) {
        CAPTURE(file);
        const Folder folder;
        if (!is_possible([&] { return cover(file.parent_path(), folder); })) return;
        for (const bool is_there : {true, false}) CHECK(stale_after_change(file, is_there) == "");
    }
}
