#include <fcntl.h>
#include <pwd.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>

#include "service/configuration.hpp"
#include "service/quantities.hpp"
#include "service/suggestion.hpp"
#include "support/catch.hpp"

using namespace warmfork::service;
using namespace std::chrono_literals;
namespace fs = std::filesystem;

namespace {

using Strings = std::vector<std::string>;

/// Configuration directories of a test, the most specific last.
class Directories {
  public:
    Directories() {
        std::string pattern = fs::temp_directory_path() / "warmfork-configuration-XXXXXX";
        root_ = ::mkdtemp(pattern.data());
    }
    ~Directories() { fs::remove_all(root_); }
    Directories(const Directories&) = delete;
    Directories& operator=(const Directories&) = delete;

    const fs::path& root() const { return root_; }
    std::string path(const std::string& name) const { return root_ / name; }

    /// "etc/templates.d/a.toml".
    void write(const std::string& name, const std::string& text) const {
        fs::create_directories((root_ / name).parent_path());
        std::ofstream(root_ / name) << text;
    }
    void link(const std::string& name, const std::string& target) const {
        fs::create_directories((root_ / name).parent_path());
        fs::create_symlink(target, root_ / name);
    }
    Configuration load() const {
        return warmfork::service::load({path("vendor"), path("etc"), path("home")});
    }

  private:
    fs::path root_;
};

/// The one template "a" that this text defines.
TemplateDefinition define(const std::string& text) {
    const Directories directories;
    directories.write("etc/templates.d/a.toml", text);
    const Configuration configuration = directories.load();
    for (const ConfigurationError& error : configuration.errors) FAIL_CHECK(to_string(error));
    REQUIRE(configuration.templates.contains("a"));
    return configuration.templates.at("a").definition;
}

DaemonDefinition define_daemon(const std::string& text) {
    const Directories directories;
    directories.write("etc/warmforkd.toml", text);
    const Configuration configuration = directories.load();
    for (const ConfigurationError& error : configuration.errors) FAIL_CHECK(to_string(error));
    return configuration.daemon.value();
}

/// "FILE:LINE:COLUMN: text", one a line, the file without the test's directory.
std::string errors_of(const Configuration& configuration, const std::string& prefix) {
    std::string text;
    for (const ConfigurationError& error : configuration.errors) text += to_string(error) + "\n";
    for (std::size_t at; (at = text.find(prefix)) != std::string::npos;)
        text.erase(at, prefix.size());
    return text;
}

std::string errors_of(const Directories& directories) {
    return errors_of(directories.load(), directories.path(""));
}

/// The errors of a template "a" that is not defined: "LINE:COLUMN: text".
std::string refusal(const std::string& text) {
    const Directories directories;
    directories.write("etc/templates.d/a.toml", text);
    const Configuration configuration = directories.load();
    CHECK(configuration.templates.empty());
    return errors_of(configuration, directories.path("etc/templates.d/a.toml:"));
}

std::string daemon_refusal(const std::string& text) {
    const Directories directories;
    directories.write("etc/warmforkd.toml", text);
    const Configuration configuration = directories.load();
    CHECK_FALSE(configuration.daemon);
    return errors_of(configuration, directories.path("etc/warmforkd.toml:"));
}

Strings names_of(const Configuration& configuration) {
    Strings names;
    for (const auto& [name, loaded] : configuration.templates) names.push_back(name);
    return names;
}

/// One variable of the environment, as it was afterwards.
class Variable {
  public:
    Variable(const char* name, const char* value) : name_(name) {
        if (const char* old = ::getenv(name)) old_ = old;
        value ? ::setenv(name, value, 1) : ::unsetenv(name);
    }
    ~Variable() { old_ ? ::setenv(name_, old_->c_str(), 1) : ::unsetenv(name_); }

  private:
    const char* name_;
    std::optional<std::string> old_;
};

}  // namespace

TEST_CASE("A file that says nothing defines a Python template with the defaults") {
    TemplateDefinition expected;
    expected.name = "a";
    CHECK(define("# nothing\n") == expected);
    CHECK(expected.python == "python3");
    CHECK(expected.is_python());
}

TEST_CASE("Each key of a Python template is read") {
    const TemplateDefinition a = define(R"(
python = "/opt/venv/bin/python3"
preload = ["numpy", "os.path", "größe"]
options = ["-B", "-X", "utf8"]
environment = { TZ = "UTC", EMPTY = "", DISPLAY = false }
inherit_environment = false
cwd = "/srv/app"
spares = { min = 2, max = 16 }
variants = 7
on_stale = "wait"
learn = true
idle_timeout = "1h 30min"
limits = { children = 10, spawns_per_second = 20, record_bytes = "8M" }
cgroup = { memory_max = "2G", tasks_max = 100, cpu_weight = 50 }
before_fork = "app.hooks:before"
in_child = "app.hooks:inside"
allow = ["thread:jemalloc_bg_thd", "descriptor:/dev/nvidia"]
links = ["report", "python3"]
command = ["python3", "/srv/app/report.py", ""]
)");
    CHECK(a.python == "/opt/venv/bin/python3");
    CHECK(a.preload == Strings{"numpy", "os.path", "größe"});
    CHECK(a.options == Strings{"-B", "-X", "utf8"});
    CHECK(a.environment == std::map<std::string, std::optional<std::string>>{
                               {"TZ", "UTC"}, {"EMPTY", ""}, {"DISPLAY", std::nullopt}});
    CHECK_FALSE(a.inherit_environment);
    CHECK(a.directory == "/srv/app");
    CHECK(a.spares == SpareRange{2, 16});
    CHECK(a.variants == 7);
    CHECK(a.on_stale == WARMFORK_STALE_WAIT);
    CHECK(a.learn);
    CHECK(a.idle_timeout == 90min);
    CHECK(a.limits.children == 10u);
    CHECK(a.limits.spawns_per_second == 20u);
    CHECK(a.limits.record_bytes == 8u << 20);
    CHECK(a.cgroup.memory_max == std::uint64_t{2} << 30);
    CHECK(a.cgroup.tasks_max == 100u);
    CHECK(a.cgroup.cpu_weight == 50u);
    CHECK(a.before_fork == "app.hooks:before");
    CHECK(a.in_child == "app.hooks:inside");
    CHECK(a.allow == Strings{"thread:jemalloc_bg_thd", "descriptor:/dev/nvidia"});
    CHECK(a.links == Strings{"report", "python3"});
    CHECK(a.command == Strings{"python3", "/srv/app/report.py", ""});
}

