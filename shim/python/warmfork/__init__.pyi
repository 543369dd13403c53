"""What __init__.py loads when it is first used. A test compares the names."""

from . import aio as aio
from . import multiprocessing as multiprocessing
from . import tractor as tractor
from . import trio as trio
from ._errors import Error as Error
from ._errors import TemplateError as TemplateError
from ._native import __version__ as __version__
from ._owner import Template as Template
from ._popen import Popen as Popen
from .multiprocessing import get_context as get_context

__all__ = ["Error", "Popen", "Template", "TemplateError", "get_context"]
