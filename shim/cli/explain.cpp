#include <fmt/format.h>

#include <cstdlib>
#include <nlohmann/json.hpp>

#include "cli/commands.hpp"
#include "warmfork.hpp"

namespace warmfork::cli {

int explain(const ExplainOptions& options) {
    try {
        TemplateOptions from = options.from;
        complete(from, options.command);
        Template asked = from.name.empty() ? open_template(from, 0) : Template::connect(from.name);
        wait_with_progress(asked);
        const auto arguments = detail::pointers(options.command);
        warmfork_request request;
        warmfork_request_init(&request);
        request.arguments = arguments.data();
        const Explanation explanation = asked.explain(request);
        const bool is_warm = explanation.reason == WARMFORK_REASON_NONE;
        if (options.json)
            fmt::print("{}\n",
                       nlohmann::json{{"backend", is_warm ? "warm" : "cold"},
                                      {"reason_code", warmfork_reason_name(explanation.reason)},
                                      {"reason", explanation.text}}
                           .dump(1));
        else
            fmt::print("{}{}{}\n", is_warm ? "warm" : "cold", is_warm ? "" : ": ",
                       explanation.text);
        return is_warm ? 0 : 2;
    } catch (const Error& error) {
        fmt::print(stderr, "warmfork: {}\n", error.what());
        return 1;
    }
}

}  // namespace warmfork::cli
