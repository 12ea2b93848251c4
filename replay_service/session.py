"""What service, worker and migrations rely on in each of their sessions, whatever a server, database or login sets."""

from __future__ import annotations

from collections.abc import Mapping

RELIED_ON: Mapping[str, str] = {
    "TimeZone": "UTC",
    "datestyle": "ISO, MDY",
    "intervalstyle": "postgres",
    "bytea_output": "hex",
    "extra_float_digits": "1",
    "standard_conforming_strings": "on",
    "default_transaction_isolation": "read committed",
    "default_transaction_read_only": "off",
    "row_security": "on",
}


def startup_options(settings: Mapping[str, object]) -> str:
    """The startup parameter `options` of a session with these settings beside those that are relied on."""
    written = [(name, str(setting).replace(" ", "\\ ")) for name, setting in {**RELIED_ON, **settings}.items()]
    return " ".join(f"-c {name}={setting}" for name, setting in written)