TEST_CASE("A native template has a program and no interpreter") {
    const TemplateDefinition a = define("program = ['lookup', '', 'serve']\n");
    CHECK(a.program == Strings{"lookup", "", "serve"});
    CHECK(a.python.empty());
    CHECK_FALSE(a.is_python());
}

TEST_CASE("Spares are a number, or bounds of which one may be left out") {
    CHECK(define("spares = 0").spares == SpareRange{0, 0});
    CHECK(define("spares = 4096").spares == SpareRange{4096, 4096});
    CHECK(define("spares = { min = 4 }").spares == SpareRange{4, 8});
    CHECK(define("spares = { min = 20 }").spares == SpareRange{20, 20});
    CHECK(define("spares = { max = 3 }").spares == SpareRange{1, 3});
    CHECK(define("spares = { max = 0 }").spares == SpareRange{0, 0});
    CHECK(define("[spares]\nmin = 5\nmax = 5").spares == SpareRange{5, 5});
}

TEST_CASE("What to do with an image that is out of date has three words") {
    CHECK(define("on_stale = 'cold'").on_stale == WARMFORK_STALE_COLD);
    CHECK(define("on_stale = 'wait'").on_stale == WARMFORK_STALE_WAIT);
    CHECK(define("on_stale = 'serve'").on_stale == WARMFORK_STALE_SERVE);
}

TEST_CASE("Time spans are seconds, or texts with units") {
    CHECK(define("idle_timeout = 90").idle_timeout == 90s);
    CHECK(define("idle_timeout = 0").idle_timeout == 0s);
    CHECK(define("idle_timeout = 'infinity'").idle_timeout == 0s);
    for (const auto& [text, span] :
         std::map<std::string, std::chrono::milliseconds>{{"5", 5s},
                                                          {"5s", 5s},
                                                          {"2 min", 2min},
                                                          {"2 hours 1sec", 7201s},
                                                          {"1.5s", 1500ms},
                                                          {"250ms", 250ms},
                                                          {"1h30min", 90min},
                                                          {"1w", 168h},
                                                          {" 3d ", 72h},
                                                          {"0", 0s},
                                                          {"1msec", 1ms},
                                                          {"1hr 1m", 61min}})
        CHECK(parse_time_span(text) == span);
    for (const char* text : {"", " ", "s", "5x", "-1", "1.", ".5s", "1..5s", "1e3", "0.1ms",
                             "5min,", "9999999999w", "Infinity", "nan"})
        CHECK_FALSE(parse_time_span(text));
}

