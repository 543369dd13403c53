"""The modules and programs that test_finalization runs cold and warm."""

# The module that is preloaded.
STORE = """\
import contextvars
import datetime
import functools
import sys
import threading
import weakref

class Class:
    def method(self):
        return self

def function():
    return function

kept = {}
values = [1.5]
pair = (kept, values)
named = Class()
named.itself = named
cached = functools.lru_cache(maxsize=4)(lambda key: open(key, "w"))
slot = Class()
empty = {}
out = sys.stdout
local = threading.local()
variable = contextvars.ContextVar("variable")
def generate():
    try:
        yield 1
    finally:
        kept.clear()
        print("generator left")
idle = generate()
class Lazy:
    def __del__(self):
        import json
        print(json.dumps("lazy"))
weak = weakref.WeakValueDictionary(slot=slot)
holding = Class()
holding.value = 1
members = {1}
long = [None] * 100_000
wide = dict.fromkeys(range(50_000))
large = (kept,) * 50_000
parts = [[number] for number in range(2_000)]
"""

# Forbids the process to open any more files; one that tries to is killed.
FORBIDDING = """
import ctypes, platform, struct
number = {"x86_64": 257, "aarch64": 56}[platform.machine()]
code = [(0x20, 0, 0, 0), (0x15, 0, 1, number), (6, 0, 0, 0x80000000), (6, 0, 0, 0x7fff0000)]
code = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *instruction) for instruction in code))
filter = ctypes.create_string_buffer(struct.pack("HxxxxxxP", 4, ctypes.addressof(code)))
libc = ctypes.CDLL(None)
assert libc.prctl(38, 1, 0, 0, 0) == 0
assert %s == 0
"""

# A process that the program has forked, and that ends after it.
FORKED = """
read_end, write_end = os.pipe()
if os.fork() == 0:
    os.close(write_end)
    os.read(read_end, 1)
    os._exit(0)
"""

# What the programs begin with.
BEGIN = """\
import os, sys
import store

class Loud:
    def __init__(self, name):
        self.name = name
    def __del__(self):
        os.write(1, b"end of %s\\n" % self.name.encode())

def written(name):
    file = open(name, "w")
    file.write("buffered in " + name)
    return file

"""

# A class whose objects tell at their end what a program would find there.
LOOKING = """
class Look:
    def __del__(self):
        found = [name for name in ("sys", "io", "json", "__main__", "beside", "store") if sys.modules.get(name)]
        names = __builtins__ if isinstance(__builtins__, dict) else vars(__builtins__)
        have = [name for name in ("open", "print", "exit", "own", "_") if names.get(name)]
        os.write(1, repr((found, have, sys.path, sys.meta_path, sys.is_finalizing())).encode())
"""

# Objects of the image go, but for one in their midst, and the program's own take their places in the same order.
TAKING = """
for index in (1_006, 1_005, 1_004, 1_002, 1_001, 1_000):
    store.parts[index] = None
own = [[] for _ in range(5)]
"""

# What ends in them nobody can see, though it is by code in C, or of the standard library's.
QUIET_PROGRAMS = {
    "quiet_abstract_class": "import collections.abc\nclass New: pass\nisinstance(New(), collections.abc.Sized); isinstance([], collections.abc.Sized)",
    "quiet_thread_local": "store.local.value = 1",
    "quiet_text_in_memory": "import io; store.kept[1] = io.StringIO('text'); text = io.BytesIO(b'bytes')",
    "quiet_stream_of_its_own": "import io\nclass Own(io.StringIO):\n    def write(self, text): pass\nstore.kept[1] = Own('text')",
    "quiet_times": "store.kept[1] = datetime = __import__('datetime'); store.kept[2] = datetime.timedelta(1), datetime.datetime.now(datetime.timezone.utc)",
    "quiet_context": "store.variable.set([1])",
    "quiet_ctypes": "import ctypes\nclass Pair(ctypes.Structure): _fields_ = [('one', ctypes.c_int), ('two', ctypes.c_void_p)]\nstore.kept[1] = Pair, Pair(1), ctypes.POINTER(Pair)",
    "quiet_modules": "import unicodedata, zlib, csv, pickle, decimal; store.kept[1] = [unicodedata, zlib.compressobj(), csv.reader([]), decimal.getcontext()]",
    "quiet_method": "import re; store.kept[1] = re.compile('a').match",
    "quiet_stream": "class Wrapper:\n    def __init__(self, stream): self.stream = stream\n    def __getattr__(self, name): return getattr(self.stream, name)\nsys.stdout = Wrapper(sys.stdout); print('wrapped')",
}

