// What is refused in files of the configuration, and how.
#include <sys/stat.h>

#include "service/configuration_directories.hpp"

using namespace warmfork::service;

namespace {

/// What a file says, and what is said of it: the whole where that is a line and begins with a
/// place; its beginning where it begins with a place; else what is somewhere in it.
struct Refused {
    const char* text;
    const char* said;
};

bool is_said(std::string_view said, std::string_view expected) {
    const bool has_place = expected.front() >= '0' && expected.front() <= '9';
    if (has_place && expected.back() == '\n') return said == expected;
    return has_place ? said.starts_with(expected) : said.find(expected) != said.npos;
}

constexpr Refused kRefusedTemplates[] = {
    // What is no TOML is refused where it stops being any.
    {"python = \"x\"\npreload = [\"a\"\nspares = 3\n", "3:"},
    {"variants = 1\nvariants = 2\n", "2:"},
    {"python = \"\xff\"", "1:"},
    {"é = 1", "1:1: "},
    {"variants = 1 é", "1:"},
    {"[[[", "1:3: "},
    {"]", "1:1: "},
    // An unknown key is refused with what was probably meant.
    {"preloads = []", "1:1: unknown key \"preloads\"; did you mean \"preload\"?\n"},
    {"\n  idle_timout = 1", "2:3: unknown key \"idle_timout\"; did you mean \"idle_timeout\"?\n"},
    {"env = {}", "1:1: unknown key \"env\"; did you mean \"environment\"?\n"},
    {"[limits]\nchildern = 3",
     "2:1: unknown key \"childern\" in limits; did you mean \"children\"?\n"},
    {"spares = { least = 3 }", "1:12: unknown key \"least\" in spares: there are min and max\n"},
    // Where nothing was probably meant, the known keys are told.
    {"nested = true", "1:1: unknown key \"nested\"; known are allow, "},
    {"limits.zebra = 1",
     "1:8: unknown key \"zebra\" in limits; known are children, record_bytes, spawns_per_second\n"},
    {"\"limits.children\" = 1", "1:1: unknown key \"limits.children\""},
    // A value of the wrong type is refused with what was found and what is expected.
    {"variants = \"many\"",
     "1:12: variants: expected a number from 0 to 64, found the text \"many\"\n"},
    {"variants = 1.5", "1:12: variants: expected a number from 0 to 64, found the number 1.5\n"},
    {"learn = 'yes'", "1:9: learn: expected true or false, found the text \"yes\"\n"},
    {"preload = 'numpy'",
     "1:11: preload: expected an array of texts, as in [\"numpy\", \"json\"], found the text "
     "\"numpy\"\n"},
    {"preload = [\"json\",\n 3]",
     "2:2: preload[1]: expected the name of a module, as in \"os.path\", found the number 3\n"},
    {"program = 'lookup'",
     "1:11: program: expected an array of texts with at least one, as in [\"lookup\", \"serve\"], "
     "found the text \"lookup\"\n"},
    {"limits = 3",
     "1:10: limits: expected a table with children, record_bytes, spawns_per_second, found the "
     "number 3\n"},
    {"spares = true",
     "1:10: spares: expected a number from 0 to 4096, or a table, as in { min = 1, max = 8 }, "
     "found true\n"},
    {"environment = []",
     "1:15: environment: expected a table, as in { LANG = \"C.UTF-8\", DISPLAY = false }, found an "
     "array\n"},
    {"environment.N = 8",
     "1:17: environment.N: expected a text, which sets the variable, or false, which removes it, "
     "found the number 8\n"},
    {"environment.N = true", "1:17: environment.N: expected"},
    {"on_stale = 'colt'",
     "1:12: on_stale: expected \"cold\", \"wait\" or \"serve\", found the text \"colt\"; did you "
     "mean \"cold\"?\n"},
    {"on_stale = 1979-05-27",
     "1:12: on_stale: expected \"cold\", \"wait\" or \"serve\", found the time 1979-05-27\n"},
    {"idle_timeout = '10 minits'",
     "1:16: idle_timeout: expected a number of seconds or a text such as \"90s\", \"10min\" or "
     "\"infinity\", found the text \"10 minits\"\n"},
    {"cgroup.memory_max = '1X'",
     "1:21: cgroup.memory_max: expected bytes, a number or a text such as \"64M\", from 1 to "
     "9223372036854775807, or \"infinity\", found the text \"1X\"\n"},
    {"extends = { a = 1 }", "1:11: extends: expected the name of a template"},
    // A number out of range is refused.
    {"variants = 65", ": expected "},
    {"variants = -1", ": expected "},
    {"spares = 4097", ": expected "},
    {"spares = -1", ": expected "},
    {"spares.min = 5000", ": expected "},
    {"spares.max = -1", ": expected "},
    {"limits.children = 0", ": expected "},
    {"limits.children = 2000000", ": expected "},
    {"limits.spawns_per_second = 0", ": expected "},
    {"limits.record_bytes = 1000", ": expected "},
    {"cgroup.memory_max = 0", ": expected "},
    {"cgroup.tasks_max = 0", ": expected "},
    {"cgroup.cpu_weight = 0", ": expected "},
    {"cgroup.cpu_weight = 10001", ": expected "},
    {"idle_timeout = -1", ": expected "},
    // A text that cannot be what it is to be is refused.
    {"python = ''", ": expected "},
    {"python = 'bin/python3'", ": expected "},
    {"cwd = 'here'", ": expected "},
    {"cwd = ''", ": expected "},
    {"preload = ['a b']", ": expected "},
    {"preload = ['']", ": expected "},
    {"preload = ['a.']", ": expected "},
    {"preload = ['.a']", ": expected "},
    {"preload = ['1a']", ": expected "},
    {"preload = ['main_from_name=x']", ": expected "},
    {"options = ['']", ": expected "},
    {"before_fork = 'module'", ": expected "},
    {"before_fork = ':f'", ": expected "},
    {"in_child = 'm:'", ": expected "},
    {"in_child = 'm:f.g'", ": expected "},
    {"in_child = 'm:f:g'", ": expected "},
    {"allow = ['jemalloc']", ": expected "},
    {"allow = ['thread:']", ": expected "},
    {"links = ['bin/report']", ": expected "},
    {"links = ['']", ": expected "},
    {"command = []", ": expected "},
    {"program = []", ": expected "},
    {"command = [\"a\\u0000b\"]", ": expected "},
    {"extends = '../a'", ": expected "},
    {"extends = ''", ": expected "},
    {"environment = { '' = 'x' }", "cannot be the name of a variable"},
    {"environment = { 'A=B' = 'x' }", "cannot be the name of a variable"},
    {"environment = { \"A\\u0000\" = 'x' }", "cannot be the name of a variable"},
    // Keys that contradict each other are refused.
    {"python = 'python3'\nprogram = ['lookup']\npreload = []\nlearn = false\n",
     "\n4:9: learn is for Python templates"},
    {"python = 'python3'\nprogram = ['lookup']\npreload = []\nlearn = false\n",
     "\n3:11: preload is for Python templates, and program makes this a native one (2:11)\n"},
    {"python = 'python3'\nprogram = ['lookup']\npreload = []\nlearn = false\n",
     "program and python (1:10) contradict each other: leave one of them out\n"},
    {"program = ['lookup']\nextends = 'a'\n", "program and extends (2:11) contradict each other"},
    {"spares = { min = 9, max = 3 }",
     "1:18: spares.min is 9, more than spares.max, which is 3 (1:27)\n"},
};

constexpr Refused kRefusedDaemons[] = {
    // The daemon's keys are checked as those of templates are.
    {"idle_exti = 3", "1:1: unknown key \"idle_exti\"; did you mean \"idle_exit\"?\n"},
    {"allowed_users = 'root'",
     "1:17: allowed_users: expected an array of users, as in [\"www-data\", 1000], found the text "
     "\"root\"\n"},
    {"allowed_users = ['root', 'no-such-user']",
     "1:26: allowed_users[1]: there is no user \"no-such-user\"\n"},
    {"allowed_users = [-1]", "expected a user's name"},
    {"allowed_users = [4294967295]", "expected a user's name"},
    {"limits.children = 'infinity'", "1:19: limits.children: expected"},
};

}  // namespace

