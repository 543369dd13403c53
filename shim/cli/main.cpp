// warmfork(1) parses its command line, and does what that says.
#include <CLI/CLI.hpp>
#include <algorithm>
#include <memory>
#include <string_view>

#include "channel/standard_numbers.hpp"
#include "cli/commands.hpp"

using namespace warmfork::cli;

namespace {

constexpr int kNotUnderstood = 125;

void add_template_options(CLI::App& command, TemplateOptions& options) {
    command.add_option("--preload", options.preload, "Modules to import in the template")
        ->delimiter(',')
        ->allow_extra_args(false)
        ->type_name("M,...");
    command.add_option("--python", options.python,
                       "The template's interpreter (default: the command's own, or python3)");
    command.add_flag("--learn", options.learn,
                     "Remember what children import, and preload what most of them do");
    command
        .add_option(
            "--name", options.program,
            "With --learn: the program that is learned from (default: the command's script)")
        ->needs("--learn");
}

void add_service_option(CLI::App& command, TemplateOptions& options) {
    CLI::Option* name =
        command.add_option("-t,--template", options.name,
                           "A template of the service, by its name, instead of one of "
                           "its own; a service is started where none runs");
    for (const char* own : {"--preload", "--python", "--learn", "--name"})
        name->excludes(command.get_option(own));
}

void add_board_options(CLI::App& command, BoardOptions& options) {
    command
        .add_option("--user", options.user,
                    "The daemon of this user, name or number, whatever its socket")
        ->type_name("USER");
    command.add_option("name", options.instance,
                       "The daemon's name, as --instance of warmforkd (default: whichever serves "
                       "WARMFORK_SOCKET)");
}

void add_run(CLI::App& app, int& ret_status) {
    const auto run = std::make_shared<RunOptions>();
    CLI::App* command =
        app.add_subcommand("run", "Spawn one command from a template, end as the command ends");
    add_template_options(*command, run->from);
    add_service_option(*command, run->from);
    command->add_option("--backend", run->backend, "auto, warm or cold")
        ->check(CLI::IsMember({"auto", "warm", "cold"}));
    command->add_flag("--explain", run->explain,
                      "Say on standard error which backend served, and why");
    command
        ->add_option("--in-place-of", run->in_place_of,
                     "The command's program; what cannot be warm at once is not spawned, but this "
                     "process becomes it")
        ->type_name("FILE")
        ->needs(command->get_option("--template"));
    command->add_option("command", run->command, "The command: -- python3 script.py ...")
        ->required();
    command->footer(
        "Streams, other open descriptors, directory and environment are the caller's. Signals are\n"
        "forwarded.\n"
        "A child of the service is in another session: Ctrl-C, Ctrl-\\ and Ctrl-Z are passed on "
        "to\n"
        "its process group (before Linux 6.9 to itself alone), but it has no controlling "
        "terminal:\n"
        "/dev/tty cannot be opened, and what the terminal prints or reads is not job-controlled.\n"
        "Ends as the child does, also by the same signal; 127: its program was not found;\n"
        "125 it could not be started, or its status was lost with the service.");
    command->callback([run, &ret_status] { ret_status = run_one(*run); });
}

void add_explain(CLI::App& app, int& ret_status) {
    const auto question = std::make_shared<ExplainOptions>();
    CLI::App* command = app.add_subcommand(
        "explain", "Say whether a command would be warm, and if not why, without starting it");
    add_template_options(*command, question->from);
    add_service_option(*command, question->from);
    command->add_flag("--json", question->json, "Print JSON");
    command->add_option("command", question->command, "The command: -- python3 script.py ...")
        ->required();
    command->footer(
        "Exit status: 0 warm, 2 cold, 1 the template does not start. A command that a variant "
        "will\n"
        "serve once it is preloaded counts as cold: that is what the first spawn is.");
    command->callback([question, &ret_status] { ret_status = explain(*question); });
}

void add_doctor(CLI::App& app, int& ret_status) {
    const auto doctor = std::make_shared<DoctorOptions>();
    CLI::App* command = app.add_subcommand(
        "doctor", "Show what the fork-safety gate sees of a template, and what its imports cost");
    add_template_options(*command, doctor->of);
    command->add_flag("--json", doctor->json, "Print JSON");
    command->callback([doctor, &ret_status] { ret_status = examine(*doctor); });
}

void add_bench(CLI::App& app, int& ret_status) {
    CLI::App* command = app.add_subcommand("bench",
                                           "Measure spawns: serial, life, concurrent, resident, "
                                           "multiprocessing, service or commands; plot "
                                           "(each has --help)");
    command->prefix_command();
    command->set_help_flag();  // like all of their options it goes to the program
    command->callback([command, &ret_status] {
        // It is started as a script, as programs that use multiprocessing are.
        ret_status = start_python({"/warmfork/bench/__main__.py"}, command->remaining());
    });
}

void add_profile(CLI::App& app, int& ret_status) {
    CLI::App* command = app.add_subcommand(
        "profile", "Show what imports cost: time, memory, forks; what is worth preloading");
    command->prefix_command();
    command->set_help_flag();
    command->callback([command, &ret_status] {
        ret_status = start_python({"-m", "warmfork.profile"}, command->remaining());
    });
}

void add_template(CLI::App& app, int& ret_status) {
    CLI::App* command =
        app.add_subcommand("template", "Show, start, stop and edit the service's templates");
    command->require_subcommand(1);
    struct Verb {
        const char *name, *text;
        enum { none, optional, required } argument;
    };
    for (const Verb& verb :
         {Verb{"list",
               "Which there are, and whether they are ready; of automatic ones what they preload",
               Verb::none},
          {"show", "What the files say of one, and where; no service is asked", Verb::required},
          {"start", "Preload one now, and wait until it is ready", Verb::required},
          {"stop", "End one; it starts again when it is asked for", Verb::required},
          {"reload",
           "Read one anew and preload it; without a name the service starts itself again "
           "in place, and reads everything",
           Verb::optional},
          {"edit", "Open one's file in VISUAL or EDITOR, and check it", Verb::required},
          {"adopt", "Write an automatic one down as a file of the configuration",
           Verb::required}}) {
        const auto options = std::make_shared<ManageOptions>();
        options->verb = verb.name;
        CLI::App* action = command->add_subcommand(verb.name, verb.text);
        if (verb.argument != Verb::none)
            action->add_option("name", options->name, "The template's name")
                ->required(verb.argument == Verb::required);
        else
            action->add_flag("--json", options->json, "Print JSON");
        if (options->verb == "show" || options->verb == "edit")
            action
                ->add_option("--config", options->directories,
                             "Directory of the configuration, as warmforkd's; may be given again, "
                             "the most specific last, which `edit` writes to")
                ->type_name("DIRECTORY")
                ->allow_extra_args(false);
        action->callback([options, &ret_status] { ret_status = manage_templates(*options); });
    }
    command->footer(
        "A template NAME is the file templates.d/NAME.toml of /etc/warmfork or, of a user,\n"
        "~/.config/warmfork, which `edit` opens; a new one begins as a copy of what is in force.\n"
        "Errors in files are said with file, line and column. A service is started where none "
        "runs.\n"
        "Exit status: 0, or 1 with a message: no such template, an error in its file, it does not\n"
        "start, no service.");
}

void add_log(CLI::App& app, int& ret_status) {
    const auto log = std::make_shared<LogOptions>();
    CLI::App* command = app.add_subcommand("log", "Show what the service has logged");
    command->add_flag("-f,--follow", log->follow, "Go on with what it logs from now on");
    command->add_option("-t,--template", log->name, "Of one template only")->type_name("NAME");
    command->add_option("options", log->rest, "More options of journalctl: -- -n 20 -o verbose");
    command->footer(
        "Starts journalctl on the user's journal, for root on the system's.\n"
        "Exit status: journalctl's; 1 it cannot be started.");
    command->callback([log, &ret_status] { ret_status = show_log(*log); });
}

void add_status(CLI::App& app, int& ret_status) {
    const auto status = std::make_shared<StatusOptions>();
    CLI::App* command =
        app.add_subcommand("status", "Show the daemon, its templates and its clients, once");
    add_board_options(*command, status->of);
    auto* json = command->add_flag("--json", status->json, "Print JSON");
    command->add_flag("--metrics", status->metrics, "Print the text format of Prometheus")
        ->excludes(json);
    command->footer(
        "What is shown is read from the daemon's statistics board in shared memory: it costs the\n"
        "daemon nothing, and works while the daemon is busy. Counts and percentiles are of the\n"
        "time since the daemon started. A number that is not known is \"-\", in JSON null.\n"
        "Exit status: 0; 3 no daemon runs, or none on this socket (--json and --metrics say so on "
        "standard output too);\n"
        "1 the board cannot be read.");
    command->callback([status, &ret_status] { ret_status = show_status(*status); });
}

void add_top(CLI::App& app, int& ret_status) {
    const auto top = std::make_shared<BoardOptions>();
    CLI::App* command =
        app.add_subcommand("top", "Show the templates, redrawn each second until q or Ctrl-C");
    add_board_options(*command, *top);
    command->footer(
        "A SECOND is of the last second, P50, P90 and P99 are of the warm spawns of the last ten:\n"
        "from the request until the child has started. WHY counts the reasons of cold spawns, or\n"
        "shows the last line of a template that does not start. A daemon that ends is waited for.\n"
        "Where standard output is no terminal one plain table is printed, after a second; its\n"
        "percentiles are of the time since the daemon started.\n"
        "Exit status: 0; 3 no daemon runs; 1 the board cannot be read.");
    command->callback([top, &ret_status] { ret_status = show_top(*top); });
}

void add_install_links(CLI::App& app, int& ret_status) {
    const auto links = std::make_shared<LinkOptions>();
    CLI::App* command = app.add_subcommand(
        "install-links", "Make links that stand in front of commands, and start them warm");
    command
        ->add_option("--dir", links->directory,
                     "Where (default: $XDG_DATA_HOME/warmfork/links, or the same in "
                     "~/.local/share)")
        ->type_name("DIRECTORY");
    command->add_option("names", links->names, "The commands, by their names: python3 pytest ...")
        ->required();
    command->footer(
        "With the directory first in PATH the commands are found there. Each is the real one,\n"
        "further on in PATH: see warmfork-links(7). A link is removed as a file is.\n"
        "Exit status: 0, or 1 with a message.");
    command->callback([links, &ret_status] { ret_status = install_links(*links); });
}

void add_links(CLI::App& app, int& ret_status) {
    const auto list = std::make_shared<LinkListOptions>();
    CLI::App* command = app.add_subcommand(
        "links", "Show the links in PATH: in front of what, and how often they were warm");
    command->add_flag("--json", list->json, "Print JSON");
    command->footer(
        "Counted is since the service's directory exists, most often since the login. What was "
        "cold\n"
        "before there was a service is not counted.\n"
        "Exit status: 0.");
    command->callback([list, &ret_status] { ret_status = show_links(*list); });
}

constexpr struct {
    std::string_view name;
    void (*add)(CLI::App& app, int& ret_status);
} kCommands[] = {{"run", add_run},         {"explain", add_explain},
                 {"doctor", add_doctor},   {"bench", add_bench},
                 {"profile", add_profile}, {"template", add_template},
                 {"log", add_log},         {"status", add_status},
                 {"top", add_top},         {"install-links", add_install_links},
                 {"links", add_links}};

}  // namespace