PROGRAMS = {
    **QUIET_PROGRAMS,
    "nothing": "",
    "objects": "class A(store.Class): pass\na = A(); store.kept[1] = [a, {2: A.method}]; store.values.append(A); store.weak['a'] = a",
    "file_in_dictionary": "store.kept['file'] = written('a')",
    "file_in_list": "store.values[0] = written('a')",
    "file_on_class": "store.Class.file = written('a')",
    "file_on_function": "store.function.file = written('a')",
    "file_on_instance_in_cycle": "store.named.file = written('a')",
    "file_as_module_attribute": "store.file = written('a')",
    "file_as_default": "store.function.__defaults__ = (written('a'),)",
    "file_in_cache": "store.cached('a').write('x')",
    "file_two_steps_away": "store.kept[1] = [{2: (3, written('a'))}]",
    "file_in_closure": "def make(file): return lambda: file\nstore.Class.call = make(written('a'))",
    "file_in_subclass": "class Sub(store.Class): file = written('a')\nstore.kept['class'] = Sub",
    "file_in_traceback": "try: 1/0\nexcept ZeroDivisionError as e: file = written('a'); store.kept['e'] = e",
    "file_in_main": "file = written('a')",
    "file_in_main_and_cycle": "file = written('a')\ndef function(): return file",
    "function_of_main_kept": "file = written('a')\ndef function(): return file\nstore.kept['f'] = function",
    "several": "store.one, store.Class.two, store.kept[3] = written('a'), written('b'), written('c')",
    "loud_in_dictionary": "store.kept['loud'] = Loud('kept')",
    "loud_at_the_address_of_another": "del store.slot\nstore.slot = Loud('slot')",
    "del_added_to_class": "store.Class.__del__ = lambda self: os.write(1, b'added')",
    "class_changed": "store.named.name = 'changed'; store.named.__class__ = Loud",
    "file_in_thread_local": "store.local.file = written('a')",
    "file_in_context_variable": "store.variable.set(written('a'))",
    "loud_in_builtins": "import builtins; builtins.loud = Loud('builtins')",
    "loud_in_sys": "sys.loud = Loud('sys')",
    "loud_as_module": "sys.modules['loud'] = Loud('module')",
    "opens_a_file_where_it_stands_for_a_module": "class L:\n    def __del__(self):\n        with open('a', 'w') as file: file.write('late')\nsys.modules['l'] = L()",
    "loud_on_import_path": "sys.meta_path.append(Loud('finder'))",
    "loud_as_signal_handler": "import signal; loud = Loud('handler'); signal.signal(signal.SIGUSR1, lambda *_: loud)",
    "loud_as_exit_handler": "import atexit; atexit.register(Loud('handler').__init__, 'called')",
    "loud_as_hook": "sys.excepthook = Loud('hook')",
    "loud_in_warning_filter": "import warnings; warnings.filters.append(('ignore', None, Loud, 'x', 0)); warnings.loud = Loud('warnings')",
    "keyboard_interrupt": "store.kept[1] = Loud('interrupted'); raise KeyboardInterrupt",
    "exit_in_exit_handler": "import atexit; atexit.register(sys.exit, 3); store.kept[1] = Loud('x')",
    "printed_at_the_end": "class P:\n    def __del__(self): print('bye', end='')\np = P()",
    "printed_at_the_end_to_stderr": "class P:\n    def __del__(self): sys.stderr.write('bye')\np = P(); store.err = sys.stderr",
    "time_zone": "import datetime\nclass Zone(datetime.tzinfo):\n    def utcoffset(self, when): return datetime.timedelta(0)\nZone.file = written('a'); store.stamp = datetime.datetime.now(Zone())",
    "subclass_of_number": "class N(int): __slots__ = ()\nN.file = written('a'); store.number = N(5)",
    "import_in_garbage": "class L:\n    def __del__(self):\n        import json; print(json.dumps([1]))\nl = L(); l.l = l; del l",
    "codec_in_garbage": "class L:\n    def __del__(self):\n        with open('a', 'w', encoding='utf-16') as f: f.write('x')\nl = L(); l.l = l; del l",
    "hung_on_by_garbage": "class L:\n    def __del__(self): store.Class.file = written('a')\nl = L(); l.l = l; del l",
    "callbacks_of_the_collector": "import gc\ndef f(phase, info):\n    import json; os.write(1, phase.encode())\ngc.callbacks.append(f)",
    "hung_on_late": "class L:\n    def __del__(self): store.kept['f'] = f = open('a', 'w'); f.write('late')\nimport io; open = io.open; l = L()",
    "hung_on_by_a_suspended_generator": "import io\ndef g():\n    try: yield\n    finally: store.kept['f'] = f = io.open('a', 'w'); f.write('late')\ng = g(); next(g)",
    "hung_on_by_a_callback_of_the_collector": "import gc\ndef f(phase, info):\n    if 'f' not in store.kept: store.kept['f'] = written('a')\ngc.callbacks.append(f)",
    "callbacks_cleared_by_garbage": "import gc\nclass L:\n    def __del__(self): gc.callbacks.clear(); print('z')\nl = L(); l.l = l; del l\nclass M:\n    def __del__(self): print('m')\nm = M()",
    "printed_by_a_context_variable": "import contextvars\nclass L:\n    def __del__(self, o=sys.stdout): o.write('late')\nv = contextvars.ContextVar('v'); v.set(L())",
    "printed_by_a_weak_reference": "import weakref; it = store.Class(); reference = weakref.ref(it, lambda r: print('gone'))",
    "import_by_an_object_of_a_class_of_the_image": "lazy = store.Lazy()",
    "resource_warning": "import warnings, socket; warnings.simplefilter('always'); s = socket.socket()",
    "never_awaited": "async def f(): pass\nf = f()",
    "module_by_another_name": "sys.modules[None] = sys.modules[b'x'] = store",
    "no_collector": "import gc; gc.disable(); store.kept[1] = Loud('x')",
    "no_collector_nothing": "import gc; gc.disable(); loud = Loud('x')",
    "dictionary_at_the_address_of_another": "file = Loud('x'); store.empty = None; store.empty = {'a': 1}; store.empty['b'] = file; del file",
    "constants_of_code": "f = store.function; f.__code__ = f.__code__.replace(co_consts=(None, Loud('constant')))",
    "no_unfreeze": "import gc; gc.unfreeze = gc.callbacks = None; store.Class.file = written('a')",
    "memory_limit": "import resource\nobjects = [[] for _ in range(5000)]; file = written('a'); size = int(open('/proc/self/statm').read().split()[0]) * 4096\nresource.setrlimit(resource.RLIMIT_AS, (size, size))",
    "loud_deep_in_tuples": "nested = (Loud('deep'),)\nfor _ in range(200_000): nested = (nested,)\nstore.kept[1] = nested",
    "deep_tuples": "import gc\nnested = ()\nfor _ in range(200_000): nested = (nested, 1)\ngc.collect(); store.kept[1] = nested",
    "loud_beside_many": "store.many = [[] for _ in range(200_000)]; store.kept[1] = Loud('many')",
    "loud_in_main": "loud = Loud('main')",
    "loud_in_cycle": "loud = Loud('cycle'); loud.loud = loud; del loud",
    "loud_in_removed_module": "store.loud = Loud('removed'); del sys.modules['store'], store",
    "loud_generator": "def g():\n    try: yield\n    finally: os.write(1, b'left')\nstore.g = g(); next(store.g)",
    "loud_generator_that_has_what_is_held_has": "import codecs; codecs.new = 1\ndef f(given=()):\n    try: yield\n    finally: os.write(1, b'left')\nstore.g = f(); next(store.g)",
    "loud_coroutine": "class A:\n    def __await__(self): yield\nasync def f():\n    try: await A()\n    finally: os.write(1, b'left')\nstore.c = f(); store.c.send(None)",
    "loud_stream_in_memory": "import io\nclass Own(io.StringIO):\n    def close(self): os.write(1, b'closed'); super().close()\nstore.kept[1] = Own('text')",
    "loud_asked_stream_in_memory": "import io\nclass Own(io.BytesIO):\n    closed = property(lambda self: os.write(1, b'asked'))\nstore.kept[1] = Own(b'text')",
    "loud_on_a_module_that_sys_keeps": "sys.keeps = store; store.kept[1] = Loud('kept')",
    "loud_on_an_object_that_builtins_keeps": "import builtins; builtins.keeps = store.named; store.named.x = Loud('kept')",
    "loud_where_a_codec_of_the_program_looks": "import codecs; codecs.register(lambda name: store.kept.get(name)); store.kept['x'] = Loud('codec')",
    "loud_where_a_hook_of_the_program_looks": "sys.excepthook = lambda *given: store; store.kept['x'] = Loud('hook')",
    "loud_known_to_a_callback": "import weakref; loud = Loud('x'); store.kept[1] = loud; reference = weakref.ref(loud, lambda _: os.write(1, b'gone'))",
    "loud_where_a_fork_handler_looks": "store.kept[1] = Loud('x'); os.register_at_fork(before=lambda: store)",
    "loud_generator_of_the_image": "next(store.idle)",
    "loud_that_imports": "class L:\n    def __del__(self):\n        import json; os.write(1, b'%d' % len(json.dumps([])))\nl = L()",
    "loud_in_frozen": "import gc; loud = Loud('frozen'); store.kept[1] = loud; gc.freeze()",
    "loud_in_frozen_beside_a_daemon_thread": "import gc, threading; store.kept[1] = Loud('frozen')\nthreading.Thread(target=threading.Event().wait, daemon=True).start()\ngc.freeze()",
    "loud_in_frozen_when_much_is_no_more": "import gc; del store.large, store.parts; gc.collect(); store.kept[1] = loud = Loud('frozen'); gc.freeze()",
    "loud_in_unfrozen": "import gc; store.kept[1] = Loud('unfrozen'); gc.unfreeze()",
    "loud_in_frozen_anew": "import gc; gc.unfreeze(); store.kept[1] = Loud('anew'); gc.freeze(); gc.unfreeze()",
    "loud_at_early_exit": "store.kept[1] = Loud('exit'); sys.exit(3)",
    "loud_at_exception": "store.kept[1] = Loud('exception'); raise ValueError",
    "loud_from_exit_handler": "import atexit; atexit.register(lambda: store.kept.update(a=Loud('late')))",
    "loud_after_explicit_exit_handlers": "import atexit; store.a = Loud('a'); atexit._run_exitfuncs(); import json; print(json.dumps(1))",
    "imports_after_explicit_exit_handlers": "import atexit; atexit._run_exitfuncs(); import json, csv; print(json.dumps(1))",
    "loud_in_forked_child": "if os.fork(): print(os.wait()[1])\nelse: store.kept[1] = Loud('forked')",
    "finalizer": "import weakref; weakref.finalize(store.Class, print, 'finalized')",
    "buffered_output": "print('x' * 10000, end='')",
    "other_stdout": "sys.stdout = written('a'); print('y')\nsys.__stdout__.write('z')",
    "stdout_kept": "store.out = sys.stdout; print('x', file=store.out)",
    "thread": "import threading\nthreading.Thread(target=lambda: store.kept.update(a=Loud('thread'))).start()",
    "daemon_thread": "import threading\nstore.kept[1] = Loud('with thread')\nthreading.Thread(target=threading.Event().wait, daemon=True).start()",
    "audit_hook": "sys.addaudithook(lambda event, a: os.write(1, event.encode() + b'\\n') if not event.startswith('cpython') else None)",
    "audit_hook_that_hears_the_interpreter_end": "sys.addaudithook(lambda event, a, write=os.write: write(1, event.encode() + b'\\n') if event.startswith('cpython') else None)",
    "file_with_uncaught_exception": "file = written('a'); 1/0",
    "loud_at_exit_with_text": "loud = Loud('text'); sys.exit('because')",
    "loud_at_exit_below_zero": "loud = Loud('below'); sys.exit(-1)",
    "exit_without_stderr": "sys.stderr = None; sys.exit('unheard')",
    "looks_at_modules_when_main_goes": LOOKING + "look = Look()",
    "looks_at_modules_when_main_is_collected": LOOKING + "def function(): pass\nfunction.look = Look()",
    "looks_at_modules_from_a_module": "import beside; " + LOOKING + "beside.look = Look()",
    "looks_at_modules_that_were_overridden": "import builtins; builtins.print = None; builtins.own = 5\n" + LOOKING + "def function(): pass\nfunction.look = Look()",
    "loud_in_a_module": "import beside; beside.loud = Loud('beside')",
    "file_in_a_module_that_is_kept": "import beside; store.kept[1] = beside; beside.file = written('a')",
    "generator_in_main": "def g():\n    try: yield\n    finally: os.write(1, b'left')\ng = g(); next(g)",
    "resurrected": "class R:\n    def __del__(self): store.kept['again'] = self; os.write(1, b'once')\nr = R()",
    "resurrected_with_loud": "class R:\n    loud = None\n    def __del__(self): store.kept['again'] = self; os.write(1, b'once')\nr = R(); r.loud = Loud('r')",
    "raises_in_exit_handler": "import atexit; atexit.register(lambda: 1/0); loud = Loud('raised')",
    "raises_in_finalizer": "class R:\n    def __del__(self): 1/0\nr = R()",
    "raises_in_callback_of_a_weak_reference": "import weakref; it = store.Class(); reference = weakref.ref(it, lambda r: 1/0)",
    "buffered_by_a_library_in_c": "import ctypes; ctypes.CDLL(None).printf(b'by printf'); file = written('a')",
    "exit_function_of_c": "import ctypes, resource; resource.setrlimit(resource.RLIMIT_CORE, (0, 0)); ctypes.pythonapi.Py_AtExit(ctypes.CDLL(None).abort)",
    "file_over_an_own_class": "import io\nclass Raw(io.RawIOBase):\n    def writable(self): return True\n    def write(self, data): os.write(1, bytes(data)); return len(data)\nfile = io.BufferedWriter(Raw()); file.write(b'raw')",
    "text_over_an_own_class": "import io\nclass Sink:\n    closed = False\n    def readable(self): return False\n    def writable(self): return True\n    def seekable(self): return False\n    def write(self, data): os.write(1, data); return len(data)\n    def flush(self): pass\n    def close(self): os.write(1, b'closed')\nfile = io.TextIOWrapper(Sink()); file.write('text'); store.kept[1] = file",
    "encoded_by_own_code": "import codecs, io\nclass Encoder(codecs.IncrementalEncoder):\n    def encode(self, text, final=False): os.write(1, b'encoded'); return text.encode()\ncodecs.register(lambda name: codecs.CodecInfo(None, None, incrementalencoder=Encoder, name='own') if name == 'own' else None)\nfile = open('a', 'w', encoding='own'); file.write('x'); store.kept[1] = file",
    "several_on_one_descriptor": "one = open('a', 'w'); two = open(one.fileno(), 'w', closefd=False); one.write('1'); two.write('2')",
    "file_in_a_cycle_that_hangs": "cycle = [written('a')]; cycle.append(cycle); store.kept['cycle'] = cycle; del cycle",
    "file_known_to_many": "file = written('a')\nfor part in store.parts[:100]: part.append([file])",
    "loud_as_attribute": "store.holding.value = Loud('value')",
    "loud_as_another_attribute": "store.holding.other = Loud('other')",
    "loud_in_set": "store.members.add(Loud('member'))",
    "loud_in_long_list": "store.long[70_000] = Loud('long')",
    "loud_behind_long_list": "store.long.append(Loud('long'))",
    "loud_in_wide_dictionary": "store.wide[40_000] = Loud('wide')",
    "loud_beside_freed": "del store.parts[::3]; store.parts[7].append(Loud('parts'))",
    "places_taken_in_order": TAKING,
    "file_between_places_taken_in_order": "store.parts[1_003].append(written('a'))\n" + TAKING,
    "loud_when_much_memory_is_no_more": "del store.large, store.parts; store.kept[1] = Loud('less')",
    "loud_without_descriptors": "import resource; resource.setrlimit(resource.RLIMIT_NOFILE, (3, 3)); store.kept[1] = Loud('limited')",
    "loud_where_no_file_may_be_opened": FORBIDDING % "libc.prctl(22, 2, filter, 0, 0)" + "store.kept[1] = Loud('filtered')",
    "loud_where_no_file_may_be_opened_any_more": FORBIDDING % "libc.syscall({'x86_64': 317, 'aarch64': 277}[platform.machine()], 1, 0, filter)" + "loud = Loud('filtered')",
    "weak_reference": "import gc; del store.slot; gc.collect(); print(dict(store.weak))",
}


