#define PY_SSIZE_T_CLEAN
#define Py_LIMITED_API 0x03090000
#include "python/departure.hpp"

#include <dlfcn.h>
#include <signal.h>

#include <array>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <new>
#include <optional>
#include <string>
#include <unordered_set>
#include <utility>
#include <vector>

#include "python/frozen_image.hpp"
#include "python/python_objects.hpp"

namespace warmfork::python {
namespace {

/// Py_AtExit takes so many, in all versions.
constexpr int kMostExitFunctions = 32;

// An object that ends may hang something on the image, which ends in the next round.
constexpr int kMostRounds = 8;

// sys.ps2 is among what is taken out first, and nobody has it but an interactive interpreter.
constexpr const char* kPlace = "ps2";
constexpr std::array kTakenOutLater = {
    "last_type",           "last_value", "last_traceback",     "path_hooks",
    "path_importer_cache", "meta_path",  "__interactivehook__"};

struct Ending {
    int status;
    bool interrupted;
};

// What `finalize_and_exit` was asked for.
std::optional<Ending> wanted;

DeparturePlan plan;

PyObject *builtin_names, *first_builtins, *collect_function;

// Called where CPython is to go on after all.
void (*leave_to_python)();

/// The size of a dictionary behind what each object begins with, or 0 where what we know of it is
/// wrong.
std::size_t size_of_dictionary = 0;

[[noreturn]] void end_process(Ending ending) {
    if (ending.interrupted) {
        ::signal(SIGINT, SIG_DFL);
        ::raise(SIGINT);
        ending.status = 128 + SIGINT;
    }
    std::exit(ending.status);
}

/// Gives each what the other holds, without writing to any of that.
void swap_contents(PyObject* dictionary, PyObject* other) {
    std::byte kept[256];
    const auto contents = [](PyObject* object) {
        return reinterpret_cast<std::byte*>(object) + sizeof(PyObject);
    };
    std::memcpy(kept, contents(dictionary), size_of_dictionary);
    std::memcpy(contents(dictionary), contents(other), size_of_dictionary);
    std::memcpy(contents(other), kept, size_of_dictionary);
}

/// Does `swap_contents` do what it says?
bool try_swap() {
    const Reference size(
        PyObject_GetAttrString(reinterpret_cast<PyObject*>(&PyDict_Type), "__basicsize__"));
    const Reference one(Py_BuildValue("{s:i}", "one", 1)), none(PyDict_New());
    if (!size || !one || !none) return false;
    const std::size_t whole = PyLong_AsSize_t(size.get());
    if (whole <= sizeof(PyObject) || whole - sizeof(PyObject) > 256) return true;
    size_of_dictionary = whole - sizeof(PyObject);
    swap_contents(one.get(), none.get());
    if (PyDict_Size(one.get()) != 0 || !PyDict_GetItemString(none.get(), "one"))
        size_of_dictionary = 0;
    return true;
}

bool can_end_objects() {
    return size_of_dictionary != 0 && PyDict_CheckExact(first_builtins);
}

bool flushes(const char* name) {
    PyObject* stream = PySys_GetObject(name);  // borrowed
    if (!stream || stream == Py_None) return true;
    const Reference closed(PyObject_GetAttrString(stream, "closed"));
    if (closed && PyObject_IsTrue(closed.get()) == 1) return true;
    return bool(Reference(PyObject_CallMethod(stream, "flush", nullptr)));
}

/// Flushes stdout and stderr. What cannot be written is left, and not reported.
bool flush_streams() {
    const bool first = flushes("stdout");
    PyErr_Clear();
    const bool second = flushes("stderr");
    PyErr_Clear();
    return first && second;
}

/// Takes all places for functions that are called when the interpreter is gone. Returns whether
/// some were taken already: nobody else tells that there are such functions.
bool fill_exit_functions() {
    int added = 0;
    while (added < kMostExitFunctions && Py_AtExit([]() noexcept {}) == 0) ++added;
    return added < kMostExitFunctions;
}

/// Do the module and its dictionary end when it is taken out of sys.modules, so that code of the
/// program may run just then?
bool ends_at_once(PyObject* module) {
    const auto has_one_reference = [](PyObject* object) {
        return static_cast<std::uint32_t>(Py_REFCNT(object)) == 1;
    };
    return has_one_reference(module) && has_one_reference(PyModule_GetDict(module));
}

/// sys.modules while the program's are taken out of it.
class Modules {
  public:
    Modules() {
        const ImageSearch search;
        for_each([&](PyObject* name, PyObject* module) {
            if (!search.is_own(module)) {
                of_image_.insert(module);
            } else if (!PyModule_Check(module)) {
                Py_INCREF(name);
                no_modules_.push_back(name);
            }
        });
    }

