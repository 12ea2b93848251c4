"""Prints a page to PDF with the system's Chromium: nothing is downloaded, and the page has no network access."""

import os
import shutil
import subprocess
import tempfile
from pathlib import Path

from gates import disk
from gates.errors import CannotWork

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
FILE = "report.pdf"
LIMIT_S = 120.0
OPTIONS = (
    *("--headless", "--disable-gpu", "--no-first-run", "--disable-extensions", "--disable-background-networking"),
    *("--host-resolver-rules=MAP * ~NOTFOUND", "--no-pdf-header-footer"),
)


def chromium() -> str | None:
    """The path of the system's Chromium or Chrome; None if there is none."""
    return next(filter(None, map(shutil.which, NAMES)), None)


def write_pdf(page: Path, to: Path) -> None:
    """Print the page to the file. Raise CannotWork if there is no Chromium, or it does not print."""
    found = chromium()
    if found is None:
        raise CannotWork(f"no Chromium in PATH; allowed: one of {', '.join(NAMES)}. Install one, or print {page.name}")
    to.unlink(missing_ok=True)  # an older file must not pass for this one
    with tempfile.TemporaryDirectory() as profile:
        printed = Path(profile) / FILE  # it would follow a link
        words = [found, *OPTIONS, f"--user-data-dir={profile}", f"--print-to-pdf={printed}", page.resolve().as_uri()]
        if os.geteuid() == 0:  # its sandbox refuses root
            words.insert(1, "--no-sandbox")
        try:
            done = subprocess.run(words, stdin=subprocess.DEVNULL, capture_output=True, timeout=LIMIT_S, check=False)
        except (OSError, subprocess.TimeoutExpired) as error:
            raise CannotWork(
                f"{found} did not print ({type(error).__name__}); allowed: a Chromium that runs"
            ) from error
        made = printed.read_bytes() if printed.exists() else b""
    if not made.startswith(b"%PDF"):
        raise CannotWork(
            f"{found} wrote no PDF (exit {done.returncode}); allowed: a Chromium that prints. Run it by hand"
        )
    disk.write(to, made)
