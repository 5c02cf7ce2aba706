"""By which of this machine's addresses workers elsewhere reach it."""

from __future__ import annotations

import ipaddress
import socket

__all__ = ["address_of_interface", "own_address", "own_address_towards"]


def own_address_towards(address: str) -> str | None:
    """Find the address of this machine on the way to an engine, for its workers to come back by.

    Args:
        address: of the engine, such as "tcp://10.0.0.5:8786".

    Returns:
        The address; None: the engine is on this machine's loopback, so its workers are here.
    """
    host = address.rpartition("://")[2].rpartition("@")[2]
    host = host.rpartition(":")[0] or host
    found = _source_of(host.strip("[]")) or own_address()
    return None if found is None or ipaddress.ip_address(found).is_loopback else found


def own_address() -> str | None:
    """Find the address of this machine in its network; None: it has none but its loopback."""
    for anywhere in ("192.0.2.1", "2001:db8::1"):  # addresses of nobody, where nothing is sent
        if (found := _source_of(anywhere)) is not None:
            return found
    return None


def address_of_interface(name: str) -> str | None:
    """Find the address of a network interface; None: it is the loopback, or there is none."""
    import psutil

    addresses = {a.family: a.address for a in psutil.net_if_addrs().get(name, ())}
    found = addresses.get(socket.AF_INET) or addresses.get(socket.AF_INET6)
    if found is None or ipaddress.ip_address(found.partition("%")[0]).is_loopback:
        return None
    return str(found)


def _source_of(host: str) -> str | None:
    """Ask the system which address it would send from; no packet is sent."""
    try:
        family, kind, *_, place = socket.getaddrinfo(host, 9, type=socket.SOCK_DGRAM)[0]
        with socket.socket(family, kind) as probe:
            probe.setblocking(False)
            probe.connect(place)
            return str(probe.getsockname()[0])
    except OSError:
        return None