    /// Takes them out in their order. Those of the image stay alive, but are not in there any more
    /// either where code of the program may look. In the end it is empty.
    void take_out() {
        std::vector<Entry> seen;
        for_each([&](PyObject* name, PyObject* module) {
            if (!PyModule_Check(module)) return;
            if (of_image_.contains(module)) {
                seen.emplace_back(name, module);
                return;
            }
            if (ends_at_once(module))
                for (const auto& [other, of_image] : std::exchange(seen, {})) hide(other, of_image);
            Py_INCREF(name);
            own_.emplace_back(name, PyWeakref_NewRef(module, nullptr));
            take_out(name);
        });
        all_ = PyDict_New();
        if (all_) swap_contents(modules_, all_);
        for (PyObject* name : no_modules_)
            if (all_) PyDict_DelItem(all_, name);
        PyErr_Clear();
    }

    /// Puts all back as it was, for CPython, which goes on.
    void put_back() {
        if (!all_) return;
        swap_contents(modules_, all_);
        PyDict_Update(modules_, all_);  // what code of the program has put in since
        for (const auto& [name, module] : hidden_) PyDict_SetItem(modules_, name, module);
        for (const auto& [name, reference] : own_)
            if (PyObject* module = reference ? PyWeakref_GetObject(reference) : Py_None;
                module != Py_None)
                PyDict_SetItem(modules_, name, module);
        for (const auto& [name, module] : hidden_) Py_DECREF(module);
        PyErr_Clear();
    }

  private:
    using Entry = std::pair<PyObject*, PyObject*>;

    template <typename Visit>
    void for_each(Visit visit) {
        PyObject *name, *module;
        for (Py_ssize_t position = 0; PyDict_Next(modules_, &position, &name, &module);)
            visit(name, module);
    }

    void hide(PyObject* name, PyObject* module) {
        Py_INCREF(name);
        Py_INCREF(module);
        hidden_.emplace_back(name, module);
        take_out(name);
    }

    void take_out(PyObject* name) {
        if (PyDict_SetItem(modules_, name, Py_None) < 0) PyErr_WriteUnraisable(nullptr);
    }