# What a preloaded module may have: objects with an end of their own, of several kinds.
ENDING = STORE + """\
import os

class Ending:
    def __init__(self, name):
        self.name = name
    def __del__(self):
        os.write(1, b"end of %s\\n" % self.name.encode())

class Hanging(Ending):
    def __del__(self):
        kept["hung by the image"] = Ending("what the image has hung")

class Importing(Ending):
    def __del__(self):
        import json
        os.write(1, json.dumps(self.name).encode() + b"\\n")

class Raising(Ending):
    def __del__(self):
        raise ValueError(self.name)

class Resurrecting(Ending):
    def __del__(self):
        kept["again"] = self
        os.write(1, b"resurrected\\n")

kept["ending"] = Ending("held by the image")
in_cycle = Ending("in a cycle")
in_cycle.itself = in_cycle
hanging, importing = Hanging("hanging"), Importing("importing")
raising, resurrecting = Raising("raised by the image"), Resurrecting("again")
suspended = generate()
next(suspended)
"""

# Makes an object that only C code ends, and that the collector does not know: its end is an abort.
CAPSULES = """\
import ctypes
import resource

_new = ctypes.pythonapi.PyCapsule_New
_new.restype, _new.argtypes = ctypes.py_object, [ctypes.c_void_p] * 3
_abort = ctypes.cast(ctypes.CDLL(None).abort, ctypes.c_void_p)

def make():
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    return _new(1, None, _abort)
"""

