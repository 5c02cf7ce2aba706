"""Reaching a Dask scheduler: dask.distributed itself, and a client that is connected."""

from __future__ import annotations

import logging
import socket
import struct
import threading
import time
from typing import Any

from amltk_nb.errors import BackendStartError, MissingExtraError

__all__ = ["close_quietly", "connected_client", "distributed"]

_KNOCK_AGAIN_S = 0.1
_LENGTH = struct.Struct("<Q")  # what a message of Dask begins with, see distributed.comm.tcp
_MOST_GREETING_BYTES = 1 << 20  # far more than it takes
_SOMEBODY_ELSE = "somebody listens there who is no Dask scheduler"


def connected_client(
    address: Any, *, timeout_s: float, closing: threading.Event | None = None
) -> Any:
    """Connect a client to a Dask scheduler.

    Args:
        address: "tcp://host:port", or a cluster object.
        timeout_s: give up after so long.
        closing: give up when this is set.

    Raises:
        BackendStartError: nobody answers there.
    """
    try:
        if isinstance(address, str):
            _check_certificates(address)
            _wait_for_scheduler(address, timeout_s, closing or threading.Event())
        return distributed().Client(address, timeout=timeout_s, set_as_default=False)
    except (OSError, ValueError, TypeError) as error:
        raise BackendStartError(
            f"No Dask scheduler answers at {address} ({type(error).__name__}: {error}). Is the "
            "address right, is it running (`dask scheduler` prints its address), and can this "
            f"machine reach it? It was tried for {timeout_s:g} s; connect_timeout= gives it more."
        ) from error


def _check_certificates(address: str) -> None:
    if not address.startswith("tls://"):
        return
    if distributed().Security().get_connection_args("client").get("ssl_context") is None:
        raise BackendStartError(
            f"{address} is reached by TLS, and Dask's configuration names no certificates. Pass a "
            "client that has them: Scheduler.with_dask(Client(address, security=Security(...)))."
        )


def _wait_for_scheduler(address: str, timeout_s: float, closing: threading.Event) -> None:
    """Wait until Dask answers at an address: a client that fails leaves noise behind or hangs."""
    host, _, port = address.rpartition("://")[2].rpartition(":")
    if address.partition("://")[0] not in ("tcp", "tls") and "://" in address:
        return
    until = time.monotonic() + timeout_s
    while True:
        try:
            with socket.create_connection((host.strip("[]"), int(port)), timeout_s) as caller:
                if address.startswith("tcp://") or "://" not in address:
                    _hear_dask(caller, until, closing)
            return
        except OSError:
            if time.monotonic() >= until or closing.wait(_KNOCK_AGAIN_S):
                raise


def _hear_dask(caller: socket.socket, until: float, closing: threading.Event) -> None:
    """Hear the greeting of a Dask scheduler, which speaks first: the length of its message.

    Raises:
        OSError: it is somebody else, or silent.
    """
    caller.settimeout(_KNOCK_AGAIN_S)
    heard = b""
    while len(heard) < _LENGTH.size:
        try:
            more = caller.recv(_LENGTH.size - len(heard))
        except TimeoutError:
            if time.monotonic() < until and not closing.is_set():
                continue
            raise ConnectionRefusedError(_SOMEBODY_ELSE) from None
        if not more:
            raise ConnectionResetError("whoever listens there hung up")
        heard += more
    if _LENGTH.unpack(heard)[0] > _MOST_GREETING_BYTES:
        raise ConnectionRefusedError(_SOMEBODY_ELSE)


def close_quietly(client: Any) -> None:
    """Close a client; one that has just lost its scheduler would log how it tried to go back."""

    def drop(_: logging.LogRecord) -> bool:
        return bool(client.status == "running")

    logger = logging.getLogger("distributed.client")
    logger.addFilter(drop)
    try:
        client.close(timeout=2)
    finally:
        logger.removeFilter(drop)


def distributed() -> Any:
    """Import dask.distributed.

    Raises:
        MissingExtraError: it is not installed.
    """
    try:
        import distributed
    except ImportError:
        raise MissingExtraError(
            "Running calls on Dask needs dask.distributed, which is not installed: "
            "pip install 'amltk-nb[dask]'. Without it, Scheduler.with_processes() runs them here."
        ) from None
    return distributed
