#include <sys/stat.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>

#include "owner/eligibility.hpp"
#include "support/catch.hpp"

using namespace warmfork;

namespace {

warmfork_reason reason_for(std::vector<std::string> arguments,
                           std::vector<std::string> environment = {"PATH=/usr/bin:/bin"},
                           const std::string& program = "/bin/sh") {
    const std::vector<std::string> started_with{"PATH=/usr/bin:/bin", "LANG=C"};
    const TemplateTraits traits{true, program, started_with, {}};
    std::vector<char*> argument_pointers, environment_pointers;
    environment.push_back("LANG=C");
    for (std::string& string : arguments) argument_pointers.push_back(string.data());
    for (std::string& string : environment) environment_pointers.push_back(string.data());
    return find_cold_reason(traits, arguments[0], argument_pointers, environment_pointers, {})
        .reason;
}

}  // namespace

TEST_CASE("Scripts, -c and -m are warm; what shapes the interpreter is cold") {
    CHECK(reason_for({"/bin/sh", "script.py"}) == WARMFORK_REASON_NONE);
    CHECK(reason_for({"/bin/sh", "script.py", "-O"}) == WARMFORK_REASON_NONE);
    CHECK(reason_for({"/bin/sh", "-c", "pass"}) == WARMFORK_REASON_NONE);
    CHECK(reason_for({"/bin/sh", "-m", "json.tool"}) == WARMFORK_REASON_NONE);
    CHECK(reason_for({"/bin/sh", "--", "script.py"}) == WARMFORK_REASON_NONE);
    for (const char* option : {"-O", "-I", "-E", "-Werror", "-u", "-Xdev", "-cpass", "-mjson", "-",
                               "-i", "--version", "-"})
        CHECK(reason_for({"/bin/sh", option, "x"}) == WARMFORK_REASON_COMMAND_LINE);
    CHECK(reason_for({"/bin/sh"}) == WARMFORK_REASON_COMMAND_LINE);
    CHECK(reason_for({"/bin/sh", "-c"}) == WARMFORK_REASON_COMMAND_LINE);
    CHECK(reason_for({"/bin/sh", "--"}) == WARMFORK_REASON_COMMAND_LINE);
}

TEST_CASE("The program is looked up in the child's PATH and must be the template's file") {
    CHECK(reason_for({"sh", "x"}) == WARMFORK_REASON_NONE);
    CHECK(reason_for({"sh", "x"}, {"PATH=/nowhere"}) == WARMFORK_REASON_PROGRAM);
    CHECK(reason_for({"ls", "x"}) == WARMFORK_REASON_PROGRAM);
    CHECK(reason_for({"/no/such/program", "x"}) == WARMFORK_REASON_PROGRAM);
}

TEST_CASE(
    "The interpreter of a virtual environment is another program though it is the same file") {
    namespace fs = std::filesystem;
    const fs::path root =
        fs::temp_directory_path() / ("warmfork-test-" + std::to_string(::getpid()));
    fs::create_directories(root / "bin");
    fs::create_symlink("/bin/sh", root / "bin/python3");
    const std::string interpreter = root / "bin/python3";
    CHECK(reason_for({interpreter, "x"}) == WARMFORK_REASON_NONE);
    std::ofstream(root / "pyvenv.cfg") << "home = /usr/bin\n";
    CHECK(reason_for({interpreter, "x"}) == WARMFORK_REASON_PROGRAM);
    fs::remove_all(root);
}

TEST_CASE("A variable that start-up reads must be the template's, others are free") {
    const std::string path = "PATH=/usr/bin:/bin";
    CHECK(reason_for({"sh", "x"}, {path, "HOME=/elsewhere", "ANYTHING=1"}) == WARMFORK_REASON_NONE);
    for (const char* variable :
         {"PYTHONPATH=/x", "PYTHONHASHSEED=0", "LC_ALL=C", "LD_LIBRARY_PATH=/x",
          "OMP_NUM_THREADS=1", "MALLOC_ARENA_MAX=1", "GLIBC_TUNABLES="})
        CHECK(reason_for({"sh", "x"}, {path, variable}) == WARMFORK_REASON_ENVIRONMENT);
}
