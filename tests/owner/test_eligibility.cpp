#include <fcntl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <filesystem>
#include <fstream>

#include "owner/eligibility.hpp"
#include "owner/environment.hpp"
#include "owner/script_line.hpp"
#include "owner/shadowing.hpp"
#include "support/catch.hpp"
#include "support/processes.hpp"

using namespace warmfork;

namespace {

std::vector<char*> pointers(std::vector<std::string>& strings) {
    std::vector<char*> result;
    for (std::string& string : strings) result.push_back(string.data());
    return result;
}

warmfork_reason reason_for(std::vector<std::string> arguments,
                           std::vector<std::string> environment = {"PATH=/usr/bin:/bin"},
                           const std::string& program = "/bin/sh") {
    const auto argument_pointers = pointers(arguments), variables = pointers(environment);
    return find_program_reason(true, program, arguments[0], argument_pointers, variables, ".")
        .reason;
}

PythonCommand parse(std::vector<std::string> arguments) {
    arguments.insert(arguments.begin(), "python3");
    return parse_python_command(pointers(arguments));
}

std::string difference(std::vector<std::string> started_with, std::vector<std::string> wanted,
                       const ReadVariables& read = {}) {
    return differing_variable(started_with, pointers(wanted), read, true);
}

using Kind = PythonCommand::Kind;
using Options = std::vector<std::string>;

}  // namespace

TEST_CASE("A Python command line is taken apart as the interpreter does it") {
    CHECK(parse({"script.py", "-O"}).kind == Kind::script);
    CHECK(parse({"script.py", "-O"}).options.empty());
    CHECK(parse({"script.py"}).program == 1);
    CHECK(parse({"-c", "pass", "-O"}).operand == "pass");
    CHECK(parse({"-c", "pass", "-O"}).program == 2);
    CHECK(parse({"-cpass"}).operand == "pass");
    CHECK(parse({"-cpass"}).program == 1);
    CHECK(parse({"-IOmjson.tool", "x"}).options == Options{"-I", "-O"});
    CHECK(parse({"-IOmjson.tool", "x"}).operand == "json.tool");
    CHECK(parse({"-X", "dev", "-Xutf8", "-W", "error", "a.py"}).options ==
          Options{"-Xdev", "-Xutf8", "-Werror"});
    CHECK(parse({"--", "-c"}).kind == Kind::script);
    CHECK(parse({"--", "-c"}).operand == "-c");
    CHECK(parse({"-", "x"}).kind == Kind::standard_input);
    CHECK(parse({"-", "x"}).program == 1);
    CHECK(parse({}).kind == Kind::standard_input);
    CHECK(parse({"-u"}).program == 2);
}

TEST_CASE("What only a cold interpreter can do has an obstacle") {
    for (const char* option :
         {"-i", "-v", "-d", "-x", "-V", "-h", "-?", "--version", "--check-hash-based-pycs", "-R",
          "-Ximporttime", "-Xtracemalloc=3", "-J", "-k", "-c", "-m", "-W", ""})
        CHECK_FALSE(parse({option}).obstacle.empty());
    for (const char* option : {"-O", "-OO", "-I", "-E", "-s", "-S", "-u", "-B", "-bb", "-q", "-P"})
        CHECK(parse({option, "x"}).obstacle.empty());
}

constexpr std::array kClosed{-1, -1, -1};

TEST_CASE("A directory as a standard stream is cold") {
    std::vector<std::string> none;
    const int directory = ::open("/", O_RDONLY);
    for (const auto& streams : {std::array{directory, -1, -1}, std::array{-1, directory, -1},
                                std::array{-1, -1, directory}})
        CHECK(find_python_reason(parse({"-c", "1"}), pointers(none), streams).reason ==
              WARMFORK_REASON_COMMAND_LINE);
    ::close(directory);
    CHECK(find_python_reason(parse({"-c", "1"}), pointers(none), kClosed).reason ==
          WARMFORK_REASON_NONE);
}

TEST_CASE("Standard input is a program unless it is a terminal or closed") {
    std::vector<std::string> none;
    const int file = ::open("/dev/null", O_RDONLY);
    CHECK(find_python_reason(parse({}), pointers(none), std::array{file, -1, -1}).reason ==
          WARMFORK_REASON_NONE);
    ::close(file);
    CHECK(find_python_reason(parse({}), pointers(none), kClosed).reason ==
          WARMFORK_REASON_COMMAND_LINE);
    std::vector<std::string> inspect{"PYTHONINSPECT=1"};
    CHECK(find_python_reason(parse({"-c", "1"}), pointers(inspect), kClosed).reason ==
          WARMFORK_REASON_COMMAND_LINE);
}

