// Which files of the configuration count, and how they are put together.
#include <pwd.h>
#include <sys/stat.h>
#include <unistd.h>

#include "channel/trusted_path.hpp"
#include "service/configuration_directories.hpp"

using namespace warmfork::service;
using namespace std::chrono_literals;

namespace {

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

TEST_CASE("A path of which it cannot be told who decides on it is not trusted") {
    const Directories directories;
    fs::create_symlink("loop", directories.path("loop"));
    CHECK(warmfork::distrust(directories.path("loop")).find("cannot be looked at") !=
          std::string::npos);
    CHECK(warmfork::distrust(directories.path("nothing")).empty());  // reading it tells
}

TEST_CASE(
    "A directory that others can write to, but not replace files in, is a way as good as any") {
    const Directories directories;
    fs::create_directories(directories.path("tmp"));
    REQUIRE(::chmod(directories.path("tmp").c_str(), 01777) == 0);
    directories.write("tmp/etc/templates.d/a.toml", "#");
    CHECK(load({directories.path("tmp/etc")}).errors.empty());
}

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
