// Which files a native image came from: those that it asked libc for, by whatever name.
#include <fcntl.h>
#include <sys/wait.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>

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
