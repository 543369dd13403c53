// The shared library is made of whole archives; CMake wants it to have a source of its own.
