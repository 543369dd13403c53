#include "service/learned.hpp"

#include <algorithm>
#include <charconv>
#include <filesystem>
#include <fstream>
#include <string_view>

#include "channel/trusted_path.hpp"
#include "service/configuration.hpp"

namespace warmfork::service {
namespace {

namespace fs = std::filesystem;

/// Cuts off the first word, and the space behind it.
std::string_view take_word(std::string_view& ret_line) {
    const std::size_t end = std::min(ret_line.find(' '), ret_line.size());
    const std::string_view word = ret_line.substr(0, end);
    ret_line.remove_prefix(std::min(end + 1, ret_line.size()));
    return word;
}

std::uint64_t take_number(std::string_view& ret_line) {
    const std::string_view word = take_word(ret_line);
    std::uint64_t number = 0;
    std::from_chars(word.data(), word.data() + word.size(), number);
    return number;
}

/// Reads what lies behind the first line.
LearnedImage read_image(std::istream& file) {
    LearnedImage image;
    for (std::string line; std::getline(file, line);) {
        std::string_view rest = line;
        const std::string_view verdict = take_word(rest);
        std::string name(take_word(rest));
        if (verdict == "no") {
            image.refused.push_back({std::move(name), std::string(rest)});
        } else if (verdict == "ok") {
            const std::uint64_t microseconds = take_number(rest);
            image.modules.push_back({std::move(name), microseconds, take_number(rest)});
        }
    }
    return image;
}

}  // namespace

std::string learned_folder() {
    return state_home() + "/warmfork/learned";
}

std::map<std::string, LearnedImage, std::less<>> read_learned(const std::string& folder) {
    std::map<std::string, LearnedImage, std::less<>> images;
    std::map<std::string, fs::file_time_type> times;
    std::error_code error;
    for (fs::directory_iterator entry(folder, error), end; !error && entry != end;
         entry.increment(error)) {
        const fs::path path = entry->path() / "image";
        std::error_code unknown;
        if (!fs::is_regular_file(path, unknown) || !distrust(path).empty()) continue;
        const fs::file_time_type time = fs::last_write_time(path, unknown);
        std::ifstream file(path);
        std::string name;
        if (unknown || !std::getline(file, name)) continue;
        // An interpreter that was upgraded has another folder.
        if (const auto known = times.find(name); known != times.end() && known->second > time)
            continue;
        times[name] = time;
        images[name] = read_image(file);
        images[name].folder = entry->path();
    }
    return images;
}

Reports reports_of(const LearnedImage& image) {
    const std::string path = image.folder + "/children";
    if (!distrust(path).empty()) return Reports::none;
    std::ifstream file(path);
    Reports reports = Reports::none;
    for (std::string line; std::getline(file, line); reports = Reports::empty)
        if (!line.empty()) return Reports::some;
    return file.bad() ? Reports::none : reports;
}

}  // namespace warmfork::service
