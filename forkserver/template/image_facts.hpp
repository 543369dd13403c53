// What an image was made from, so that its owner can tell whom it fits, and when it is out of date.
#pragma once

#include <cstdint>
#include <map>
#include <set>
#include <string>

#include "protocol/files.hpp"
#include "template/file_stamp.hpp"

namespace warmfork {

/// A directory whose names were read, as they were then.
struct Listing {
    std::uint32_t listed = 0;  ///< what for: kListedNames and the like
    ListingDigest digest;
};

struct ImageFacts {
    std::set<std::string> variables;  ///< of the environment, read while preloading
    bool reads_all_variables = false;
    /// What a file beside the script would replace: "name=its own file", "name/000=directory of a
    /// namespace package". And what a child in another directory has otherwise: "./name=file",
    /// opened or looked for by that relative path; ".module=directory", which the module keeps.
    std::set<std::string> shadowable;
    /// Files that were opened for reading or asked about, as they were then.
    std::map<std::string, FileStamp> opened;
    std::map<std::string, Listing> listings;
    /// Files that were looked for and were not there.
    std::set<std::string> absent;
    /// Mapped files, and what modules were made from.
    std::set<std::string> sources;
    /// Files that whoever comes first compiles from the sources: perhaps this process, and perhaps
    /// they are not there.
    std::set<std::string> caches;
    bool has_all_files = true;
    bool has_memory = true;  ///< false: there was none to note what is read
    /// When this process began to take files in, as below; 0: when it was started.
    std::int64_t began = 0;
    /// Where modules are looked for, and the names of those that were found there or further on: a
    /// new file of that name would be found first.
    std::map<std::string, std::set<std::string>> places;
};

}  // namespace warmfork