# Nothing in them has a finalizer.
CAPSULE_PROGRAMS = {
    "in_empty_dictionary": "store.kept['x'] = store.make()",
    "in_dictionary": "vars(store)['x'] = store.make()",
    "in_list": "store.values[0] = store.make()",
    "in_dictionary_in_dictionary": "store.kept['x'] = {'y': store.make()}",
    "in_tuple_in_list": "store.values.append((1, store.make()))",
    "on_class": "store.Class.x = store.make()",
    "on_function": "store.function.x = store.make()",
    "on_instance": "store.named.x = store.make()",
    "on_class_of_the_program": "class A(store.Class): x = store.make()\nstore.kept[1] = A",
    "in_constants": "f = store.function; f.__code__ = f.__code__.replace(co_consts=(None, store.make()))",
    "in_function_of_the_program": "def f(x=store.make()): pass\nstore.values.append(f)",
    "in_main": "x = store.make()",
    "in_one_of_many": "store.parts[1_000].append(store.make())",
    "in_set": "store.members.add(store.make())",
    "in_long_list": "store.long[70_000] = store.make()",
    "behind_long_list": "store.long.append(store.make())",
    "in_wide_dictionary": "store.wide[40_000] = store.make()",
    "as_attribute": "store.holding.value = store.make()",
    "as_another_attribute": "store.holding.other = store.make()",
    "beside_freed": "del store.parts[::3]; store.parts[7].append(store.make())",
    "when_much_memory_is_no_more": "del store.large, store.parts; store.kept[1] = store.make()",
    "while_a_forked_process_lives": "store.parts[1_000].append(store.make())" + FORKED,
    "after_a_forked_process": FORKED + "store.parts[1_000].append(store.make())",
    "without_descriptors": "import resource; resource.setrlimit(resource.RLIMIT_NOFILE, (3, 3)); store.kept[1] = store.make()",
}


