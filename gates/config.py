"""Reads gate.yaml and the environment strictly -> Target, Policy. Only this module reads the environment."""

import datetime as dt
import os
import pwd
from collections import ChainMap
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from gates import disk
from gates.contract.names import Names
from gates.decision.names_file import NamesError, NamesUnread, names_of_text
from gates.decision.policy_file import PolicyFile, parse
from gates.deployment.dialect.current import NAMES, current, use
from gates.deployment.identity import is_here
from gates.deployment.sql.database import LENDING, lending
from gates.deployment.sql.libpq import REDIRECTS, other_passwords, placed, without_end
from gates.deployment.target import WANTED, Target
from gates.errors import ConfigError, of_file
from gates.evidence import TargetKind
from gates.inputs import env_file, values
from gates.inputs.shapes import nearest

__all__ = ["ConfigError", "environment_of", "load_policy", "load_target", "process_environment"]

POLICY_FILE = "gate.yaml"
MOST_POLICY = 512 * 1024
SHIPPED_POLICY = Path(__file__).resolve().parent.parent / POLICY_FILE


@dataclass(frozen=True, slots=True)
class Variable:
    """One variable of the contract: the field of Target that it fills, its parser, whether its value is a secret."""

    field: str
    parse: Callable[[str], object]
    secret: bool = False


def _company(text: str) -> str:
    """An id of the type that the deployment uses, if that is known already."""
    return values.id_of_type(text, current().id_type("company")) if current() else values.any_id(text)


VARIABLES = {
    "BASE_URL": Variable("base_url", values.base_url, secret=True),  # it may hold a user and a password
    "BASELINE_URL": Variable("baseline_url", values.base_url, secret=True),
    "TRANSBOT_HMAC_SECRET": Variable("hmac_secrets", values.hmac_secrets, secret=True),
    "TRUSTED_PROXIES": Variable("trusted_proxies", values.networks),
    "TEST_COMPANY_ID": Variable("test_company_id", _company),
    "ADMIN_JWT": Variable("admin_jwt", values.token, secret=True),
    "REPLAY_JWT_SECRET": Variable("jwt_secret", values.jwt_secret, secret=True),
    "REPLAY_JWT_AUDIENCE": Variable("jwt_audience", values.utf8),
    "REPLAY_JWT_ISSUER": Variable("jwt_issuer", values.utf8),
    "DATABASE_URL": Variable("database_url", values.conninfo, secret=True),
    "RELEASE": Variable("release", values.release),
    "SLACK_WEBHOOK_URL": Variable("slack_webhook_url", values.webhook, secret=True),
    "TEST_OUTBOX": Variable("test_outbox", values.switch),
    "TEST_DLQ": Variable("test_dlq", values.switch),
    "TEST_AGENTS": Variable("test_agents", values.switch),
    "GATE_STACK_CONTROL": Variable("control", values.utf8),
}
"""The variables that describe a target (contract, section 1). GATE_TARGET, the kind of target, is not among them."""


class _Process:
    """What this process was started with: its environment and the file of --env-file."""

    environ: Mapping[str, str] = os.environ


def process_environment() -> Mapping[str, str]:
    """The environment of this process, including its --env-file. All other code receives it as an argument."""
    return _Process.environ


def without_redirects() -> Mapping[str, str]:
    """The environment of this process as it was given. Removes the variables that would lead libpq elsewhere than
    DATABASE_URL; `load_target` puts them into that URL.
    """
    _Process.environ = ChainMap(os.environ, {n: os.environ.pop(n) for n in REDIRECTS if n in os.environ})
    return _Process.environ


def actor(environ: Mapping[str, str]) -> str:
    """On whose behalf this process acts: the actor that a CI system names, else the login, else the user id."""
    named = (environ.get(name, "") for name in ACTORS)
    return next((text for one in named if (text := one.strip()[: values.LONGEST_ACTOR])), "") or _login()


def _login() -> str:
    """The login of this process. Containers, cron and systemd set neither USER nor LOGNAME."""
    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return f"uid {os.getuid()}"


