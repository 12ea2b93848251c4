"""Hand-written mutants: a YAML file of named defects of the reference, each a few replaced texts."""

from pathlib import Path

from gates.errors import ConfigError
from gates.inputs.shapes import Fields, ListOf, Text
from gates.inputs.strict_yaml import YamlNode, read
from gates.proof.mutants.mutant import PACKAGE, Mutant, one_line
from gates.stack.service import SOURCE_ROOT

ID = Text(r"[a-z0-9][a-z0-9-]{0,79}", "a name of small letters, digits and hyphens")
FILE = Text(rf"{PACKAGE}/(?!.*\.\.)[A-Za-z0-9_./-]+", f"a file below {PACKAGE}/")
REPLACEMENT = Text(r"[\s\S]*", "text")
PATCH = Fields(
    {
        "file": (FILE, "the file that is changed"),
        "find": (Text(), "what stands there once"),
        "replace": (REPLACEMENT, "what stands there instead; nothing: it is left out"),
    },
    needed=("file", "find", "replace"),
)
DEFECT = Fields(
    {
        "id": (ID, "its name"),
        "breaks": (Text(), "what the users of the deployment suffer"),
        "promise": (Text(), "the sentence of the contract that it breaks"),
        "patches": (ListOf(PATCH, 1), "the changes"),
    },
    needed=("id", "breaks", "patches"),
)


def written(path: Path, root: Path = SOURCE_ROOT) -> tuple[Mutant, ...]:
    """The mutants of the file, in its order. Raise ConfigError, with the place, for anything that is not one."""
    try:
        node = read(path.read_text(encoding="utf-8"), str(path))
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: {error}; allowed: a YAML list of mutants. Name another file") from error
    ListOf(DEFECT, 1).read(node)
    found: dict[str, Mutant] = {}
    for one in node.items():
        mutant = _mutant(one, root)
        if mutant.id in found:
            raise one.place.error(f"the id {mutant.id} again", "each id once", "Rename one")
        found[mutant.id] = mutant
    return tuple(found.values())


def _mutant(node: YamlNode, root: Path) -> Mutant:
    defect = DEFECT.read(node)
    texts: dict[str, str] = {}
    patches = node.member("patches")
    for patch, at in zip(defect["patches"], patches.items() if patches else (), strict=True):
        name, find = patch["file"], patch["find"]
        try:
            text = texts[name] if name in texts else (root / name).read_text(encoding="utf-8")
        except OSError as error:
            raise at.place.error(f"{name}: {error.strerror}", f"a file below {PACKAGE}/", "Correct the path") from None
        if (times := text.count(find)) != 1:
            raise at.place.error(f"`find` stands {times} times in {name}", "once", "Take more, or other, lines")
        texts[name] = text.replace(find, patch["replace"])
    words = " ".join(f"{p['file'].removeprefix(PACKAGE)} {p['find']}" for p in defect["patches"])
    about = one_line(f"{defect['breaks']} {defect.get('promise', '')} {words}")
    return Mutant(defect["id"], defect["id"], defect["breaks"], about, texts)
