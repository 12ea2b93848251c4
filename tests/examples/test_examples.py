"""The examples as such: they come up, and each defect can be planted. The gate against them is `examples.trial`."""

import os
import shutil
from fnmatch import fnmatch
from pathlib import Path

import httpx
import pytest

from examples.defects import EXAMPLES, KINDS, Defect, defects
from examples.ground import HERE, ExampleError, Patch, ground, packages
from gates.catalogue import load

EVERY = [(example, defect) for example in EXAMPLES for defect in defects(example)]
needs_npm = pytest.mark.skipif(shutil.which("npm") is None, reason="npm is not installed: the examples are TypeScript")


@pytest.mark.parametrize("case", EVERY, ids=[f"{example}/{defect.id}" for example, defect in EVERY])
def test_a_defect_fits_its_example(case: tuple[str, Defect], tmp_path: Path) -> None:
    """Each patch changes exactly one place, and the checks that a defect names are in the catalogue."""
    example, defect = case
    assert defect.kind in KINDS
    assert defect.patch or defect.sql or defect.process, f"{defect.id} changes nothing"
    source = tmp_path / "source"
    shutil.copytree(HERE / example, source)
    for patch in defect.patch:
        patch.apply(source)
    known = [spec.id for spec in load()]
    nobody = [glob for glob in defect.named if not any(fnmatch(check, glob) for check in known)]
    assert not nobody, f"{defect.id} names {nobody}; no check has such an id"


def test_a_patch_that_does_not_fit_is_refused(tmp_path: Path) -> None:
    """A patch whose text is not there is an error: the defect would not be in."""
    (tmp_path / "file").write_text("one two", encoding="utf-8")
    Patch("file", "two", "three").apply(tmp_path)
    with pytest.raises(ExampleError, match="allowed: once"):
        Patch("file", "two", "three").apply(tmp_path)


@needs_npm
@pytest.mark.parametrize("example", sorted(EXAMPLES))
def test_an_example_comes_up_and_goes(example: str) -> None:
    """It comes up with a healthy history, and leaves neither a process nor a file."""
    try:
        packages(HERE / example, os.environ)
    except ExampleError as error:
        pytest.skip(f"no packages without a registry: {error}")
    with ground(os.environ) as place:
        variables = EXAMPLES[example](place, (), ())
        if "BASE_URL" in variables:
            assert httpx.get(f"{variables['BASE_URL']}/ready").status_code == 200
        folder, programs = place.run.path, list(place.programs)
    assert not folder.exists()
    assert all(p.exit_code is not None for p in programs)
