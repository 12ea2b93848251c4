"""How a signed request is signed in the words of a deployment: `names.http.signature`."""

import base64
import hashlib
import hmac
import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

_PARTS = re.compile(r"(\{(?:t|body|path|method)\})")
_NOW: list[Callable[[], float]] = [time.time]


def timed_by(now: Callable[[], float]) -> None:
    """From now on a form that has a time, and is not told one, has that of `now`: the clock of the deployment."""
    _NOW[:] = [now]


@dataclass(frozen=True, slots=True)
class SignatureForm:
    """What `names.http.signature` says; nothing: the contract's own forms."""

    given: Mapping[str, str] = field(default_factory=dict)

    @property
    def _signed(self) -> str:
        return self.given.get("signed", "{t}.{body}")

    def value(self, secret: str, method: str, path: str, body: bytes, unix_seconds: int | None) -> str:
        """The value of the header, without a time where unix_seconds is None and there is such a form.

        A GET has no body: what has no place for the path covers the path in its stead.
        """
        if unix_seconds is None and "v2" in self.given and "form" not in self.given:  # no form is without a time
            unix_seconds = int(_NOW[0]())
        if method == "GET" and (unix_seconds is None or "{path}" not in self._signed):
            body = path.encode("latin-1")
        if unix_seconds is None:
            return _filled(self.given.get("form", "{hex}"), _mac(secret, body))
        put = {
            "{t}": str(unix_seconds).encode(),
            "{body}": body,
            "{path}": path.encode("latin-1"),
            "{method}": method.encode(),
        }
        mac = _mac(secret, b"".join(put.get(part, part.encode()) for part in _PARTS.split(self._signed)))
        return _filled(self.given.get("v2", "t={t},v2={hex}"), mac).replace("{t}", str(unix_seconds))


def _mac(secret: str, message: bytes) -> bytes:
    return hmac.new(secret.encode(), message, hashlib.sha256).digest()


def _filled(form: str, mac: bytes) -> str:
    return form.replace("{hex}", mac.hex()).replace("{base64}", base64.b64encode(mac).decode())
