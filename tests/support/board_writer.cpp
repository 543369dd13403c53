// A daemon's statistics board without the daemon: does what the lines on standard input say, and
// answers each with one of its own.
#include <fmt/format.h>

#include <cstdlib>
#include <iostream>
#include <map>
#include <sstream>

#include "service/board.hpp"

using namespace warmfork;

namespace {

struct Daemon {
    Board board;
    std::map<std::string, TemplateEntry> templates;
    std::map<int, ClientEntry> clients;
};

TemplateState state_of(const std::string& name) {
    if (name == "preloading") return TemplateState::preloading;
    if (name == "ready") return TemplateState::ready;
    return name == "stale" ? TemplateState::stale : TemplateState::idle;
}

warmfork_reason reason_of(const std::string& name) {
    int reason = 0;
    while (reason < WARMFORK_REASON_COUNT &&
           name != warmfork_reason_name(static_cast<warmfork_reason>(reason)))
        ++reason;
    return static_cast<warmfork_reason>(reason);
}

/// Of a template: the names begin with one word, so that spaces do as well.
void change(Daemon& daemon, const std::string& verb, std::istringstream& words) {
    std::string name, text;
    std::uint64_t numbers[3] = {};
    words >> name;
    if (verb == "template") {
        std::getline(words, text);
        daemon.templates[name] = {};
        daemon.templates[name] = daemon.board.template_entry(text.empty() ? name : text.substr(1));
        return;
    }
    TemplateEntry& entry = daemon.templates.at(name);
    if (verb == "state") {
        words >> text;
        entry.set_state(state_of(text));
    } else if (verb == "failing") {
        words >> numbers[0];
        std::getline(words, text);
        entry.set_failing(std::chrono::milliseconds(numbers[0]), text.substr(1));
    } else if (verb == "image") {
        words >> numbers[0] >> numbers[1] >> numbers[2];
        entry.set_images(static_cast<pid_t>(numbers[0]), numbers[1]);
        entry.set_preload(std::chrono::milliseconds(numbers[2]));
        entry.count_start();
    } else if (verb == "population") {
        words >> numbers[0] >> numbers[1] >> numbers[2];
        entry.set_population(numbers[0], numbers[1], numbers[2]);
    } else if (verb == "memory") {
        words >> numbers[0] >> numbers[1];
        entry.set_memory(numbers[0], numbers[1]);
    } else if (verb == "spawn") {
        words >> numbers[0] >> numbers[1];
        for (std::uint64_t i = 0; i < numbers[1]; ++i)
            entry.count_spawn(std::chrono::microseconds(numbers[0]));
    } else if (verb == "cold") {
        words >> text;
        entry.count_cold(reason_of(text));
    }
}

void connect(Daemon& daemon, std::istringstream& words) {
    int pid, uid;
    std::string command;
    std::uint64_t children, leases, spawns, memory, cpu_us;
    words >> pid >> uid >> command >> children >> leases >> spawns >> memory >> cpu_us;
    ClientEntry& client = daemon.clients[pid] =
        daemon.board.client_entry(pid, static_cast<uid_t>(uid), command);
    client.set_usage(children, leases, spawns);
    client.set_cost(memory, cpu_us);
}

}  // namespace

int main(int argc, char** argv) {
    Daemon daemon;
    const int error = Board::create(argc > 1 ? argv[1] : "", daemon.board);
    std::cout << error << std::endl;
    if (error) return EXIT_FAILURE;
    for (std::string line; std::getline(std::cin, line);) {
        std::istringstream words(line);
        std::string verb, text;
        std::uint64_t number;
        words >> verb;
        if (verb == "socket" && words >> text)
            daemon.board.set_socket(text);
        else if (verb == "client")
            connect(daemon, words);
        else if (verb == "children" && words >> number)
            daemon.board.set_children(number);
        else
            change(daemon, verb, words);
        std::cout << "done" << std::endl;
    }
    return 0;
}