def with_file(environ: Mapping[str, str], path: Path, warn: Callable[[str], None]) -> dict[str, str]:
    """The environment, completed from a dotenv file. Raise ConfigError if the file is wrong. Variables of libpq and
    OpenSSL (`PGSSLMODE`) are copied into this process's environment, where the libraries read them.
    """
    found = env_file.read(path, warn)
    for name in found.keys() - environ.keys() - REDIRECTS:
        if name.startswith(LIBRARIES):
            os.environ[name] = found[name]
    _Process.environ = {**found, **environ}
    return dict(_Process.environ)


def load_target(environ: Mapping[str, str]) -> Target:
    """Parse the variables of the contract. Raise ConfigError naming the variable that is wrong."""
    given = {name: environ.get(name, "").strip() for name in VARIABLES}
    found: dict[str, Any] = {VARIABLES[n].field: _parsed(n, text) for n, text in given.items() if text}
    if found.get("jwt_secret", "") in found.get("hmac_secrets", ()):
        raise ConfigError(
            "REPLAY_JWT_SECRET is one of TRANSBOT_HMAC_SECRET; allowed: different secrets. Correct the variables"
        )
    if "base_url" in found and _address(found["base_url"]) == _address(found.get("baseline_url", "")):
        raise ConfigError(
            "BASELINE_URL is BASE_URL; allowed: the release before, at an address of its own. Correct it, or unset it"
        )
    passwords = other_passwords(found.get("database_url", ""), environ)
    if found.get("database_url"):
        found["database_url"] = placed(found["database_url"], environ)
    if endless := without_end(found.get("database_url", ""), environ):
        raise ConfigError(
            f"{endless[:200]!a} is no file, and opening it may never end; allowed: regular files for the certificates,"
            " passwords, services and keys of a connection. Correct DATABASE_URL, or its PG and SSL variables"
        )
    kind, key = _kind(environ.get("GATE_TARGET", "").strip()), environ.get(KEYS[0], "").strip()
    target = Target(kind=kind, other_passwords=passwords, signing_key=key, **found)
    if kind is TargetKind.REFERENCE and not is_here(target):
        raise ConfigError(
            "GATE_TARGET is reference, and BASE_URL or DATABASE_URL leads to another machine; allowed: a reference of"
            " the gate's own, in which it breaks what it likes. Say production or staging"
        )
    return target


def _address(url: str) -> tuple[str, str, int, str]:
    """The normal form of an address, to compare two of them."""
    parts = urlsplit(url)
    port = parts.port or {"http": 80, "https": 443}.get(parts.scheme, 0)
    return parts.scheme, (parts.hostname or "").rstrip("."), port, parts.path.rstrip("/")


def deployment_variables(environ: Mapping[str, str]) -> list[str]:
    """The variables that show that the caller means a deployment of its own. Empty ones count: a pipeline without its
    secrets sets them so, and does not ask for the reference.
    """
    found = [name for name in DEPLOYMENT if name in environ]
    return found if environ.get("GATE_TARGET", "").strip() != TargetKind.REFERENCE.value else found[1:]


def secrets_in(environ: Mapping[str, str]) -> Target:
    """The secrets in the environment, valid or not. Use them only for redaction."""
    given = {n: environ.get(n, "").strip() for n, variable in VARIABLES.items() if variable.secret}
    secrets: dict[str, Any] = {VARIABLES[n].field: text for n, text in given.items() if n != "TRANSBOT_HMAC_SECRET"}
    listed = tuple(part.strip() for part in given["TRANSBOT_HMAC_SECRET"].split(","))
    passwords = other_passwords(given["DATABASE_URL"], environ)
    key = environ.get(KEYS[0], "").strip()
    return Target(TargetKind.PRODUCTION, hmac_secrets=listed, other_passwords=passwords, signing_key=key, **secrets)


def _kind(word: str) -> TargetKind:
    kinds = tuple(k.value for k in TargetKind)
    if word and word not in kinds:
        raise ConfigError(f"GATE_TARGET is {word[:80]!a}; allowed: {', '.join(kinds)}. {nearest(word, kinds)}")
    return TargetKind(word or "production")


def _parsed(name: str, text: str) -> object:
    variable = VARIABLES[name]
    try:
        return variable.parse(values.utf8(text))
    except values.Unfit as unfit:
        observed = "cannot be used" if variable.secret else f"is {text[:80]!a}"
        raise ConfigError(f"{name} {observed}; allowed: {unfit}. Correct the variable") from None


