// What clients ask about templates, and what they tell them to do.
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "service/learned.hpp"
#include "service/service.hpp"

namespace warmfork::service {
namespace {

using Json = nlohmann::json;

std::string text_of(const ServiceMessage& message) {
    return FieldReader(message.body).text();
}

}  // namespace

void Service::find(Client& client, const ServiceMessage& message) {
    const std::string name = text_of(message);
    ServedTemplate* served = find_template(name);
    if (const AutomaticTemplate* automatic = find_automatic(name);
        automatic && !served && may_lease(client))
        return client.send(ServiceKind::found, message.id,
                           write_body(TemplateFacts{true, false, automatic->command.interpreter}));
    const bool is_fixed = !may_lease(client);
    if (!served || (is_fixed && served->named.definition().command.empty()))
        return refuse(client, message.id, Stage::launch, ENOENT, explain_absence(name));
    const ImageSet::Definition& images = served->named.definition().images;
    client.send(ServiceKind::found, message.id,
                write_body(TemplateFacts{images.is_python, is_fixed, images.program}));
}

std::string Service::explain_absence(const std::string& name) {
    for (const ConfigurationError& error : configuration_.errors)
        if (error.template_name == name)
            return fmt::format("the template {} is not usable: {}", name, to_string(error));
    if (const auto found = unusable_.find(name);
        found != unusable_.end() && configuration_.templates.count(name))
        return fmt::format("the template {} is not usable: {}", name, found->second);
    if (const AutomaticTemplate* const automatic = automatic_.find(name))
        return fmt::format(
            "the template {} is an automatic one, which starts when its command is called, {}. "
            "`warmfork template adopt {}` makes a file of it, by which it can be started",
            name, to_string(automatic->command), name);
    std::string known;
    for (const auto& [other, loaded] : configuration_.templates)
        known += (known.empty() ? "" : ", ") + other;
    std::string text = fmt::format(
        "there is no usable template {} (looked for {}.toml in templates.d of {}; known: {})", name,
        name, fmt::join(options_.directories, ", "), known.empty() ? "none" : known);
    // The template may lie where nothing was read.
    for (const ConfigurationError& error : configuration_.errors)
        if (error.template_name.empty()) text += "; " + to_string(error);
    return text;
}

std::string Service::name_of(ServedTemplate& served) {
    return served.named.failure() ? "failing" : template_state_name(state_of(served));
}

/// Returns the name of the template that serves a linked command, or null where none does.
const std::string* Service::find_template_for(const std::string& command) const {
    for (const auto& [name, loaded] : configuration_.templates)
        if (std::ranges::find(loaded.definition.links, command) != loaded.definition.links.end())
            return &name;
    const auto named = configuration_.templates.find(command);
    return named == configuration_.templates.end() ? nullptr : &named->first;
}

nlohmann::json Service::list_templates() {
    Json list = Json::array();
    for (const auto& [known, loaded] : configuration_.templates) {
        const auto served = templates_.find(known);
        const bool runs = served != templates_.end();
        list.push_back({{"name", known},
                        {"extends", loaded.definition.extends},
                        {"state", runs ? name_of(served->second) : "idle"},
                        {"parked", runs ? served->second.named.parked() : 0},
                        {"files", loaded.files}});
    }
    Json errors = Json::array();
    for (const ConfigurationError& error : configuration_.errors)
        errors.push_back(to_string(error));
    return {{"templates", std::move(list)},
            {"automatic", list_automatic()},
            {"errors", std::move(errors)},
            // Whoever adopts one writes to the first, and the second has what templates have
            // learned.
            {"directory", options_.directories.empty() ? "" : options_.directories.back()},
            {"learned", learned_folder()}};
}

void Service::manage(Client& client, const ServiceMessage& message) {
    FieldReader reader(message.body);
    const std::string verb = reader.text(), name = reader.text();
    const auto answer = [&](const Json& json) {
        client.send(
            ServiceKind::managed, message.id,
            FieldWriter().text(json.dump(-1, ' ', false, Json::error_handler_t::replace)).bytes());
    };
    if (!may_lease(client))
        return refuse(client, message.id, Stage::launch, EACCES,
                      "this is for the service's own user");
    if (verb == "reload" && name.empty()) {
        answer({{"reloading", true}});
        // This is not done from within its own request.
        reloading_ = loop_.soon([this] { reload(); });
        return;
    }
    if (verb == "list") return answer(list_templates());
    if (verb == "link") {
        std::string why = "no template is for " + name;
        const std::string* const configured = find_template_for(name);
        const std::string found = configured ? *configured : see_command(reader, why);
        if (!found.empty()) return answer({{"template", found}});
        return refuse(client, message.id, Stage::launch, ENOENT, why);
    }
    if (verb == "reload") load_configuration();
    ServedTemplate* served = find_template(name);
    const bool ends_automatic = served && served->is_automatic && verb == "stop";
    if (!served || (!configuration_.templates.contains(name) && !ends_automatic))
        return refuse(client, message.id, Stage::launch, ENOENT, explain_absence(name));
    if (verb == "stop")
        refuse_asks(*served, {static_cast<std::uint64_t>(Stage::launch), ESHUTDOWN, 0,
                              fmt::format("the template {} has been stopped", name)});
    if (verb == "stop") templates_.erase(name);
    if (verb == "reload") served = renew_template(name);
    if (verb == "start" || verb == "reload") {
        if (!served)
            return refuse(client, message.id, Stage::launch, ENOENT, explain_absence(name));
        if (const Outcome failure = served->named.start())
            return refuse(client, message.id, failure->stage, failure->error_number, failure->text);
        attend(name);
    } else if (verb != "stop") {
        return refuse(client, message.id, Stage::launch, EINVAL, "unknown verb " + verb);
    }
    answer({{"template", name}, {"state", verb == "stop" ? "idle" : name_of(*served)}});
}

}  // namespace warmfork::service
