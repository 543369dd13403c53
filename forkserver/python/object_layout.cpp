#include "python/object_layout.hpp"

#include <algorithm>
#include <cstring>

#include "python/python_objects.hpp"

namespace warmfork::python {
namespace {

// The size of what the collector has in front of each object.
constexpr std::size_t kHeadSize = 2 * sizeof(void*);

// Where struct PyListObject has ob_item and PySetObject has table, in all versions that we know.
constexpr std::size_t kListTable = 3 * sizeof(void*), kSetTable = 5 * sizeof(void*);
// A dictionary keeps the address of its values here if its keys are those of others as well; else
// null.
constexpr std::size_t kDictionaryValues = 5 * sizeof(void*);

constexpr long kFirstUnknownVersion = 0x030f0000;

// What objects of classes of Python code have in front of them, head included. The values of their
// attributes lie behind them, since 3.13, or somewhere else: up to 30 pointers and some bytes,
// which lie partly in front of them.
constexpr std::size_t kAttributesBefore = 4 * sizeof(void*), kMostAttributes = 40 * sizeof(void*);
constexpr unsigned long kHasManagedAttributes = 1ul << 4;  // Py_TPFLAGS_MANAGED_DICT, since 3.11

// All of a page can be read if some of it can.
constexpr std::uintptr_t kSmallestPage = 4096;

// How far apart references are that an object names one after the other.
constexpr std::ptrdiff_t kNear = 64;

template <typename Value>
Value value_at(std::uintptr_t address) {
    Value value;
    std::memcpy(&value, reinterpret_cast<const void*>(address), sizeof value);
    return value;
}

/// Returns a size that the type has as an attribute, or 0 where it cannot be asked.
std::size_t size_attribute(PyTypeObject* type, const char* name) {
    // This does not ask a metaclass, whose code is somebody else's.
    const Reference key(PyUnicode_FromString(name));
    const Reference size(key ? PyObject_GenericGetAttr(reinterpret_cast<PyObject*>(type), key.get())
                             : nullptr);
    const std::size_t value = size ? PyLong_AsSize_t(size.get()) : 0;
    const bool is_known = !PyErr_Occurred();
    PyErr_Clear();
    return is_known ? value : 0;
}

/// Returns its size as its type counts it, without its head, or 0 where it cannot be asked.
std::size_t whole_size(PyObject* object) {
    const Reference size(PyObject_CallMethod(object, "__sizeof__", nullptr));
    const std::size_t value = size ? PyLong_AsSize_t(size.get()) : 0;
    const bool is_known = !PyErr_Occurred();
    PyErr_Clear();
    return is_known ? value : 0;
}

/// Returns where the values of its attributes are, or 0 where they are in its dictionary, or in the
/// object.
std::uintptr_t values_elsewhere(PyObject* object) {
    static const bool is_3_11 = is_version_from(0x030b0000) && !is_version_from(0x030c0000);
    static const bool is_3_12 = is_version_from(0x030c0000) && !is_version_from(0x030d0000);
    if (!(PyType_GetFlags(Py_TYPE(object)) & kHasManagedAttributes)) return 0;
    const auto address = reinterpret_cast<std::uintptr_t>(object);
    if (is_3_11) return value_at<std::uintptr_t>(address - 4 * sizeof(void*));
    const auto tagged = is_3_12 ? value_at<std::uintptr_t>(address - 3 * sizeof(void*)) : 0;
    return tagged & 1 ? tagged - 1 : 0;
}

/// Returns what can be read of a part that is larger than it need be, given that all between these
/// two addresses can.
Extent readable(const Extent& part, std::uintptr_t first, std::uintptr_t last) {
    const std::uintptr_t begin = std::max(part.address, first / kSmallestPage * kSmallestPage);
    const std::uintptr_t end =
        std::min(part.address + part.size, (last / kSmallestPage + 1) * kSmallestPage);
    return {begin, end - begin};
}

/// Words of memory, in which one is looked for that is likely to be near the last one.
class Words {
  public:
    explicit Words(const Extent& part)
        : first_(reinterpret_cast<const void* const*>(part.address)),
          count_(static_cast<std::ptrdiff_t>(part.size / sizeof(void*))),
          // In objects of usual size every word may be looked at once for each; in others they have
          // to be in order.
          steps_left_(16 * count_ + 4096) {}

    bool find(const void* word) {
        return find_between(word, last_ - kNear, last_ + kNear) || find_between(word, 0, count_);
    }

  private:
    bool find_between(const void* word, std::ptrdiff_t begin, std::ptrdiff_t end) {
        begin = std::max<std::ptrdiff_t>(begin, 0);
        end = std::min(end, count_);
        for (std::ptrdiff_t i = begin; i < end && steps_left_ > 0; ++i, --steps_left_)
            if (first_[i] == word) return last_ = i, true;
        return false;
    }

