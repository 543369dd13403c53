// What libc and the loader read by themselves, by no call that could be recorded.
#pragma once

#include "template/image_facts.hpp"

namespace warmfork {

/// Adds them to the sources of the image, and those that are not there to what was looked for:
/// the time zone, the loader's configuration and cache, locales, character sets, and every place in
/// which the loader would have found a library before it found the one that is loaded.
void add_loader_files(ImageFacts& facts);

}  // namespace warmfork
