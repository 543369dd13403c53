"""An asyncio server that answers each request from a process of its own.

usage: server_of_children.py [--port N]       (then: echo '2 + 3' | nc localhost PORT)

Each line is an expression, evaluated in a fresh child that ends with it: nothing that one request does is
there in the next.
"""

import argparse
import asyncio
import sys

import warmfork

PROGRAM = "import math; print(eval(input(), {'__builtins__': {}}, vars(math)))"


async def answer(template, reader, writer):
    request = await reader.readline()
    process = await warmfork.aio.create_subprocess_exec(
        sys.executable, "-c", PROGRAM, template=template,
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )
    output, errors = await process.communicate(request)
    writer.write(output or errors.splitlines()[-1] + b"\n")
    await writer.drain()
    writer.close()


async def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--port", type=int, default=0, help="default: any that is free")
    options = parser.parse_args()
    with warmfork.Template(["math"]) as template:
        server = await asyncio.start_server(lambda *streams: answer(template, *streams), "127.0.0.1", options.port)
        print("listening on port", server.sockets[0].getsockname()[1], flush=True)
        async with server:
            await server.serve_forever()


if __name__ == "__main__":
    try:
        asyncio.run(main())
    except KeyboardInterrupt:
        pass
