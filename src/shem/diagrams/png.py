"""SVG to PNG inside this process, with a font that comes along.

The text is set in Lato from the package `font-lato`, so that the picture is right, and the same, on a machine
without any fonts. Only text beyond the Latin alphabets, which can come from a service's own docstrings, falls
back to the fonts of the system.
"""

from __future__ import annotations

from contextlib import ExitStack
from importlib.resources import as_file, files
from typing import Final

from shem.errors import ConfigError

#: Pixels of the PNG per pixel of the SVG, so that small text stays sharp.
ZOOM: Final = 2

_FACES: Final = ("Regular", "Bold", "Italic")
#: Lato has glyphs for all code points below this one that diagrams use.
_LATIN: Final = 0x180


def to_png(svg: str, *, zoom: float = ZOOM) -> bytes:
    """Render an SVG document of `shem.diagrams.svg` as PNG.

    Raises `ConfigError` where the packages of the extra ``diagrams`` are not installed.
    """
    try:
        import resvg_py

        fonts = files("font_lato") / "files"
    except ImportError as error:
        raise ConfigError(
            f"PNG needs packages that are not installed ({error.name}); "
            "install them with: pip install 'shem[diagrams]' — svg, dot, mermaid and markdown work without"
        ) from error
    with ExitStack() as stack:
        paths = [str(stack.enter_context(as_file(fonts / f"Lato-{face}.ttf"))) for face in _FACES]
        return bytes(
            resvg_py.svg_to_bytes(
                svg_string=svg,
                font_files=paths,
                skip_system_fonts=all(ord(char) < _LATIN for char in svg),
                dpi=96,
                zoom=zoom,
            )
        )
