"""Which variables of the environment sign the requests of a load process."""

from collections.abc import Mapping

from loadtests.plan import Credentials


def credentials_from(environ: Mapping[str, str]) -> Credentials:
    """The first HMAC secret and the admin token of the contract's variables; and all, for requests that name some."""
    secret = environ.get("TRANSBOT_HMAC_SECRET", "").partition(",")[0]
    return Credentials(secret, environ.get("ADMIN_JWT", ""), environ)
