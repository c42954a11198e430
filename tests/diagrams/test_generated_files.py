"""The files in diagrams/ are what the tables say now, and the same on every machine."""

from __future__ import annotations

import os
import struct
import subprocess
import sys
import zlib
from pathlib import Path
from typing import Any

import pytest

from shem.diagrams import Format, render
from shem.diagrams.png import to_png
from shem.errors import ConfigError
from shem.lifecycle import ACTIVITY, AGREEMENT, SERVICE, Table

FOLDER = Path(__file__).parents[2] / "diagrams"
FILES: dict[str, Table[Any, Any]] = {"lifecycle": SERVICE, "agreement": AGREEMENT, "activity": ACTIVITY}
COMMAND = "shem diagram --all diagrams"
TEXTS = [format for format in Format if format is not Format.PNG]


def png_size(data: bytes) -> tuple[int, int]:
    """Width and height in pixels; fails on what is no PNG."""
    assert data[:8] == b"\x89PNG\r\n\x1a\n"
    assert data[12:16] == b"IHDR"
    width, height = struct.unpack(">II", data[16:24])
    return width, height


@pytest.mark.parametrize("format", TEXTS, ids=lambda format: format.value)
@pytest.mark.parametrize("name", FILES)
def test_a_generated_file_is_what_its_table_says(name: str, format: Format) -> None:
    path = FOLDER / f"{name}{format.suffix}"
    kept = path.read_text(encoding="utf-8") if path.exists() else None
    same = kept == render(FILES[name], format)
    assert same, f"{path.name} is not what the {name} table says; run: {COMMAND}"


@pytest.mark.parametrize("name", FILES)
def test_a_generated_png_is_an_image_of_a_size_to_read(name: str) -> None:
    path = FOLDER / f"{name}.png"
    assert path.exists(), f"{path.name} is missing; run: {COMMAND}"
    width, height = png_size(path.read_bytes())
    assert 1000 <= width <= 4000
    assert 1000 <= height <= 4000


def test_the_folder_holds_nothing_else() -> None:
    assert {path.name for path in FOLDER.iterdir()} == {
        f"{name}{format.suffix}" for name in FILES for format in Format
    }


def test_the_text_does_not_depend_on_the_order_of_hashes() -> None:
    script = (
        "import sys; from shem.diagrams import render; from shem.lifecycle import SERVICE\n"
        "for f in 'svg dot mermaid markdown'.split(): sys.stdout.buffer.write(render(SERVICE, f).encode())"
    )
    here = "".join(str(render(SERVICE, format)) for format in ("svg", "dot", "mermaid", "markdown"))
    for seed in ("1", "2"):
        environ = {**os.environ, "PYTHONHASHSEED": seed}
        told = subprocess.run([sys.executable, "-c", script], capture_output=True, check=True, env=environ)
        assert told.stdout.decode() == here


# --- PNG


def pixels(png: bytes) -> bytes:
    """The unpacked image data."""
    data, at = b"", 8
    while at < len(png):
        length = struct.unpack(">I", png[at : at + 4])[0]
        if png[at + 4 : at + 8] == b"IDAT":
            data += png[at + 8 : at + 8 + length]
        at += 12 + length
    return zlib.decompress(data)


WORD = (
    '<svg xmlns="http://www.w3.org/2000/svg" width="60" height="20" font-family="Lato, sans-serif">'
    '<text x="2" y="15" font-size="12"{style}>Word</text></svg>'
)


def test_a_png_shows_its_text_even_where_no_fonts_are_installed() -> None:
    resvg = pytest.importorskip("resvg_py")
    pytest.importorskip("font_lato")
    without_fonts = {"skip_system_fonts": True, "dpi": 96, "zoom": 2}
    empty = pixels(resvg.svg_to_bytes(svg_string=WORD.replace("Word", "").format(style=""), **without_fonts))
    lost = pixels(resvg.svg_to_bytes(svg_string=WORD.format(style=""), **without_fonts))
    assert lost == empty, "without a font there is nothing to see; that is what the shipped font is for"
    plain, bold, italic = (
        pixels(to_png(WORD.format(style=style)))
        for style in ("", ' font-weight="bold"', ' font-style="italic"')
    )
    assert len({empty, plain, bold, italic}) == 4


def test_a_png_is_twice_the_size_of_its_svg() -> None:
    pytest.importorskip("resvg_py")
    pytest.importorskip("font_lato")
    assert png_size(to_png(WORD.format(style=""))) == (120, 40)


@pytest.mark.parametrize("package", ["resvg_py", "font_lato"])
def test_a_png_without_the_extra_says_what_to_install(package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("resvg_py")
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ConfigError, match=rf"{package}.*pip install 'shem\[diagrams\]'"):
        render(AGREEMENT, Format.PNG)