int main(int argc, char** argv) try {
    warmfork::hold_standard_numbers();
    CLI::App app("Starts processes from a template that has its start-up behind it.", "warmfork");
    app.set_version_flag("--version", WARMFORK_VERSION);
    app.require_subcommand(1);
    app.footer(
        "Exit status: of `run` the child's own (or a death by the same signal), 125 if it could "
        "not\n"
        "be started, 127 if its program was not found. Of the others 0, or 1 with a message.\n"
        "`explain` ends with 2 where the command would be cold, `status` and `top` with 3 where\n"
        "no daemon runs. 125: the command line is wrong.\n"
        "WARMFORK_BACKEND=auto|warm|cold selects the backend where no option does.");
    // Only the command that is asked for is put together, so that `run` starts fast.
    const std::string_view asked = argc > 1 ? argv[1] : "";
    const bool is_known =
        std::ranges::any_of(kCommands, [&](const auto& command) { return command.name == asked; });
    int status = 0;
    for (const auto& command : kCommands)
        if (!is_known || command.name == asked) command.add(app, status);
    try {
        app.parse(argc, argv);
    } catch (const CLI::ParseError& error) {
        return app.exit(error) == 0 ? 0 : kNotUnderstood;
    }
    return status;
} catch (const std::exception& error) {
    std::fprintf(stderr, "warmfork: %s\n", error.what());
    return 1;
}
