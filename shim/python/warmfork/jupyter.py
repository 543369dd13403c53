"""Kernels of Jupyter from a template, which has ipykernel imported: a provisioner for jupyter_client 7 and later.

In kernel.json, beside "argv":

    "metadata": {"kernel_provisioner": {"provisioner_name": "warmfork", "config": {"preload": "numpy,pandas"}}}

The process that starts kernels opens one template for each interpreter and list of modules, and keeps it. A kernel is a
child of that process as any other, and is cold where a template cannot serve it.
"""

from __future__ import annotations

import asyncio
import os
import subprocess

from jupyter_client.provisioning import LocalProvisioner
from traitlets import Unicode

from ._owner import Template

# It is the same as typing's, whose import would cost every start.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

__all__ = ["WarmforkProvisioner"]

# All that ipykernel imports but its debugger, which keeps the time and the process id. Not every version has each.
_PRELOAD = (
    "IPython", "ipykernel.kernelbase", "ipykernel.zmqshell", "ipykernel.iostream", "ipykernel.heartbeat",
    "ipykernel.control", "ipykernel.eventloops", "ipykernel.compiler", "matplotlib_inline",
)
_templates: dict[tuple[str, tuple[str, ...]], Template] = {}


def _template_of(python: str, preload: tuple[str, ...]) -> Template:
    """Returns the template for all kernels like this one, which the first opens. It is closed when this process
    ends."""
    key = python, preload
    if key not in _templates:
        _templates[key] = Template([*_PRELOAD, *preload], python=python, on_error="warn")
    return _templates[key]


class WarmforkProvisioner(LocalProvisioner):
    """Starts kernels as LocalProvisioner does, but for the start itself. config: "preload", modules to import beside
    ipykernel, with commas between."""

    preload = Unicode(config=True)

    async def pre_launch(self, **kwargs: Any) -> dict[str, Any]:
        """As LocalProvisioner.pre_launch. Begins to preload."""
        prepared = await super().pre_launch(**kwargs)
        self._template(prepared["cmd"])
        return prepared

    async def launch_kernel(self, cmd: list[str], **kwargs: Any) -> Any:
        """As LocalProvisioner.launch_kernel: takes the options of jupyter_client.launcher.launch_kernel, raises what
        subprocess.Popen does, and returns the connection information."""
        options = self._scrub_kwargs(kwargs)
        options.setdefault("env", dict(os.environ))
        options.setdefault("start_new_session", True)
        if not options.pop("independent", False):
            options["env"]["JPY_PARENT_PID"] = str(os.getpid())
        has_no_input = options.get("stdin") is None
        if has_no_input:
            options["stdin"] = subprocess.PIPE
        # This may have to wait for the image, and other kernels are served meanwhile.
        self.process = process = await asyncio.to_thread(self._template(cmd).popen, cmd, **options)
        if has_no_input and process.stdin:
            process.stdin.close()  # as the launcher does: a kernel's input comes by its sockets
        self.pid = process.pid
        self.pgid = os.getpgid(self.pid)
        return self.connection_info

    def _template(self, cmd: list[str]) -> Template:
        modules: tuple[str, ...] = tuple(filter(None, (name.strip() for name in self.preload.split(","))))
        return _template_of(cmd[0], modules)
