"""Which `Host` is answered: against web pages that have their own name point at this machine (DNS rebinding).

The rules of this file:
1. A page of another site can only send the name it was loaded from. So names are answered when they are listed, and the
   names and addresses of loopback always are.
2. An address in numbers cannot be made to point elsewhere. Where `serve` listens on every interface, all are answered.
3. The port is not compared: a published port is another one than that of the socket, and adds nothing to rule 1.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable

LOOPBACK_NAME = "localhost"
EVERY = "*"


class HostRule:
    """Made from where `serve` listens, and from the names in `CREDITS_HTTP_ALLOWED_HOSTS`."""

    def __init__(self, listens: str, allowed: Iterable[str] = ()) -> None:
        self._names = {_bare(each.strip().lower()) for each in (listens, *allowed)} - {""}
        self._any_name = EVERY in self._names
        own = _address(listens)
        self._any_address = own is not None and own.is_unspecified

    def allows(self, header: str | None) -> bool:
        """Whether a request with this `Host` is answered; None: it has none."""
        if self._any_name:
            return True
        host = _bare((header or "").strip().lower())
        if host == LOOPBACK_NAME or host in self._names:
            return True
        address = _address(host)
        return address is not None and (address.is_loopback or self._any_address)


def _bare(header: str) -> str:
    """Without port, brackets and the root's dot."""
    if header.startswith("["):
        return header[1:].partition("]")[0]
    name = header if header.count(":") > 1 else header.partition(":")[0]
    return name.removesuffix(".")


def _address(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        return None