TEST_CASE("What is wrong in a template's file is said with its place") {
    for (const auto& [text, expected] : kRefusedTemplates) {
        CAPTURE(text, expected);
        const std::string said = refusal(text);
        CAPTURE(said);
        CHECK(is_said(said, expected));
    }
}

TEST_CASE("What is wrong in the daemon's file is said as in those of templates") {
    for (const auto& [text, expected] : kRefusedDaemons) {
        CAPTURE(text, expected);
        const std::string said = daemon_refusal(text);
        CAPTURE(said);
        CHECK(is_said(said, expected));
    }
}

TEST_CASE("Everything that is wrong is told at once, in order of lines") {
    const std::string errors = refusal("zebra = 1\nvariants = 'x'\nlearn = 3\n");
    CHECK(errors.find("1:1: unknown") == 0);
    CHECK(errors.find("\n2:12: variants") < errors.find("\n3:9: learn"));
}

TEST_CASE("A text that is long is shown by its beginning") {
    const std::string error =
        refusal("on_stale = '" + std::string(59, 'x') + "ö" + std::string(200, 'x') + "'");
    CHECK(error.ends_with("found the text \"" + std::string(59, 'x') + "...\"\n"));
}

TEST_CASE("What is wrong with the daemon's file leaves the templates alone") {
    const Directories directories;
    directories.write("etc/warmforkd.toml", "idle_exit = 'x'");
    directories.write("etc/templates.d/a.toml", "#");
    const Configuration configuration = directories.load();
    CHECK_FALSE(configuration.daemon);
    CHECK(names_of(configuration) == Strings{"a"});
}