    PyObject* modules_ = PyImport_GetModuleDict();  // borrowed
    PyObject* all_ = nullptr;
    std::unordered_set<const PyObject*> of_image_;
    // Nobody gives these references back: soon there is no interpreter.
    std::vector<Entry> hidden_;
    std::vector<Entry> own_;  ///< weak ones to modules
    /// The program's objects in there that are no modules: CPython leaves them to the end.
    std::vector<PyObject*> no_modules_;
};

/// Takes out of sys what finalize_modules of CPython takes out behind `kPlace`.
void take_out_of_sys() {
    for (const char* name : kTakenOutLater) PySys_SetObject(name, Py_None);
    if (PySys_GetObject("last_exc")) PySys_SetObject("last_exc", Py_None);
    for (const char* name : {"stdin", "stdout", "stderr"}) {
        PyObject* first = PySys_GetObject(("__" + std::string(name) + "__").c_str());  // borrowed
        PySys_SetObject(name, first ? first : Py_None);
    }
    PyErr_Clear();
}

void collect() {
    static_cast<void>(Reference(PyObject_CallObject(collect_function, nullptr)));
    PyErr_Clear();
}

/// Ends what hangs on the image as well, in as many rounds as it takes. Returns whether that is
/// all.
bool end_what_hangs() {
    for (int round = 0; round < kMostRounds; ++round) {
        if (round > 0) collect();  // what has been let go of may refer to itself
        std::vector<Reference> holders;
        {
            ImageSearch search;
            if (!search.find_holders()) return false;
            if (search.holders().empty())
                return !search.finds_remaining_end() && !search.finds_remaining_function();
            for (PyObject* holder : search.holders()) {
                Py_INCREF(holder);
                holders.emplace_back(holder);
            }
        }
        for (const Reference& holder : holders)
            if (!ImageSearch::clear(holder.get())) return false;
    }
    return false;
}

/// This is outside of the stable ABI.
using CallFinalizer = void (*)(PyObject*);

/// Calls finalizers of objects of the image, of which nothing is freed. In CPython the collection
/// that follows calls them, before those of younger objects.
bool call_finalizers(const std::vector<Reference>& objects) {
    const auto call =
        reinterpret_cast<CallFinalizer>(::dlsym(RTLD_DEFAULT, "PyObject_CallFinalizer"));
    if (!call) return objects.empty();
    for (const Reference& object : objects) call(object.get());
    return true;
}

/// Keeps objects whose finalizers are called when the search is over.
void keep_finalizers(const ImageSearch& search, std::vector<Reference>& ret_objects) {
    for (PyObject* object : search.finalizers_of_image()) {
        Py_INCREF(object);
        ret_objects.emplace_back(object);
    }
}

/// Finds the image's objects that have a finalizer. Returns false where it has another end as well.
bool find_finalizers_of_image(std::vector<Reference>& ret_objects) try {
    ImageSearch search;
    if (search.of_image(true) == Ends::of_any_kind) return false;
    keep_finalizers(search, ret_objects);
    return true;
} catch (const std::bad_alloc&) {
    return false;
}

/// Calls also those of what hangs on the image, in their place among the others.
bool call_finalizers_of_program() {
    std::vector<Reference> objects;
    for (PyObject* object : ImageSearch().finalizers_of_program()) {
        Py_INCREF(object);
        objects.emplace_back(object);
    }
    return call_finalizers(objects);
}

/// Brings what the program has of its own to its end, in the order in which CPython does. Returns
/// whether that is all.
bool end_own_objects(Modules& modules, const std::vector<Reference>& finalizers_of_image) try {
    take_out_of_sys();
    modules.take_out();
    swap_contents(builtin_names, first_builtins);
    if (!call_finalizers(finalizers_of_image)) return false;
    if (plan.of_image == Ends::of_finalizers && !call_finalizers_of_program()) return false;
    collect();
    if (plan.of_image != Ends::none || plan.of_program == Ends::of_any_kind ||
        plan.image_has_finalizers)
        return end_what_hangs();
    return !ImageSearch().finds_remaining_end();
} catch (const std::bad_alloc&) {
    return false;
}

/// Plans again where code of the program has run since. Returns false where that has hung something
/// new on the image, or the image is held by what nobody knows, so that its finalizers are called
/// at another time.
bool plan_again(std::vector<Reference>& finalizers_of_image) try {
    ImageSearch search;
    if (search.of_image(true) > plan.of_image) return false;
    plan.of_program = search.of_program();
    plan.image_has_finalizers = !search.finalizers_of_image().empty();
    if (!plan.image_has_finalizers) return true;
    if (search.is_held_elsewhere()) return false;
    keep_finalizers(search, finalizers_of_image);
    return true;
} catch (const std::bad_alloc&) {
    return false;
}

/// Ends the process, or returns where CPython has to go on.
void depart() {
    if (fill_exit_functions()) return leave_to_python();
    if (!plan.is_last && !flush_streams()) wanted->status = kFlushFailedStatus;
    std::vector<Reference> finalizers_of_image;
    if ((!plan.is_last || plan.of_image == Ends::of_finalizers ||
         plan.of_program == Ends::of_any_kind || plan.image_has_finalizers) &&
        !plan_again(finalizers_of_image))
        return leave_to_python();
    if (plan.ends_objects()) {
        Modules modules;
        if (!end_own_objects(modules, finalizers_of_image)) {
            modules.put_back();
            return leave_to_python();
        }
    }
    flush_streams();
    end_process(*wanted);
}

void begin(PyObject*) {
    // Somebody may also have looked for it, and thrown it away.
    if (!Py_IsInitialized()) depart();
}

}  // namespace

void finalize_and_exit(int status, bool interrupted) {
    wanted = Ending{status, interrupted};
    if (Py_FinalizeEx() < 0) wanted->status = kFlushFailedStatus;
    end_process(*wanted);
}

void finalize_template_and_exit(int status) {
    static_cast<void>(
        Reference(PyObject_CallMethod(PyImport_AddModule("atexit"), "_run_exitfuncs", nullptr)));
    PyErr_Clear();  // it has told of them
    std::vector<Reference> finalizers_of_image;
    if (!can_search_image() || !find_finalizers_of_image(finalizers_of_image) ||
        !call_finalizers(finalizers_of_image))
        finalize_and_exit(status, false);
    flush_streams();
    end_process({status, false});
}

bool prepare_departures(PyObject* builtins_at_start, PyObject* collect, void (*before_python)()) {
    leave_to_python = before_python;
    keep_until_finalized(first_builtins = builtins_at_start);
    keep_until_finalized(collect_function = collect);
    builtin_names = PyModule_GetDict(PyImport_AddModule("builtins"));
    // These are kept, so that taking them out frees nothing.
    for (const char* name : {"path_hooks", "path_importer_cache", "meta_path"})
        if (PyObject* object = PySys_GetObject(name)) keep_until_finalized(object);
    return try_swap();
}

bool plan_departure(const DeparturePlan& found) {
    plan = found;
    if (!wanted || PySys_GetObject(kPlace) ||
        ((!plan.is_last || plan.ends_objects()) && !can_end_objects()) ||
        (plan.is_last && !flush_streams()))
        return false;
    // It is there for its destructor.
    const Reference word(PyCapsule_New(&plan, nullptr, begin));
    return word && PySys_SetObject(kPlace, word.get()) == 0;
}

}  // namespace warmfork::python