LIBRARIES = ("PG", "SSL_CERT_")
"""Prefixes of the variables that libpq and OpenSSL read."""

DEPLOYMENT = ("GATE_TARGET", *WANTED)
"""Whoever sets one of these does not want the reference to be started."""

ACTORS = (
    *("GITHUB_ACTOR", "GITLAB_USER_LOGIN", "BUILDKITE_BUILD_CREATOR", "CIRCLE_USERNAME", "BUILD_REQUESTEDFOR"),
    *("USER", "LOGNAME"),
)
"""Who started the pipeline, as CI systems name it, then the login. The first that is set counts."""

KEYS = ("GATE_SIGNING_KEY", "GATE_VERIFY_KEY")
"""Keys that sign and verify verdicts. No suite gets them."""

CHANGES_PYTHON = (
    *("PYTHONOPTIMIZE", "PYTHONWARNINGS", "PYTHONSTARTUP", "PYTHONINSPECT", "PYTHONDEVMODE", "PYTHONBREAKPOINT"),
    *("PYTHONPROFILEIMPORTTIME", "PYTHONDEBUG", "PYTHONVERBOSE", "PYTHONTRACEMALLOC", "PYTHONASYNCIODEBUG"),
    *("PYTHONIOENCODING", "SSLKEYLOGFILE"),
)
"""Variables that change how Python runs; our processes do not get them. The first would remove every `assert`."""
CHANGES_SUITES = ("PYTEST_", "LOCUST_", "GEVENT_")
"""Prefixes of the variables that are options of the tools that run the suites."""


def plain(environ: Mapping[str, str]) -> dict[str, str]:
    """The environment without what changes Python or the suites, or where libpq goes."""
    left_out = {*CHANGES_PYTHON, *REDIRECTS}
    return {k: v for k, v in environ.items() if k not in left_out and not k.startswith(CHANGES_SUITES)}


def environment_of(target: Target, environ: Mapping[str, str]) -> dict[str, str]:
    """The environment for a suite that examines `target`: load_target of it returns the same target."""
    described = {name: _written(getattr(target, variable.field)) for name, variable in VARIABLES.items()}
    described["GATE_TARGET"] = target.kind.value
    described[NAMES] = current().dump() if current() else ""
    described[LENDING] = lending(target.database_url)
    others = {k: v for k, v in plain(environ).items() if k not in {*described, *KEYS}}
    return {**others, **{k: v for k, v in described.items() if v}}


def _written(value: str | bool | tuple[str, ...]) -> str:
    """The value of a target's field, as text for its variable."""
    if isinstance(value, bool):
        return "true" if value else "false"
    return value if isinstance(value, str) else ",".join(value)


def load_policy(path: Path | None, today: dt.date, state: Path | None = None) -> PolicyFile:
    """Read gate.yaml: the named file, else that of the working directory, else the shipped one, else the defaults.

    state: where to keep what outlives a run, instead of the folder that the file names. This process uses the policy's
    names from here on, even if another part of the file is wrong. Raise NamesUnread if the file cannot be read,
    NamesError if its names of the database are wrong, ConfigError for any other mistake.
    """
    if path is None:
        found = [p for p in (Path(POLICY_FILE), SHIPPED_POLICY) if os.path.lexists(p)]
        if not found:
            use(Names(), {})
            return _remembering(parse("version: 1\n", POLICY_FILE, Path(), today), state)
        path = found[0]
    try:
        text = disk.read_text(path, MOST_POLICY)
    except OSError as error:
        raise NamesUnread(f"{path}:1:1: {of_file(error)}; allowed: a readable text file. Correct --policy") from None
    use(names_of_text(text, str(path)), process_environment())
    try:
        file = parse(text, str(path), path.parent.resolve(), today)
    except NamesError as error:  # of the service: those of the database were read
        raise ConfigError(str(error)) from None
    use(file.names, process_environment())
    return _remembering(file, state)


def _remembering(file: PolicyFile, state: Path | None) -> PolicyFile:
    return file if state is None else replace(file, settings=replace(file.settings, state=state))
