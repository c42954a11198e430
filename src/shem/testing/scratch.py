"""Keeps files of this machine as they were while simulated lives download over them."""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from pathlib import Path


class Scratch:
    """Remembers files before they are written to, and puts them back."""

    def __init__(self) -> None:
        self._kept: dict[Path, Path | None] = {}
        self._touched: set[Path] = set()
        self._folder: tempfile.TemporaryDirectory[str] | None = None

    def keep(self, path: Path) -> None:
        """A file is about to be written to."""
        path = path.absolute()
        self._touched.add(path)
        if path in self._kept:
            return
        if not path.is_file():
            self._kept[path] = None
            return
        if self._folder is None:
            self._folder = tempfile.TemporaryDirectory(prefix="shem-check-")
        copy = Path(self._folder.name) / str(len(self._kept))
        shutil.copy2(path, copy)
        self._kept[path] = copy

    def restore(self) -> None:
        """Put back what there was, and remove what there was not."""
        for path in self._touched:
            copy = self._kept[path]
            # What cannot be put back now, is tried again after the next life that writes to it.
            with contextlib.suppress(OSError):
                if copy is None:
                    path.unlink(missing_ok=True)
                else:
                    shutil.copy2(copy, path)
        self._touched.clear()

    def close(self) -> None:
        """Put everything back, and forget it."""
        self.restore()
        if self._folder is not None:
            self._folder.cleanup()
            self._folder = None
        self._kept.clear()
