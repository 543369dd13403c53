// What is known of commands that have no template in any file: plain data, some of it from clients.
#include "service/automatic.hpp"

#include "protocol/fields.hpp"
#include "support/catch.hpp"

using namespace warmfork;
using namespace warmfork::service;

namespace {

std::optional<AutomaticCommand> command_of(std::vector<std::string> arguments,
                                           std::string interpreter = "/usr/bin/python3",
                                           std::string directory = "/srv") {
    return make_automatic_command(
        {std::move(interpreter), std::move(directory), std::move(arguments)});
}

AutomaticCommand numbered(int number) {
    return command_of({"/srv/" + std::to_string(number)}).value();
}

}  // namespace

TEST_CASE("A command is known by interpreter, options and program") {
    const auto script = command_of({"-B", "-X", "utf8", "tool.py", "-x"});
    REQUIRE(script);
    CHECK(script->options == std::vector<std::string>{"-B", "-Xutf8"});
    CHECK(script->operand == "/srv/tool.py");
    CHECK(to_string(*script) == "/usr/bin/python3 -B -Xutf8 /srv/tool.py");
    const auto module = command_of({"-m", "http.server", "80"});
    REQUIRE(module);
    CHECK(to_string(*module) == "/usr/bin/python3 -m http.server");

    CHECK(name_of(*script).starts_with("tool-"));
    CHECK(name_of(*module).starts_with("http.server-"));
    CHECK(name_of(*script) == name_of(command_of({"-BXutf8", "./tool.py"}).value()));
    CHECK(name_of(*script) != name_of(command_of({"tool.py"}).value()));
    CHECK(name_of(*script) !=
          name_of(command_of({"-BXutf8", "tool.py"}, "/venv/bin/python3").value()));
    CHECK(command_of({"tool.py"}, "venv/bin/python3")->interpreter == "/srv/venv/bin/python3");
}

TEST_CASE("A template's name is one, whatever the program's is") {
    for (const char* path : {"/srv/-", "/srv/..", "/srv/\xff\n\"", "/srv/ tool", "/srv/_x.py"}) {
        const std::string name = name_of(command_of({path}).value());
        CHECK(name.size() <= 64);
        CHECK(std::isalnum(static_cast<unsigned char>(name.front())));
        CHECK(name.find_first_of("/\n\" ") == std::string::npos);
    }
    CHECK(name_of(command_of({"/srv/" + std::string(3000, 'x')}).value()).size() <= 64);
}

TEST_CASE("What is no command that could be preloaded is refused") {
    CHECK_FALSE(command_of({}));
    CHECK_FALSE(command_of({"-"}));
    CHECK_FALSE(command_of({"-c", "pass"}));
    CHECK_FALSE(command_of({"-i", "tool.py"}));
    CHECK_FALSE(command_of({"-m"}));
    CHECK_FALSE(command_of({"-m", "../x"}));
    CHECK_FALSE(command_of({""}));
    CHECK_FALSE(command_of({"/dev/fd/63"}));
    CHECK_FALSE(command_of({"/proc/self/fd/3"}));
    CHECK_FALSE(command_of({std::string("tool\0.py", 8)}));
    CHECK_FALSE(command_of({"/" + std::string(5000, 'x')}));
    CHECK_FALSE(command_of({"-W" + std::string(300, 'x'), "tool.py"}));
    CHECK_FALSE(command_of(std::vector<std::string>(17, "-B")));
    CHECK_FALSE(command_of({"tool.py"}, "/bin/rm"));
    CHECK_FALSE(command_of({"tool.py"}, ""));
    CHECK_FALSE(command_of({"tool.py"}, std::string("/x\0/python3", 11)));
    CHECK_FALSE(command_of({"tool.py"}, "/usr/bin/python3", "work"));
    CHECK_FALSE(command_of({"tool.py"}, "/usr/bin/python3", ""));
}

TEST_CASE("The second sighting makes a template") {
    AutomaticTemplates templates;
    const std::string name = templates.see(numbered(1), 10);
    CHECK_FALSE(templates.find(name));
    CHECK(templates.see(numbered(1), 11) == name);
    REQUIRE(templates.find(name));
    CHECK(templates.find(name)->command == numbered(1));
    CHECK(templates.find(name)->last_sight == 11);
    CHECK_FALSE(templates.find("other"));
    templates.erase(name);
    CHECK_FALSE(templates.find(name));
}

TEST_CASE("No more commands are known than a few, and those that come again are kept") {
    AutomaticTemplates templates;
    const std::string first = templates.see(numbered(0), 1);
    templates.see(numbered(0), 2);
    for (int number = 1; number < 2000; ++number) templates.see(numbered(number), 2 + number);
    CHECK(templates.all().size() == AutomaticTemplates::kMostCommands);
    CHECK(templates.find(first));
    for (int number = 1; number < 2000; ++number)
        for (int times = 0; times < 2; ++times) templates.see(numbered(number), 3000 + number);
    CHECK(templates.all().size() == AutomaticTemplates::kMostCommands);
    CHECK_FALSE(templates.find(first));
}

TEST_CASE("Only a few are started for the first time within a while") {
    AutomaticTemplates templates;
    int started = 0;
    for (int i = 0; i < 100; ++i) started += templates.admit_new_start(1000);
    CHECK(started == 4);
    CHECK(templates.admit_new_start(1010));
    CHECK(templates.admit_new_start(5));  // the clock was set back
}

TEST_CASE("What is written is read as the same") {
    AutomaticTemplates templates;
    const std::string name = templates.see(command_of({"-B", "tool.py"}).value(), 5);
    templates.see(command_of({"-B", "tool.py"}).value(), 6);
    templates.see(command_of({"-m", "tool"}).value(), 7);
    AutomaticTemplate& known = *templates.find(name);
    known.runs = 3;
    known.variables = {"A", "B"};
    known.refusal = "it starts \"threads\"\n";
    known.stamp = "1 2 3";
    known.is_empty = true;
    AutomaticTemplates again;
    again.read(templates.write());
    CHECK(again.write() == templates.write());
    REQUIRE(again.find(name));
    CHECK(again.find(name)->refusal == known.refusal);
    CHECK(again.find(name)->is_empty);
    CHECK(again.all().size() == 2);
}

TEST_CASE("What was not written so is passed over") {
    for (const char* text :
         {"", "[", "[]", "{}", "null", R"({"commands": 1})", R"({"commands": [1, [], {}, null]})",
          R"({"commands": [{"interpreter": "/bin/rm", "script": "/x", "sightings": 9}]})",
          R"({"commands": [{"interpreter": "/bin/python3", "script": "x", "sightings": 9}]})",
          R"({"commands": [{"interpreter": "/bin/python3", "options": ["x"], "script": "/x"}]})"}) {
        AutomaticTemplates templates;
        templates.read(text);
        CHECK(templates.all().empty());
    }
    AutomaticTemplates templates;
    templates.read(R"({"commands": [{"interpreter": "/bin/python3", "script": "/x", "options": 1,
                       "sightings": "many", "runs": -1.5, "variables": {"a": 1}, "stamp": []}]})");
    REQUIRE(templates.all().size() == 1);
    CHECK(templates.all().begin()->second.sightings == 0);
}
