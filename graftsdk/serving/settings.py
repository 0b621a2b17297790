"""What a service is told before it starts: limits, keys, times. Nothing of it changes while it runs."""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import os
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from graftsdk.errors import InputError
from graftsdk.preprocess.decode import MAX_ENCODED_BYTES
from graftsdk.text import reason

__all__ = ["KEYS_VARIABLE", "ServeSettings", "check_binding", "key_digest", "read_keys"]

KEYS_VARIABLE = "GRAFTSDK_API_KEYS"
LEAST_KEY = 16  # characters: what is shorter can be guessed
_KEY = re.compile(r"[\x21-\x7e]+")
_RANGES = {
    "max_bytes": (1024, MAX_ENCODED_BYTES),
    "max_persons": (1, 1000),
    "max_parts": (1, 1000),
    "max_held": (1024, 2**40),
    "queue": (1, 65536),
    "max_batch": (1, 1024),
    "max_wait_ms": (0.0, 1000.0),
    "seconds": (0.01, 600.0),
    "pace": (0.1, 600.0),
    "grace": (0.0, 3600.0),
    "connections": (1, 65536),
}


@dataclass(frozen=True)
class ServeSettings:
    """Limits and names of a service.

    Attributes:
        max_bytes: of one request's body. max_persons: told in one answer; the least sure are left out.
        max_parts: pictures in one multipart body of /v1/crops.
        max_held: bytes of bodies that all requests together may hold in memory.
        queue: images that may wait; more are refused with 503. max_batch: crops in one batch.
        max_wait_ms: how long a batch waits for more crops.
        seconds: from a request's last byte to its answer; what would take longer is refused.
        pace: seconds in which the head of a request, and then its body, have to be there.
        grace: seconds for what was accepted before SIGTERM.
        connections: open at once. model: the name in the Open Inference Protocol.
        keys: SHA-256 of each key; empty where none is asked for.

    Raises:
        InputError: a number out of its range, or a model name that no address takes.
    """

    max_bytes: int = MAX_ENCODED_BYTES
    max_persons: int = 300
    max_parts: int = 64
    max_held: int = 256 * 2**20
    queue: int = 64
    max_batch: int = 32
    max_wait_ms: float = 0.0
    seconds: float = 30.0
    pace: float = 10.0
    grace: float = 30.0
    connections: int = 1024
    model: str = "graftsdk"
    keys: tuple[bytes, ...] = ()

    def __post_init__(self) -> None:
        for name, (low, high) in _RANGES.items():
            value = getattr(self, name)
            if not low <= value <= high:
                raise InputError(f"{name}: expected a number from {low} to {high}, found {value!r:.40}")
        if re.fullmatch(r"[A-Za-z0-9._-]{1,64}", self.model) is None:
            raise InputError(f"model: expected letters, digits, '.', '_' and '-', found {self.model!r:.80}")

    def allows(self, key: str | None) -> bool:
        """Whether a request with this key is served; as long for every wrong key as for a right one."""
        if not self.keys:
            return True
        digest = key_digest(key or "")
        found = False
        for known in self.keys:
            found |= hmac.compare_digest(digest, known)
        return found and key is not None


def key_digest(key: str) -> bytes:
    """SHA-256 of a key, 32 bytes: digests are compared, so that no time tells a key's length or beginning."""
    return hashlib.sha256(key.encode("utf-8", "surrogateescape")).digest()


def read_keys(path: str | None) -> tuple[bytes, ...]:
    """Digests of the keys in a file, one a line ("#": a remark), and of those in the variable GRAFTSDK_API_KEYS.

    Raises:
        InputError: a file that cannot be read or has no key, or a key that is short or has blanks in it.
    """
    keys = os.environ.get(KEYS_VARIABLE, "").split()
    _check_keys(keys, KEYS_VARIABLE)
    if path is not None:
        try:
            lines = Path(path).read_text("utf-8").splitlines()
        except (OSError, ValueError) as error:
            raise InputError(f"keys: expected a text file, found {path!r:.200}: {reason(error)}") from error
        found = [line.strip() for line in lines if line.strip() and not line.lstrip().startswith("#")]
        if not found:
            raise InputError(f"keys: expected a key a line in {path!r:.200}, found none")
        _check_keys(found, "keys")
        keys += found
    return tuple(dict.fromkeys(map(key_digest, keys)))


def _check_keys(keys: Iterable[str], where: str) -> None:
    for number, key in enumerate(keys, 1):
        if len(key) < LEAST_KEY or _KEY.fullmatch(key) is None:  # the key itself is never told
            raise InputError(
                f"{where}: expected at least {LEAST_KEY} visible ASCII characters a key, found another one in place "
                f"{number}; python -c 'import secrets; print(secrets.token_urlsafe(32))' makes one"
            )


def check_binding(host: str, keys: tuple[bytes, ...], insecure: bool) -> None:
    """Refuse to listen beyond this machine without a key.

    Raises:
        InputError: `host` is no loopback address, there is no key, and nobody said that this is wanted.
    """
    if keys or insecure or _is_loopback(host):
        return
    raise InputError(
        f"--host {host!r:.100}: expected a key for a service that other machines reach, found none; "
        f"--keys FILE or the variable {KEYS_VARIABLE} gives keys, --insecure serves everybody"
    )


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:  # a name: whatever it means today
        return False
