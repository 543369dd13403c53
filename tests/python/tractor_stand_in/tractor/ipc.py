"""Frames of pickled objects over TCP."""

import pickle
import struct

import trio


class Channel:
    def __init__(self, stream):
        self.stream = stream

    async def send(self, value):
        data = pickle.dumps(value)
        await self.stream.send_all(struct.pack("!I", len(data)) + data)

    async def _exactly(self, size):
        data = b""
        while len(data) < size:
            more = await self.stream.receive_some(size - len(data))
            if not more:
                raise trio.EndOfChannel
            data += more
        return data

    async def receive(self):
        (size,) = struct.unpack("!I", await self._exactly(4))
        return pickle.loads(await self._exactly(size))


class Server:
    def __init__(self):
        self._peers = {}
        self._events = {}

    async def listen(self, tasks):
        (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
        self.address = listener.socket.getsockname()
        self._serving = trio.CancelScope(shield=True)  # actors are told to end when their nursery is cancelled
        tasks.start_soon(self._serve, listener)

    async def _serve(self, listener):
        with self._serving:
            await trio.serve_listeners(self._greet, [listener])

    def stop(self):
        self._serving.cancel()

    async def _greet(self, stream):
        channel = Channel(stream)
        uid = await channel.receive()
        if uid not in self._events:
            raise RuntimeError("nobody waits for this peer yet")  # what a warm child is fast enough for
        self._peers[uid] = channel
        self._events[uid].set()
        await trio.sleep_forever()

    def expect(self, uid):
        return self._events.setdefault(uid, trio.Event())

    async def wait_for_peer(self, uid):
        event = self.expect(uid)
        await event.wait()
        return event, self._peers[uid]


class Portal:
    def __init__(self, channel):
        self.channel = channel

    async def run(self, function, **arguments):
        await self.channel.send((function.__module__, function.__name__, arguments))
        answer, error = await self.channel.receive()
        if error is not None:
            raise error
        return answer

    async def cancel_actor(self):
        await self.channel.send(None)