TEST_CASE("The line of a script is read as the kernel reads it") {
    const auto parts = [](std::string_view start) {
        const std::optional<ScriptLine> line = parse_script_line(start);
        return line ? line->interpreter + "|" + line->argument.value_or("none") : "";
    };
    CHECK(parts("#!/bin/x\n#!/bin/y\n") == "/bin/x|none");
    CHECK(parts("#! \t/bin/x \t\n") == "/bin/x|none");
    CHECK(parts("#!/bin/x -a  b\t \n") == "/bin/x|-a  b");
    CHECK(parts("#!/bin/x\r\n") == "/bin/x\r|none");
    CHECK(parts("#!/bin/x " + std::string(246, 'e') + "\n") == "/bin/x|" + std::string(246, 'e'));
    for (const std::string start : {"", "#", "#!", "#!\n", "#! \t\n", "/bin/x\n", " #!/bin/x\n",
                                    "#!/bin/x", "#!x\n", "#!./x\n"})
        CHECK(parts(start) == "");
    CHECK(parts("#!/bin/x " + std::string(247, 'e') + "\n") == "");
    CHECK(parts(std::string_view("#!/bin/x\0y\n", 12)) == "");
}

TEST_CASE("What env would do is only told where it starts a program and does nothing else") {
    CHECK(skip_env({"env", "x", "-S", "a=b"}) == Options{"x", "-S", "a=b"});
    CHECK(skip_env({"env", "-S x\t-y  z ", "s"}) == Options{"x", "-y", "z", "s"});
    CHECK(skip_env({"env", "-Sx", "s"}) == Options{"x", "s"});
    CHECK(skip_env({"env", "--split-string=x -y", "s"}) == Options{"x", "-y", "s"});
    for (const Options& arguments : {Options{"env"},
                                     {"env", ""},
                                     {"env", "-"},
                                     {"env", "a=b", "x"},
                                     {"env", "-i", "x"},
                                     {"env", "-S", "x"},
                                     {"env", "-S ", "x"},
                                     {"env", "-S-i", "x"},
                                     {"env", "-Sa=b x"},
                                     {"env", "-S\"x\""},
                                     {"env", "-S$x"},
                                     {"env", "-Sx\\_y"},
                                     {"env", "-Sx #y"},
                                     {"env", "--", "x"},
                                     {"env", "--split-strings=x"}})
        CHECK(skip_env(arguments).empty());
}

TEST_CASE("Environments differ in what was read and in what always counts") {
    CHECK(difference({"A=1"}, {"A=2"}) == "");
    CHECK(difference({"A=1"}, {"A=2"}, {{"A"}, false}) == "A");
    CHECK(difference({"A=1"}, {}, {{"A"}, false}) == "A");
    CHECK(difference({}, {"A=1"}, {{"A"}, false}) == "A");
    CHECK(difference({"A=1"}, {"A=2"}, {{}, true}) == "A");
    CHECK(difference({"A=1", "A=2"}, {"A=1"}, {{"A"}, false}) == "");
    CHECK(difference({"B=1", "A=1"}, {"A=1", "B=1"}, {{}, true}) == "");
    for (const char* variable : {"TZ=x", "LC_ALL=x", "PYTHONPATH=x", "LD_PRELOAD=x",
                                 "OMP_NUM_THREADS=1", "HOME=/x", "PATH=/x", "MALLOC_ARENA_MAX=1"})
        CHECK_FALSE(difference({}, {variable}).empty());
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

TEST_CASE("A directory or archive that cannot be looked into for now may hold any module") {
    CHECK(in_an_owner([]() -> std::string {
              char place[] = "/tmp/warmfork-test-XXXXXX";
              if (!::mkdtemp(place)) return "no directory";
              const std::string directory = place, file = directory + "/file";
              std::ofstream(file) << "of no archive, as its end tells";
              const ModuleFiles modules{{"beside", "/usr/lib/beside.py"}};
              ShadowSearch search;
              const auto find = [&](const std::string& entry) {
                  return search.find(std::array{entry}, 1, modules);
              };
              rlimit limit{};
              ::getrlimit(RLIMIT_NOFILE, &limit);
              const rlimit none{0, limit.rlim_max};
              ::setrlimit(RLIMIT_NOFILE, &none);
              const std::string of_directory = find(directory), of_file = find(file);
              const bool is_script_known = import_directory(directory, "file").has_value();
              ::setrlimit(RLIMIT_NOFILE, &limit);
              std::string wrong;
              if (of_directory.empty()) wrong += "the directory is taken for empty, ";
              if (of_file.empty()) wrong += "the file is taken for no archive, ";
              if (is_script_known) wrong += "the script is taken for no archive, ";
              if (!find(directory).empty() || !find(file).empty()) wrong += "it is remembered, ";
              if (import_directory(directory, "file") != directory) wrong += "another directory";
              std::filesystem::remove_all(directory);
              return wrong;
          }) == "");
}
