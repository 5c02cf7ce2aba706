"""Messages over a network: nobody who only listens there can speak, or say again what was said.

A line over TCP begins with a greeting: its number, a nonce, and a proof that the caller knows the
line's token. The token itself does not travel on the line. Each frame then carries a keyed digest
over its place in the stream and its content, and nothing is unpickled before that is found true.
What is said is not hidden: that is for the network (or for what is said not to need it).

One frame: bytes of what follows, u64 │ digest, 16 bytes │ the frame of `wire`
"""

from __future__ import annotations

import hmac
import os
import socket
import struct
from collections.abc import Iterable
from contextlib import suppress
from hashlib import blake2b
from typing import Any

from amltk_nb.scheduling.wire import Channel, Part, decoded

__all__ = ["GREETING", "NONCE_BYTES", "Sealed", "called", "greeting", "proof", "taken"]

NONCE_BYTES = 16
GREETING = struct.Struct(f"<Q{NONCE_BYTES}s16s")  # the number of a line, a nonce, a proof

_HEADER = struct.Struct("<Q16s")
_READ_BYTES = 1 << 17


def proof(number: int, nonce: bytes, token: bytes) -> bytes:
    """Make what shows that one knows the token of a line."""
    return _digest(token, b"greeting", number.to_bytes(8, "little"), nonce)


def greeting(number: int, nonce: bytes, token: bytes) -> bytes:
    """Make the first thing on a line."""
    return GREETING.pack(number, nonce, proof(number, nonce, token))


def called(fd: int, nonce: bytes, token: bytes) -> Sealed:
    """Make the channel of the side that called."""
    return Sealed(fd, _digest(token, b"up", nonce), _digest(token, b"down", nonce))


def taken(fd: int, nonce: bytes, token: bytes) -> Sealed:
    """Make the channel of the side that was called."""
    return Sealed(fd, _digest(token, b"down", nonce), _digest(token, b"up", nonce))


def _digest(key: bytes, *parts: bytes) -> bytes:
    return _summed(key, parts)


def _summed(key: bytes, parts: Iterable[Any]) -> bytes:
    digest = blake2b(key=key, digest_size=16)
    for part in parts:
        digest.update(part)
    return digest.digest()


class Sealed(Channel):
    """A message stream over one socket that does not block; each side has a key of its own."""

    def __init__(self, fd: int, key_out: bytes, key_in: bytes) -> None:
        """Use a socket's descriptor, which is never closed here."""
        super().__init__(fd, fd)
        self._fd = fd
        self._key_out, self._key_in = key_out, key_in
        self._n_out = self._n_in = 0
        self._data = bytearray()  # what has come of frames that are not complete
        self._is_broken = False  # somebody else has put something on the line

    def post(self, parts: list[Part]) -> bool:
        """Write a frame; see `Channel.post`."""
        n_bytes = sum(memoryview(part).nbytes for part in parts)
        sealed = _summed(self._key_out, (self._n_out.to_bytes(8, "little"), *parts))
        self._n_out += 1
        self.queue([_HEADER.pack(n_bytes, sealed), *parts])
        return self.flush()

    def read(self) -> list[tuple[Any, ...]]:
        """Read once; see `Channel.read`.

        Raises:
            ConnectionAbortedError: somebody else has put something on the line.
        """
        self._check()
        try:
            data = os.read(self._fd, _READ_BYTES)
        except (BlockingIOError, InterruptedError):
            return []
        if not data:
            raise EOFError
        self._data += data  # grows by what has come, whatever size a header pretends
        messages = []
        while (body := self._next()) is not None:
            messages.append(decoded(memoryview(body)))
        if self._is_broken:
            self._cut()  # what came before is true; whoever reads on learns of it then
        return messages

    def _check(self) -> None:
        if self._is_broken:
            raise ConnectionAbortedError("a message on this line is not from its other side")

    def _cut(self) -> None:
        with socket.socket(fileno=os.dup(self._fd)) as line, suppress(OSError):
            line.shutdown(socket.SHUT_RDWR)

    def _next(self) -> bytearray | None:
        if len(self._data) < _HEADER.size:
            return None
        n_bytes, sealed = _HEADER.unpack_from(self._data)
        end = _HEADER.size + n_bytes
        if len(self._data) < end:
            return None
        body = self._data[_HEADER.size : end]
        del self._data[:end]
        true = _summed(self._key_in, (self._n_in.to_bytes(8, "little"), body))
        if not hmac.compare_digest(true, sealed):
            self._is_broken = True
            return None
        self._n_in += 1
        return body