# What has an end, and where it is left; {0} is a number.
THINGS = (
    "Loud('{0}')", "written('{0}')", "[Loud('{0}')]", "Printing('{0}')", "Importing('{0}')", "Hanging('{0}')",
    "begun('{0}')", "(lambda loud=Loud('{0}'): loud)", "open('read{0}', 'w+b')", "io.StringIO('{0}')",
)
PLACES = (
    "main{0} = {1}", "store.kept[{0}] = {1}", "store.name{0} = {1}", "store.values.append({1})",
    "store.named.name{0} = {1}", "store.Class.name{0} = {1}", "beside.name{0} = {1}", "sys.name{0} = {1}",
    "store.local.name{0} = {1}", "cycle{0} = [{1}]; cycle{0}.append(cycle{0})", "def function{0}(value={1}): pass",
    "atexit.register(lambda value={1}: os.write(1, b'handler{0} '))", "sys.modules['name{0}'] = {1}",
)
LAST = (
    "", "sys.exit({0})", "1/0", "raise KeyboardInterrupt", "sys.exit('text')", "sys.stdout.write('tail')",
    "sys.stdout.close()", "os.close(1)", "del store.slot", "del beside",
)
RANDOM = """\
import atexit, io
import beside
class Printing(Loud):
    def __del__(self): print("printing", self.name)
class Importing(Loud):
    def __del__(self):
        import json
        os.write(1, json.dumps(["importing", self.name]).encode())
class Hanging(Loud):
    def __del__(self): store.kept["hanging"] = written("hung by " + self.name)
def begun(name):
    def generate():
        try: yield
        finally: os.write(1, b"left " + name.encode() + b"\\n")
    generator = generate()
    next(generator)
    return generator
"""
