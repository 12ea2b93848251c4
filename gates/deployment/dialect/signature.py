"""How a deployment signs requests: `names.http.signature`."""

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
    """Use `now`, the deployment's clock, for every signature with a time that is not given one."""
    _NOW[:] = [now]


@dataclass(frozen=True, slots=True)
class SignatureForm:
    """What `names.http.signature` says; if it says nothing, the contract's own forms."""

    given: Mapping[str, str] = field(default_factory=dict)

    @property
    def _signed(self) -> str:
        return self.given.get("signed", "{t}.{body}")

    def value(self, secret: str, method: str, path: str, body: bytes, unix_seconds: int | None) -> str:
        """The value of the header; without a time if unix_seconds is None and there is such a form. A GET has no body:
        a form without a place for the path signs the path instead.
        """
        if unix_seconds is None and "v2" in self.given and "form" not in self.given:  # every form has a time
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
