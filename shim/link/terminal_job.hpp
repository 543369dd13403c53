// Whether what a person has started at a terminal may have another terminal in its place.
#pragma once

namespace warmfork::link {

/// Are all three standard streams the terminal that controls this session, and does this process
/// lead its process group, as what a shell starts by itself does? In a pipeline, a script, or under
/// make, others read from the terminal as well, or are meant by its Ctrl-C.
bool is_whole_job_at_terminal();

}  // namespace warmfork::link