TEST_CASE("A time span is printed as it can be read again") {
    for (const auto span : {0ms, 1ms, 1500ms, 1000ms, 90'000ms, 3'600'000ms, 86'400'000ms})
        CHECK(parse_time_span(print_time_span(span)) == span);
    CHECK(print_time_span(10min) == "10min");
}

TEST_CASE("Bytes are a number, or a text with a suffix") {
    CHECK(parse_bytes("0") == 0u);
    CHECK(parse_bytes("4096") == 4096u);
    CHECK(parse_bytes("3K") == 3072u);
    CHECK(parse_bytes("1T") == std::uint64_t{1} << 40);
    CHECK(parse_bytes("9223372036854775807") == (std::uint64_t{1} << 63) - 1);
    for (const char* text : {"", "K", "-1", "+1", "1.5G", "1 K", "1KB", "1k", "9223372036854775808",
                             "8388608T", "99999999999999999999"})
        CHECK_FALSE(parse_bytes(text));
}

TEST_CASE("A limit that is not set is left open, and infinity takes one back") {
    CHECK_FALSE(define("#").cgroup.memory_max);
    CHECK(define("cgroup.memory_max = 'infinity'").cgroup == CgroupLimits{});
    const Directories directories;
    directories.write("etc/templates.d/a.toml", "cgroup = { memory_max = '1G', tasks_max = 5 }");
    directories.write("home/templates.d/a.toml.d/x.conf", "cgroup.memory_max = 'infinity'");
    const Configuration configuration = directories.load();
    CHECK_FALSE(configuration.templates.at("a").definition.cgroup.memory_max);
    CHECK(configuration.templates.at("a").definition.cgroup.tasks_max == 5u);
}

TEST_CASE("What a template says of its clients goes before what the daemon says") {
    const ClientLimits defaults{1, 2, 3};
    CHECK(define("#").limits.over(defaults) == defaults);
    CHECK(define("limits.children = 7").limits.over(defaults) == ClientLimits{7, 2, 3});
}

TEST_CASE("Each key of the daemon is read") {
    CHECK(define_daemon("#") == DaemonDefinition{});
    CHECK(DaemonDefinition{}.idle_exit == 10min);
    const DaemonDefinition daemon = define_daemon(R"(
allowed_users = ["root", 4242]
idle_exit = "2min"
[limits]
children = 1
spawns_per_second = 2
record_bytes = "4M"
)");
    CHECK(daemon.allowed_users == std::vector<uid_t>{0, 4242});
    CHECK(daemon.idle_exit == 2min);
    CHECK(daemon.limits == ClientLimits{1, 2, 4u << 20});
}

TEST_CASE("Without any directory there is a daemon with the defaults and no template") {
    const Configuration configuration = load({"/nowhere/at/all"});
    CHECK(configuration.daemon == DaemonDefinition{});
    CHECK(configuration.templates.empty());
    CHECK(configuration.errors.empty());
}

// Errors.

TEST_CASE("What is no TOML is refused where it stops being any") {
    CHECK(refusal("python = \"x\"\npreload = [\"a\"\nspares = 3\n").starts_with("3:"));
    CHECK(refusal("variants = 1\nvariants = 2\n").starts_with("2:"));
    CHECK(refusal("python = \"\xff\"").starts_with("1:"));
    CHECK(refusal("é = 1").starts_with("1:1: "));
    CHECK(refusal("variants = 1 é").starts_with("1:"));
    CHECK(refusal("[[[").starts_with("1:3: "));
    CHECK(refusal("]").starts_with("1:1: "));
}

TEST_CASE("An unknown key is refused with what was probably meant") {
    CHECK(refusal("preloads = []") == "1:1: unknown key \"preloads\"; did you mean \"preload\"?\n");
    CHECK(refusal("\n  idle_timout = 1") ==
          "2:3: unknown key \"idle_timout\"; did you mean \"idle_timeout\"?\n");
    CHECK(refusal("env = {}") == "1:1: unknown key \"env\"; did you mean \"environment\"?\n");
    CHECK(refusal("[limits]\nchildern = 3") ==
          "2:1: unknown key \"childern\" in limits; did you mean \"children\"?\n");
    CHECK(refusal("spares = { least = 3 }") ==
          "1:12: unknown key \"least\" in spares: there are min and max\n");
}

TEST_CASE("Where nothing was probably meant, the known keys are told") {
    CHECK(refusal("nested = true").starts_with("1:1: unknown key \"nested\"; known are allow, "));
    CHECK(refusal("limits.zebra = 1") ==
          "1:8: unknown key \"zebra\" in limits; known are children, record_bytes, "
          "spawns_per_second\n");
    CHECK(refusal("\"limits.children\" = 1").starts_with("1:1: unknown key \"limits.children\""));
}

TEST_CASE("Everything that is wrong is told at once, in order of lines") {
    const std::string errors = refusal("zebra = 1\nvariants = 'x'\nlearn = 3\n");
    CHECK(errors.find("1:1: unknown") == 0);
    CHECK(errors.find("\n2:12: variants") < errors.find("\n3:9: learn"));
}

TEST_CASE("A value of the wrong type is refused with what was found and what is expected") {
    CHECK(refusal("variants = \"many\"") ==
          "1:12: variants: expected a number from 0 to 64, found the text \"many\"\n");
    CHECK(refusal("variants = 1.5") ==
          "1:12: variants: expected a number from 0 to 64, found the number 1.5\n");
    CHECK(refusal("learn = 'yes'") ==
          "1:9: learn: expected true or false, found the text \"yes\"\n");
    CHECK(refusal("preload = 'numpy'") ==
          "1:11: preload: expected an array of texts, as in [\"numpy\", \"json\"], found the text "
          "\"numpy\"\n");
    CHECK(
        refusal("preload = [\"json\",\n 3]") ==
        "2:2: preload[1]: expected the name of a module, as in \"os.path\", found the number 3\n");
    CHECK(refusal("program = 'lookup'") ==
          "1:11: program: expected an array of texts with at least one, as in [\"lookup\", "
          "\"serve\"], found the text \"lookup\"\n");
    CHECK(
        refusal("limits = 3") ==
        "1:10: limits: expected a table with children, record_bytes, spawns_per_second, found the "
        "number 3\n");
    CHECK(refusal("spares = true") ==
          "1:10: spares: expected a number from 0 to 4096, or a table, as in { min = 1, max = 8 }, "
          "found true\n");
    CHECK(refusal("environment = []") ==
          "1:15: environment: expected a table, as in { LANG = \"C.UTF-8\", DISPLAY = false }, "
          "found an array\n");
    CHECK(refusal("environment.N = 8") ==
          "1:17: environment.N: expected a text, which sets the variable, or false, which removes "
          "it, found the number 8\n");
    CHECK(refusal("environment.N = true").starts_with("1:17: environment.N: expected"));
    CHECK(refusal("on_stale = 'colt'") ==
          "1:12: on_stale: expected \"cold\", \"wait\" or \"serve\", found the text \"colt\"; did "
          "you "
          "mean \"cold\"?\n");
    CHECK(refusal("on_stale = 1979-05-27") ==
          "1:12: on_stale: expected \"cold\", \"wait\" or \"serve\", found the time 1979-05-27\n");
    CHECK(
        refusal("idle_timeout = '10 minits'") ==
        "1:16: idle_timeout: expected a number of seconds or a text such as \"90s\", \"10min\" or "
        "\"infinity\", found the text \"10 minits\"\n");
    CHECK(refusal("cgroup.memory_max = '1X'") ==
          "1:21: cgroup.memory_max: expected bytes, a number or a text such as \"64M\", from 1 to "
          "9223372036854775807, or \"infinity\", found the text \"1X\"\n");
    CHECK(refusal("extends = { a = 1 }")
              .starts_with("1:11: extends: expected the name of a "
                           "template"));
}

TEST_CASE("A number out of range is refused") {
    for (const char* text :
         {"variants = 65", "variants = -1", "spares = 4097", "spares = -1", "spares.min = 5000",
          "spares.max = -1", "limits.children = 0", "limits.children = 2000000",
          "limits.spawns_per_second = 0", "limits.record_bytes = 1000", "cgroup.memory_max = 0",
          "cgroup.tasks_max = 0", "cgroup.cpu_weight = 0", "cgroup.cpu_weight = 10001",
          "idle_timeout = -1"})
        CHECK(refusal(text).find(": expected ") != std::string::npos);
}

TEST_CASE("A text that cannot be what it is to be is refused") {
    for (const char* text : {"python = ''",
                             "python = 'bin/python3'",
                             "cwd = 'here'",
                             "cwd = ''",
                             "preload = ['a b']",
                             "preload = ['']",
                             "preload = ['a.']",
                             "preload = ['.a']",
                             "preload = ['1a']",
                             "preload = ['main_from_name=x']",
                             "options = ['']",
                             "before_fork = 'module'",
                             "before_fork = ':f'",
                             "in_child = 'm:'",
                             "in_child = 'm:f.g'",
                             "in_child = 'm:f:g'",
                             "allow = ['jemalloc']",
                             "allow = ['thread:']",
                             "links = ['bin/report']",
                             "links = ['']",
                             "command = []",
                             "program = []",
                             "command = [\"a\\u0000b\"]",
                             "extends = '../a'",
                             "extends = ''"})
        CHECK(refusal(text).find(": expected ") != std::string::npos);
    for (const char* name : {"''", "'A=B'", "\"A\\u0000\""})
        CHECK(refusal("environment = { " + std::string(name) + " = 'x' }")
                  .find("cannot be the name of a variable") != std::string::npos);
}

TEST_CASE("A text that is long is shown by its beginning") {
    const std::string error =
        refusal("on_stale = '" + std::string(59, 'x') + "ö" + std::string(200, 'x') + "'");
    CHECK(error.ends_with("found the text \"" + std::string(59, 'x') + "...\"\n"));
}

TEST_CASE("Keys that contradict each other are refused") {
    const std::string errors =
        refusal("python = 'python3'\nprogram = ['lookup']\npreload = []\nlearn = false\n");
    CHECK(errors.find("2:11: program and python (1:10) contradict each other: leave one of them "
                      "out\n") != std::string::npos);
    CHECK(errors.find("3:11: preload is for Python templates, and program makes this a native one "
                      "(2:11)\n") != std::string::npos);
    CHECK(errors.find("4:9: learn is for Python templates") != std::string::npos);
    CHECK(refusal("program = ['lookup']\nextends = 'a'\n")
              .find("1:11: program and extends (2:11) contradict each other") != std::string::npos);
    CHECK(refusal("spares = { min = 9, max = 3 }") ==
          "1:18: spares.min is 9, more than spares.max, which is 3 (1:27)\n");
}

TEST_CASE("What is wrong with the daemon's file leaves the templates alone") {
    const Directories directories;
    directories.write("etc/warmforkd.toml", "idle_exit = 'x'");
    directories.write("etc/templates.d/a.toml", "#");
    const Configuration configuration = directories.load();
    CHECK_FALSE(configuration.daemon);
    CHECK(names_of(configuration) == Strings{"a"});
}

TEST_CASE("The daemon's keys are checked as those of templates are") {
    CHECK(daemon_refusal("idle_exti = 3") ==
          "1:1: unknown key \"idle_exti\"; did you mean \"idle_exit\"?\n");
    CHECK(daemon_refusal("allowed_users = 'root'") ==
          "1:17: allowed_users: expected an array of users, as in [\"www-data\", 1000], found the "
          "text \"root\"\n");
    CHECK(daemon_refusal("allowed_users = ['root', 'no-such-user']") ==
          "1:26: allowed_users[1]: there is no user \"no-such-user\"\n");
    CHECK(daemon_refusal("allowed_users = [-1]").find("expected a user's name") !=
          std::string::npos);
    CHECK(daemon_refusal("allowed_users = [4294967295]").find("expected a user's name") !=
          std::string::npos);
    CHECK(daemon_refusal("limits.children = 'infinity'").find("1:19: limits.children: expected") ==
          0);
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

// Precedence.

TEST_CASE("A file replaces that of the same name in a less specific directory wholly") {
    const Directories directories;
    directories.write("vendor/templates.d/a.toml", "variants = 1\nlearn = true");
    directories.write("etc/templates.d/a.toml", "variants = 2");
    directories.write("vendor/templates.d/b.toml", "variants = 3");
    directories.write("home/templates.d/c.toml", "variants = 4");
    const Configuration configuration = directories.load();
    CHECK(names_of(configuration) == Strings{"a", "b", "c"});
    const LoadedTemplate& a = configuration.templates.at("a");
    CHECK(a.definition.variants == 2);
    CHECK_FALSE(a.definition.learn);
    CHECK(a.files == Strings{directories.path("etc/templates.d/a.toml")});
}

TEST_CASE("A file that is replaced may be broken") {
    const Directories directories;
    directories.write("vendor/templates.d/a.toml", "zebra");
    directories.write("etc/templates.d/a.toml", "variants = 2");
    CHECK(errors_of(directories).empty());
}

TEST_CASE("An empty file or a link to /dev/null masks a template") {
    const Directories directories;
    directories.write("vendor/templates.d/a.toml", "variants = 1");
    directories.write("vendor/templates.d/a.toml.d/x.conf", "variants = 2");
    directories.write("etc/templates.d/a.toml", "");
    directories.write("vendor/templates.d/b.toml", "variants = 1");
    directories.link("home/templates.d/b.toml", "/dev/null");
    CHECK(names_of(directories.load()).empty());
    CHECK(errors_of(directories).empty());
}

TEST_CASE("A mask is itself replaced by a more specific file") {
    const Directories directories;
    directories.write("vendor/templates.d/a.toml", "variants = 1");
    directories.write("etc/templates.d/a.toml", "");
    directories.write("home/templates.d/a.toml", "variants = 3");
    CHECK(directories.load().templates.at("a").definition.variants == 3);
}

TEST_CASE("Drop-ins of all directories are merged in the order of their names") {
    const Directories directories;
    directories.write("etc/templates.d/a.toml",
                      "variants = 1\npreload = ['x', 'y']\nenvironment = { A = '1', B = '1' }\n"
                      "limits = { children = 1, spawns_per_second = 1 }\nspares = 3");
    directories.write("home/templates.d/a.toml.d/10-first.conf",
                      "variants = 10\nenvironment.A = '10'\nlimits.children = 10");
    directories.write("vendor/templates.d/a.toml.d/20-second.toml",
                      "variants = 20\npreload = ['z']\nenvironment = { B = false, C = '20' }\n"
                      "spares.max = 20");
    directories.write("vendor/templates.d/a.toml.d/notes.txt", "variants = 30");
    const Configuration configuration = directories.load();
    CHECK(configuration.errors.empty());
    const LoadedTemplate& a = configuration.templates.at("a");
    CHECK(a.definition.variants == 20);
    CHECK(a.definition.preload == Strings{"z"});
    CHECK(a.definition.environment == std::map<std::string, std::optional<std::string>>{
                                          {"A", "10"}, {"B", std::nullopt}, {"C", "20"}});
    CHECK(a.definition.limits.children == 10u);
    CHECK(a.definition.limits.spawns_per_second == 1u);
    CHECK(a.definition.spares == SpareRange{3, 20});
    CHECK(a.files == Strings{directories.path("etc/templates.d/a.toml"),
                             directories.path("home/templates.d/a.toml.d/10-first.conf"),
                             directories.path("vendor/templates.d/a.toml.d/20-second.toml")});
}

TEST_CASE("A drop-in replaces or masks that of the same name in a less specific directory") {
    const Directories directories;
    directories.write("vendor/templates.d/a.toml", "#");
    directories.write("vendor/templates.d/a.toml.d/x.conf", "variants = 1\nlearn = true");
    directories.write("home/templates.d/a.toml.d/x.conf", "variants = 2");
    directories.write("vendor/templates.d/a.toml.d/y.conf", "on_stale = 'wait'");
    directories.link("etc/templates.d/a.toml.d/y.conf", "/dev/null");
    const Configuration configuration = directories.load();
    const TemplateDefinition& a = configuration.templates.at("a").definition;
    CHECK(a.variants == 2);
    CHECK_FALSE(a.learn);
    CHECK(a.on_stale == WARMFORK_STALE_COLD);
}

TEST_CASE("An error in a drop-in has its place there, and is its template's") {
    const Directories directories;
    directories.write("etc/templates.d/a.toml", "python = 'python3'");
    directories.write("home/templates.d/a.toml.d/x.conf", "\nprogram = ['lookup']");
    const Configuration configuration = directories.load();
    CHECK(configuration.templates.empty());
    CHECK(errors_of(directories) ==
          "home/templates.d/a.toml.d/x.conf:2:11: program and python "
          "(etc/templates.d/a.toml:1:10) contradict each other: leave one of them out\n");
}

TEST_CASE("Drop-ins for a template that no file defines are an error") {
    const Directories directories;
    directories.write("etc/templates.d/numpy.toml", "#");
    directories.write("home/templates.d/nunpy.toml.d/x.conf", "variants = 1");
    CHECK(errors_of(directories) ==
          "home/templates.d/nunpy.toml.d/x.conf: a drop-in for a template \"nunpy\" that no file "
          "defines; did you mean \"numpy\"?\n");
    CHECK(names_of(directories.load()) == Strings{"numpy"});
}

TEST_CASE("The daemon's file is replaced, masked and added to as those of templates are") {
    const Directories directories;
    directories.write("vendor/warmforkd.toml", "idle_exit = 1\nlimits.children = 1");
    directories.write("home/warmforkd.toml.d/x.conf", "limits.spawns_per_second = 5");
    CHECK(directories.load().daemon.value().limits.spawns_per_second == 5);
    CHECK(directories.load().daemon.value().idle_exit == 1s);
    directories.write("etc/warmforkd.toml", "idle_exit = 2");
    CHECK(directories.load().daemon.value().idle_exit == 2s);
    CHECK(directories.load().daemon.value().limits.children == ClientLimits{}.children);
    directories.link("home/warmforkd.toml", "/dev/null");
    CHECK(directories.load().daemon == DaemonDefinition{});
}

TEST_CASE("A drop-in for the daemon needs no file beside it") {
    const Directories directories;
    directories.write("etc/warmforkd.toml.d/x.conf", "idle_exit = 7");
    CHECK(directories.load().daemon.value().idle_exit == 7s);
}

TEST_CASE("A daemon looks into its user's directory last") {
    const Variable home("HOME", "/home/alice");
    {
        const Variable none("XDG_CONFIG_HOME", nullptr);
        CHECK(default_directories().back() == "/home/alice/.config/warmfork");
    }
    {
        const Variable relative("XDG_CONFIG_HOME", "there");
        CHECK(default_directories().back() == "/home/alice/.config/warmfork");
    }
    const Variable other("XDG_CONFIG_HOME", "/elsewhere");
    CHECK(default_directories().back() == "/elsewhere/warmfork");
    CHECK(default_directories().size() == 3);
}

TEST_CASE("A file that others may write to is refused, and other files are not concerned") {
    const Directories directories;
    directories.write("etc/templates.d/a.toml", "#");
    directories.write("etc/templates.d/b.toml", "#");
    directories.write("etc/templates.d/c.toml", "#");
    directories.write("etc/templates.d/c.toml.d/x.conf", "variants = 1");
    for (const char* file : {"etc/templates.d/a.toml", "etc/templates.d/c.toml.d/x.conf"}) {
        const mode_t mode = file[16] == 'a' ? 0664 : 0606;
        REQUIRE(::chmod(directories.path(file).c_str(), mode) == 0);
    }
    const Configuration configuration = directories.load();
    CHECK(names_of(configuration) == Strings{"b"});
    for (const ConfigurationError& error : configuration.errors)
        CHECK(error.text.find("others may write to " + error.where.file) != std::string::npos);
    CHECK(configuration.errors.size() == 2);
}

TEST_CASE("Nothing is read in a directory where others may put files, or replace it") {
    const Directories directories;
    directories.write("etc/templates.d/a.toml", "#");
    directories.write("home/templates.d/a.toml", "variants = 1");
    directories.write("home/warmforkd.toml", "idle_exit = 1");
    mode_t mode = 0777;
    SECTION("the directory itself") {
        REQUIRE(::chmod(directories.path("home").c_str(), mode) == 0);
    }
    SECTION("with the sticky bit, of which only a directory on the way is the better") {
        mode |= S_ISVTX;
        REQUIRE(::chmod(directories.path("home").c_str(), mode) == 0);
    }
    SECTION("one on the way, by a link") {
        fs::create_directories(directories.path("open/inner"));
        fs::rename(directories.path("home"), directories.path("open/inner/home"));
        directories.link("home", directories.path("open/inner/home"));
        REQUIRE(::chmod(directories.path("open").c_str(), mode) == 0);
    }
    const Configuration configuration = directories.load();
    CHECK(configuration.templates.at("a").definition.variants == TemplateDefinition{}.variants);
    CHECK(configuration.daemon == DaemonDefinition{});
    REQUIRE(configuration.errors.size() == 1);
    CHECK(configuration.errors.front().text.find("others may write to") != std::string::npos);
    CHECK(configuration.errors.front().where.file == directories.path("home"));
}

TEST_CASE("What belongs to another user than this one and root is refused") {
    if (::geteuid() != 0) return;  // only root can give files away
    const Directories directories;
    directories.write("etc/templates.d/a.toml", "#");
    directories.write("etc/templates.d/b.toml", "#");
    directories.write("home/templates.d/b.toml", "variants = 1");
    REQUIRE(::chown(directories.path("etc/templates.d/a.toml").c_str(), 1234, 0) == 0);
    REQUIRE(::chown(directories.path("home").c_str(), 1234, 0) == 0);
    const Configuration configuration = directories.load();
    CHECK(names_of(configuration) == Strings{"b"});
    CHECK(configuration.templates.at("b").definition.variants == TemplateDefinition{}.variants);
    REQUIRE(configuration.errors.size() == 2);
    for (const ConfigurationError& error : configuration.errors)
        CHECK(error.text.find("belongs to user 1234") != std::string::npos);
}

TEST_CASE(
    "A directory that others can write to, but not replace files in, is a way as good as any") {
    const Directories directories;
    fs::create_directories(directories.path("tmp"));
    REQUIRE(::chmod(directories.path("tmp").c_str(), 01777) == 0);
    directories.write("tmp/etc/templates.d/a.toml", "#");
    CHECK(load({directories.path("tmp/etc")}).errors.empty());
}

// Layers.

TEST_CASE("A layer has from its base what it does not say, and adds its own modules") {
    const Directories directories;
    directories.write("etc/templates.d/base.toml", R"(
python = "/usr/bin/python3"
preload = ["numpy"]
options = ["-B"]
environment = { A = "1" }
inherit_environment = false
cwd = "/srv"
spares = 20
variants = 9
on_stale = "serve"
learn = true
idle_timeout = 5
limits = { children = 5, spawns_per_second = 6 }
cgroup = { memory_max = 1000, tasks_max = 7 }
before_fork = "m:f"
in_child = "m:g"
allow = ["thread:a", "thread:b"]
command = ["python3", "x.py"]
)");
    directories.write("etc/templates.d/layer.toml", R"(
extends = "base"
preload = ["web"]
variants = 2
limits.children = 50
cgroup.memory_max = "infinity"
in_child = "web:start"
allow = ["thread:b", "thread:c"]
)");
    const Configuration configuration = directories.load();
    REQUIRE(configuration.errors.empty());
    const TemplateDefinition& base = configuration.templates.at("base").definition;
    TemplateDefinition expected = base;
    expected.name = "layer";
    expected.extends = "base";
    expected.preload = {"web"};
    expected.spares = {};
    expected.variants = 2;
    expected.limits.children = 50;
    expected.cgroup.memory_max.reset();
    expected.in_child = "web:start";
    expected.allow = {"thread:a", "thread:b", "thread:c"};
    expected.command = {};
    CHECK(configuration.templates.at("layer").definition == expected);
}

TEST_CASE("Layers have layers, wherever in the alphabet they stand") {
    const Directories directories;
    directories.write("etc/templates.d/m.toml", "options = ['-B']\nvariants = 1");
    directories.write("etc/templates.d/z.toml", "extends = 'm'\nvariants = 2");
    directories.write("etc/templates.d/a.toml", "extends = 'z'");
    const Configuration configuration = directories.load();
    const LoadedTemplate& top = configuration.templates.at("a");
    CHECK(top.definition.options == Strings{"-B"});
    CHECK(top.definition.variants == 2);
    CHECK(top.origins.at("variants").file == directories.path("etc/templates.d/z.toml"));
    CHECK(top.origins.at("options").file == directories.path("etc/templates.d/m.toml"));
}

TEST_CASE("A layer cannot have another interpreter, options or environment than its base") {
    const std::string path = "etc/templates.d/layer.toml:";
    for (const auto& [base, layer, error] : std::vector<std::array<std::string, 3>>{
             {"python = 'a'", "python = 'b'",
              "2:10: python is not that of \"base\" (etc/templates.d/base.toml:1:10)"},
             {"", "python = '/usr/bin/python3'",
              "2:10: python is not that of \"base\" (the default)"},
             {"options = ['-B']", "options = []", "2:11: options is not that"},
             {"environment.A = '1'", "environment.A = '2'", "2:17: environment is not that"},
             {"environment.A = '1'", "environment.B = '1'", "2:17: environment is not that"},
             {"environment.A = '1'", "environment.A = false", "2:17: environment is not that"},
             {"", "inherit_environment = false", "2:23: inherit_environment is not that"}}) {
        const Directories directories;
        directories.write("etc/templates.d/base.toml", "#\n" + base);
        directories.write("etc/templates.d/layer.toml", "extends = 'base'\n" + layer);
        const std::string errors = errors_of(directories);
        INFO(errors);
        CHECK(errors.starts_with(path + error.substr(0, error.find(" ("))));
        CHECK(names_of(directories.load()) == Strings{"base"});
    }
}

TEST_CASE("A layer may say again what its base says") {
    const Directories directories;
    directories.write("etc/templates.d/base.toml",
                      "python = 'p'\noptions = ['-B']\nenvironment = { A = '1', B = '2' }");
    directories.write("etc/templates.d/layer.toml",
                      "extends = 'base'\npython = 'p'\noptions = ['-B']\nenvironment.A = '1'");
    CHECK(errors_of(directories).empty());
}

TEST_CASE("To extend a template that is not there is an error") {
    const Directories directories;
    directories.write("etc/templates.d/base.toml", "#");
    directories.write("etc/templates.d/masked.toml", "");
    directories.write("etc/templates.d/x.toml", "\nextends = 'bsae'");
    directories.write("etc/templates.d/y.toml", "extends = 'masked'");
    directories.write("etc/templates.d/z.toml", "extends = 'x'");
    CHECK(
        errors_of(directories) ==
        "etc/templates.d/x.toml:2:11: this extends \"bsae\", which no file defines; did you mean "
        "\"base\"?\n"
        "etc/templates.d/y.toml:1:11: this extends \"masked\", which is masked by "
        "etc/templates.d/masked.toml\n"
        "etc/templates.d/z.toml:1:11: this extends \"x\", which is not defined because of an error "
        "(etc/templates.d/x.toml:2:11)\n");
    CHECK(names_of(directories.load()) == Strings{"base"});
}

TEST_CASE("Templates that extend each other in a circle are errors, and so is what extends them") {
    const Directories directories;
    directories.write("etc/templates.d/a.toml", "extends = 'b'");
    directories.write("etc/templates.d/b.toml", "extends = 'c'");
    directories.write("etc/templates.d/c.toml", "extends = 'a'");
    directories.write("etc/templates.d/d.toml", "extends = 'b'");
    directories.write("etc/templates.d/self.toml", "extends = 'self'");
    directories.write("etc/templates.d/good.toml", "#");
    CHECK(
        errors_of(directories) ==
        "etc/templates.d/a.toml:1:11: templates extend each other in a circle: a -> b -> c -> a\n"
        "etc/templates.d/b.toml:1:11: templates extend each other in a circle: b -> c -> a -> b\n"
        "etc/templates.d/c.toml:1:11: templates extend each other in a circle: c -> a -> b -> c\n"
        "etc/templates.d/d.toml:1:11: this extends \"b\", which is not defined because of an "
        "error (etc/templates.d/b.toml:1:11)\n"
        "etc/templates.d/self.toml:1:11: templates extend each other in a circle: self -> self\n");
    CHECK(names_of(directories.load()) == Strings{"good"});
}

TEST_CASE("A native template cannot be extended") {
    const Directories directories;
    directories.write("etc/templates.d/lookup.toml", "program = ['lookup']");
    directories.write("etc/templates.d/layer.toml", "extends = 'lookup'");
    CHECK(errors_of(directories) ==
          "etc/templates.d/layer.toml:1:11: this extends \"lookup\", a native template: only a "
          "Python template can be extended\n");
}

// Reload and show.

TEST_CASE("Definitions are equal when files say the same, wherever they say it") {
    const Directories directories;
    directories.write("etc/templates.d/a.toml", "variants = 2\nspares = 3");
    const Configuration before = directories.load();
    directories.write("etc/templates.d/a.toml", "# moved\n\nspares.min = 3");
    directories.write("home/templates.d/a.toml.d/x.conf", "spares.max = 3\nvariants = 2");
    const Configuration after = directories.load();
    CHECK(before.templates.at("a").definition == after.templates.at("a").definition);
    directories.write("home/templates.d/a.toml.d/x.conf", "spares.max = 4\nvariants = 2");
    CHECK_FALSE(before.templates.at("a").definition ==
                directories.load().templates.at("a").definition);
}

TEST_CASE("Each key is shown with its origin") {
    const Directories directories;
    directories.write("etc/templates.d/base.toml", "environment = { \"A.B\" = \"x\\\"y\\n\" }");
    directories.write("etc/templates.d/a.toml",
                      "extends = 'base'\nspares.min = 2\npreload = ['m']");
    directories.write("home/templates.d/a.toml.d/x.conf", "\nidle_timeout = 90");
    std::string text = show(directories.load().templates.at("a"));
    for (std::size_t at; (at = text.find(directories.path(""))) != std::string::npos;)
        text.erase(at, directories.path("").size());
    CHECK(text == R"(# etc/templates.d/a.toml
# home/templates.d/a.toml.d/x.conf
extends = "base"  # etc/templates.d/a.toml:1:11
python = "python3"  # default
preload = ["m"]  # etc/templates.d/a.toml:3:11
environment."A.B" = "x\"y\n"  # etc/templates.d/base.toml:1:25
inherit_environment = true  # default
spares.min = 2  # etc/templates.d/a.toml:2:14
spares.max = 8  # default
variants = 4  # default
on_stale = "cold"  # default
learn = false  # default
idle_timeout = "90s"  # home/templates.d/a.toml.d/x.conf:2:16
)");
}

TEST_CASE("What is shown defines the same template") {
    const std::string everything = R"(
python = "/usr/bin/python3"
preload = ["numpy"]
options = ["-B"]
environment = { A = "é \\ \" ' \t\u001b", "b c" = "", D = false }
inherit_environment = false
cwd = "/srv"
spares = { min = 0, max = 20 }
variants = 9
on_stale = "serve"
learn = true
idle_timeout = "1500ms"
limits = { children = 5, spawns_per_second = 6, record_bytes = "2M" }
cgroup = { memory_max = "1G", tasks_max = "infinity", cpu_weight = 7 }
before_fork = "m:f"
in_child = "m:g"
allow = ["thread:a"]
command = ["python3", "", "x y"]
)";
    for (const std::string& text :
         {std::string("#"), std::string("program = ['lookup', 'x']\nspares = 0"), everything,
          std::string("extends = 'base'\nallow = ['thread:z']")}) {
        const Directories directories;
        directories.write("etc/templates.d/base.toml", everything);
        directories.write("etc/templates.d/a.toml", text);
        const LoadedTemplate loaded = directories.load().templates.at("a");
        directories.write("etc/templates.d/a.toml", show(loaded));
        CHECK(errors_of(directories).empty());
        CHECK(directories.load().templates.at("a").definition == loaded.definition);
    }
}

TEST_CASE("The examples load") {
    const Directories directories;
    directories.link("etc/templates.d", WARMFORK_EXAMPLE_TEMPLATES);
    const Configuration configuration = directories.load();
    CHECK(errors_of(directories).empty());
    CHECK(names_of(configuration) == Strings{"numpy", "report", "web"});
    CHECK(configuration.templates.at("web").definition.python == "/usr/bin/python3");
}

TEST_CASE("What is near is a letter or two away, or begun") {
    const Strings words{"preload", "program", "python"};
    CHECK(find_nearest("perload", words) == "preload");
    CHECK(find_nearest("pyth", words) == "python");
    CHECK(find_nearest("programs", words) == "program");
    CHECK(find_nearest("zebra", words).empty());
    CHECK(find_nearest("p", words).empty());
    CHECK(find_nearest("", words).empty());
    CHECK(find_nearest(std::string(1'000'000, 'p'), words).empty());
}
