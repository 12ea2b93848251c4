"""What a platform provides before the first migration, and how a folder shows its platform."""

import re

from gates.rehearsal.postgres.installation import DATA
from gates.rehearsal.reading.sources import Migrations

NONE, SUPABASE = "none", "supabase"
PRESETS = (NONE, SUPABASE)
_NAMED = re.compile(
    r"\bauth\.(?:uid|jwt|role|email)\s*\(|\bauth\.users\b|\bstorage\.(?:objects|buckets)\b|\bto\s+(?:authenticated|anon|"
    r"service_role)\b",
    re.IGNORECASE,
)
OF_SUPABASE = {
    *("auth", "storage", "realtime", "extensions", "vault", "anon", "authenticated", "service_role", "authenticator"),
    *("supabase_admin", "supabase_auth_admin", "supabase_storage_admin", "supabase_realtime", "supabase_functions"),
}
"""Names that the platform gives."""
_MADE = re.compile(
    r"\bcreate\s+(?:schema\s+(?:if\s+not\s+exists\s+)?\"?auth\b|(?:or\s+replace\s+)?function\s+\"?auth\"?\.|"
    r"role\s+\"?(?:authenticated|anon|service_role)\b)",
    re.IGNORECASE,
)


def detect(migrations: Migrations) -> tuple[str, str]:
    """The preset, and why it was chosen."""
    if migrations.supabase:
        return SUPABASE, "preset supabase: the folder is laid out as supabase/migrations"
    for source in migrations.sources:
        if any(_MADE.search(s.text) for s in migrations.sources):
            break  # the migrations themselves create what the preset would
        if found := _NAMED.search(source.text):
            line = source.text.count("\n", 0, found.start()) + 1
            return (
                SUPABASE,
                f"preset supabase: {found[0].strip()} is named at {source.shown}:{line} (--preset none: without)",
            )
    return NONE, ""


def statements_of(preset: str) -> str:
    """The SQL that a superuser runs before the first migration."""
    return (DATA / "supabase.sql").read_text(encoding="utf-8") if preset == SUPABASE else ""


def roles_of(preset: str) -> frozenset[str]:
    return frozenset(re.findall(r"^create role (\w+)", statements_of(preset), re.MULTILINE))


def stubs_of(preset: str) -> tuple[str, ...]:
    return ("schema auth", "schema storage", "schema realtime") if preset == SUPABASE else ()


def roles_of_dump(migrations: Migrations) -> tuple[str, ...]:
    """The roles that a dump names and, as pg_dump does, never creates."""
    texts = [s.text for s in migrations.sources if s.is_dump]
    named = {m[1] or m[2] for text in texts for m in _ROLE.finditer(text)}
    made = {m[1].strip('"') for text in texts for m in re.finditer(r"^CREATE ROLE (\S+?);", text, re.MULTILINE)}
    return tuple(sorted(named - made - {"postgres", "PUBLIC", "public", "pg_database_owner", "CURRENT_USER"}))


_ROLE = re.compile(
    r"^(?:ALTER .* OWNER TO|GRANT .* TO|REVOKE .* FROM|ALTER DEFAULT PRIVILEGES FOR ROLE) "
    r"(?:\"([^\"]+)\"|([A-Za-z_][\w$]*))(?=[ ;])",
    re.MULTILINE,
)