    const void* const* first_;
    std::ptrdiff_t count_, steps_left_;
    std::ptrdiff_t last_ = 0;
};

}  // namespace

void ObjectLayouts::know(PyObject* fixed, PyObject* in_one_piece, PyObject* of_python) {
    const auto types_in = [](PyObject* list) {
        std::unordered_set<PyTypeObject*> types;
        for (Py_ssize_t i = 0; i < PyList_Size(list); ++i)
            types.insert(reinterpret_cast<PyTypeObject*>(PyList_GetItem(list, i)));
        return types;
    };
    fixed_ = types_in(fixed);
    in_one_piece_ = types_in(in_one_piece);
    python_dealloc_ = PyType_GetSlot(reinterpret_cast<PyTypeObject*>(of_python), Py_tp_dealloc);
    python_traverse_ = PyType_GetSlot(reinterpret_cast<PyTypeObject*>(of_python), Py_tp_traverse);
    is_known_version_ = !is_version_from(kFirstUnknownVersion);
    layouts_.clear();
}

const std::vector<Extent>* ObjectLayouts::parts_of(PyObject* object,
                                                   std::span<const PyObject* const> referents) {
    parts_.clear();
    readable_.clear();
    const Layout& layout = layout_of(Py_TYPE(object));
    if (layout.kind == Kind::fixed) return &parts_;
    if (layout.kind == Kind::unknown || !find_parts(object, layout) || !hold(referents))
        return nullptr;
    return &parts_;
}

const ObjectLayouts::Layout& ObjectLayouts::layout_of(PyTypeObject* type) {
    const auto [found, is_new] = layouts_.try_emplace(type);
    if (is_new && is_known_version_) found->second = find_layout(type);
    return found->second;
}

/// Do its objects end, and tell what they refer to, as those of any class of Python code?
bool ObjectLayouts::is_of_python(PyTypeObject* type) const {
    return PyType_GetSlot(type, Py_tp_dealloc) == python_dealloc_ &&
           PyType_GetSlot(type, Py_tp_traverse) == python_traverse_;
}

ObjectLayouts::Kind ObjectLayouts::kind_of(PyTypeObject* type) const {
    if (fixed_.contains(type)) return Kind::fixed;
    if (in_one_piece_.contains(type)) return Kind::in_one_piece;
    if (type == &PyList_Type || type == &PyDict_Type || type == &PySet_Type)
        return Kind::with_table;
    PyTypeObject* base = type;
    while (is_of_python(base)) base = static_cast<PyTypeObject*>(PyType_GetSlot(base, Py_tp_base));
    if (base == &PyType_Type) return Kind::in_one_piece;
    const bool is_plain = base == &PyBaseObject_Type || base == &PyUnicode_Type ||
                          base == &PyTuple_Type || base == &PyFloat_Type;
    return is_plain && base != type ? Kind::with_attributes : Kind::unknown;
}

ObjectLayouts::Layout ObjectLayouts::find_layout(PyTypeObject* type) const {
    Layout layout;
    layout.kind = kind_of(type);
    if (layout.kind == Kind::unknown || layout.kind == Kind::fixed) return layout;
    if (type == &PyList_Type) layout.table = kListTable;
    if (type == &PyDict_Type) layout.table = kDictionaryTable;
    if (type == &PySet_Type) layout.table = kSetTable;
    layout.size = size_attribute(type, "__basicsize__");
    layout.item_size = size_attribute(type, "__itemsize__");
    if (layout.size < layout.table + sizeof(void*)) layout.kind = Kind::unknown;
    return layout;
}

/// Returns false where we do not know them.
bool ObjectLayouts::find_parts(PyObject* object, const Layout& layout) {
    const auto address = reinterpret_cast<std::uintptr_t>(object);
    std::size_t size = layout.size;
    if (layout.item_size)
        size += layout.item_size *
                static_cast<std::size_t>(std::abs(reinterpret_cast<PyVarObject*>(object)->ob_size));
    if (layout.kind == Kind::with_attributes) {
        parts_.push_back({address - kAttributesBefore, kAttributesBefore + size + kMostAttributes});
        readable_.push_back(readable(parts_[0], address - kHeadSize, address + size - 1));
        if (const auto values = values_elsewhere(object)) {
            parts_.push_back({values - kMostAttributes / 4, kMostAttributes + kMostAttributes / 4});
            readable_.push_back(readable(parts_[1], values, values));
        }
        return true;
    }
    parts_.push_back({address - kHeadSize, kHeadSize + size});
    if (layout.kind == Kind::with_table) {
        if (PyDict_CheckExact(object) && value_at<void*>(address + kDictionaryValues)) return false;
        const std::size_t whole = whole_size(object);
        if (whole < size) return false;
        if (whole > size)
            parts_.push_back({value_at<std::uintptr_t>(address + layout.table), whole - size});
    }
    readable_ = parts_;
    return true;
}

/// Do all of them lie in these parts?
bool ObjectLayouts::hold(std::span<const PyObject* const> referents) const {
    // Some objects name their type, which lies in front.
    std::vector<Words> words(readable_.begin(), readable_.end());
    return std::all_of(referents.begin(), referents.end(), [&](const PyObject* referent) {
        return std::any_of(words.rbegin(), words.rend(),
                           [&](Words& part) { return part.find(referent); });
    });
}

}  // namespace warmfork::python
