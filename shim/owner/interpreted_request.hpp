// A request as an interpreter gets it from exec.
#pragma once

#include <optional>

#include "owner/request.hpp"
#include "owner/script_line.hpp"

namespace warmfork {

/// What a template of the interpreter has to be asked for. Where the request's program is a script,
/// that is the command line that exec would make of it. A cold child gets the request as it was
/// given, and the kernel makes that command line.
class InterpretedRequest {
  public:
    /// `given` must live as long as this object. Reads files, unless the template is not one of
    /// Python or is asked for by its own path.
    InterpretedRequest(const Request& given, bool is_python, const std::string& template_program)
        : given_(given) {
        if (!is_python || given.program() == template_program) return;
        command_ = find_script_command(given.program(), given.arguments(), given.environment(),
                                       given.directory());
        if (command_) interpreted_ = given.with_command(command_->executed, command_->arguments);
    }
    InterpretedRequest(const InterpretedRequest&) = delete;
    InterpretedRequest& operator=(const InterpretedRequest&) = delete;

    const Request& get() const { return interpreted_ ? *interpreted_ : given_; }

  private:
    const Request& given_;
    std::optional<ScriptCommand> command_;
    std::optional<Request> interpreted_;
};

}  // namespace warmfork
