// The template: says hello, passes the gate, and then serves its channel until it is told to stop
// or its owner is gone. One thread, one poll loop.
#pragma once

#include <string>

#include "template/child.hpp"
#include "template/host.hpp"

namespace warmfork {

struct ServeResult {
    enum class End {
        child,      ///< this is a child: run `command`
        shut_down,  ///< this is the template, and it is done
        failed,     ///< this is the template, and `error` says why it cannot serve
    };
    End end;
    ChildCommand command{};
    std::string error;
    int error_number = 0;  ///< ENOTCONN: not started as a template
};

/// Serves the channel that the preload library found in the environment. Blocks. In the template
/// all signals are blocked meanwhile, except while it sleeps. `host` must outlive the call.
[[nodiscard]] ServeResult serve(Host& host);

/// Tells the owner, before the preloading, that this is the program which it wanted to start, and
/// not another one that came in its place. `channel`: of a layer; -1: of a program that was started
/// as a template. Returns 0 or errno (ENOTCONN: it was not).
[[nodiscard]] int announce_template(int channel);

/// Was this program started as a template, and does not serve yet? False in children of templates.
[[nodiscard]] bool is_launched_as_template();

/// In a child that is to become a template, and has preloaded on top of the image that it came
/// from: the same by the channel that came with its command. What that image depends on, this one
/// does too.
[[nodiscard]] ServeResult serve_layer(Host& host, Descriptor channel);

}  // namespace warmfork