TEST_CASE("A template with an error takes no other down") {
    const Directories directories;
    directories.write("etc/templates.d/bad.toml", "zebra = 1");
    directories.write("etc/templates.d/good.toml", "#");
    const Configuration configuration = directories.load();
    CHECK(names_of(configuration) == Strings{"good"});
    REQUIRE(configuration.errors.size() == 1);
    CHECK(configuration.errors[0].template_name == "bad");
    CHECK(configuration.errors[0].where ==
          Position{directories.path("etc/templates.d/bad.toml"), 1, 1});
}

TEST_CASE("Files that cannot be read are errors of their templates") {
    const Directories directories;
    directories.link("etc/templates.d/dangling.toml", "/nowhere");
    fs::create_directories(directories.path("etc/templates.d/directory.toml"));
    ::mkfifo(directories.path("etc/templates.d/fifo.toml").c_str(), 0600);
    directories.write("etc/templates.d/large.toml", "#" + std::string(64 << 10, 'x'));
    directories.write("etc/templates.d/good.toml", "#");
    CHECK(errors_of(directories) ==
          "etc/templates.d/dangling.toml: this file cannot be read: No such file or directory\n"
          "etc/templates.d/directory.toml: this file cannot be read: Is a directory\n"
          "etc/templates.d/fifo.toml: this file cannot be read: it is not a regular file\n"
          "etc/templates.d/large.toml: this file cannot be read: it has more than 65536 bytes\n");
    CHECK(names_of(directories.load()) == Strings{"good"});
}

TEST_CASE("A directory that is a file is an error, and the others are read") {
    const Directories directories;
    directories.write("vendor/templates.d/a.toml", "#");
    directories.write("etc/templates.d", "");
    directories.write("home/templates.d/b.toml", "#");
    CHECK(errors_of(directories) ==
          "etc/templates.d: the files in this directory cannot be listed: Not a directory\n");
    CHECK(names_of(directories.load()) == Strings{"a", "b"});
}

TEST_CASE("A file whose name is none for a template is refused, others are overlooked") {
    const Directories directories;
    for (const char* name :
         {"a b.toml", "-x.toml", "ok.toml", ".hidden.toml", "ok.toml~", "README", "\xff.toml"})
        directories.write(std::string("etc/templates.d/") + name, "#");
    CHECK(names_of(directories.load()) == Strings{"ok"});
    const std::string errors = errors_of(directories);
    CHECK(errors.find("etc/templates.d/-x.toml: the name of a file here is that of its template, "
                      "and \"-x\" is "
                      "not the name of a template") == 0);
    CHECK(errors.find("\netc/templates.d/a b.toml: ") != std::string::npos);
    CHECK(directories.load().errors.size() == 3);
}

TEST_CASE("Tables without end are an error and no crash") {
    CHECK_FALSE(refusal("preload = " + std::string(60'000, '[')).empty());
#if defined(__OPTIMIZE__) && !defined(__SANITIZE_ADDRESS__)
    constexpr int kParts = 32'000;  // as many as fit into the largest file
#else
    constexpr int kParts = 8'000;  // stack frames are several times as large
#endif
    std::string keys = "a";
    for (int i = 0; i < kParts; ++i) keys += ".a";
    CHECK_FALSE(refusal(keys + " = 1").empty());
}
