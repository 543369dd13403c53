// What the keys of the configuration mean, and how it is shown.
#include "service/configuration_directories.hpp"
#include "service/quantities.hpp"
#include "service/suggestion.hpp"

using namespace warmfork::service;
using namespace std::chrono_literals;

TEST_CASE("A file that says nothing defines a Python template with the defaults") {
    TemplateDefinition expected;
    expected.name = std::string("a");
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
