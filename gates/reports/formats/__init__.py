"""The formats of a report, one module each. A new format is a module here with a FORMAT, and its test."""

import importlib
import pkgutil

from gates.reports.formats.format import Format

FORMATS: tuple[Format, ...] = tuple(
    module.FORMAT
    for name in sorted(m.name for m in pkgutil.iter_modules(__path__))
    if hasattr(module := importlib.import_module(f"{__name__}.{name}"), "FORMAT")
)
"""Every format, by name."""
FILES = tuple(f.file for f in FORMATS if f.file)
"""What a run leaves beside its evidence."""
