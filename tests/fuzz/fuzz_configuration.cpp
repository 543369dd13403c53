// Files of templates and of the daemon, whatever stands in them.
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <string>

#include "fuzz_input.hpp"
#include "service/configuration.hpp"

using namespace warmfork;
namespace fs = std::filesystem;

namespace {

/// A configuration directory in memory, removed at the end of the run.
class Directory {
  public:
    Directory() {
        std::string pattern = "/dev/shm/warmfork-fuzz-XXXXXX";
        if (!::mkdtemp(pattern.data())) std::abort();
        root_ = pattern;
        fs::create_directories(root_ / "templates.d/layer.toml.d");
    }
    ~Directory() { fs::remove_all(root_); }
    Directory(const Directory&) = delete;
    Directory& operator=(const Directory&) = delete;

    void write(const std::string& name, std::string_view text) const {
        std::ofstream(root_ / name) << text;
    }
    service::Configuration load() const { return service::load({root_}); }

  private:
    fs::path root_;
};

/// What is shown of a template is a file that defines the same template.
void show_again(const Directory& directory, const service::Configuration& configuration) {
    const auto base = configuration.templates.find("base");
    if (base == configuration.templates.end()) return;
    directory.write("templates.d/base.toml", service::show(base->second));
    const service::Configuration again = directory.load();
    const auto shown = again.templates.find("base");
    fuzz::require(shown != again.templates.end(), "what is shown of a template can be read");
    fuzz::require(shown->second.definition == base->second.definition,
                  "what is shown of a template defines the same template");
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    static const Directory directory;
    const std::string_view text = fuzz::text_of(fuzz::Input(data, size).rest());
    // Three files, with a NUL between them: a template, a layer's drop-in, and the daemon.
    const std::size_t first = std::min(text.find('\0'), text.size());
    const std::size_t second =
        std::min(text.find('\0', std::min(first + 1, text.size())), text.size());
    directory.write("templates.d/base.toml", text.substr(0, first));
    directory.write("templates.d/layer.toml", "extends = \"base\"\n");
    directory.write("templates.d/layer.toml.d/more.conf",
                    first < text.size() ? text.substr(first + 1, second - first - 1) : "");
    directory.write("warmforkd.toml", second < text.size() ? text.substr(second + 1) : "");
    const service::Configuration configuration = directory.load();
    for (const service::ConfigurationError& error : configuration.errors)
        fuzz::require(!error.text.empty() && !error.where.file.empty(),
                      "an error says what and where");
    for (const auto& [name, loaded] : configuration.templates)
        fuzz::require(loaded.definition.name == name, "a template has its file's name");
    show_again(directory, configuration);
    return 0;
}
