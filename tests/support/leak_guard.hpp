// Sees to it that a test leaves nothing: descriptors, children, mappings of a channel.
#pragma once

#include <map>
#include <string>

class LeakGuard {
  public:
    void start();
    /// Prints what the test left and counts it as a failure of the whole run.
    void finish(const std::string& test);
    static int failures();

  private:
    std::map<int, std::string> descriptors_;
};
