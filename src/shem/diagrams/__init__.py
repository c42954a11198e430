"""Pictures of the state machines, drawn from their tables and from nothing else.

`render` is the whole interface. A table first becomes a `picture.Picture` (nodes, and one arrow per pair of
states that carries every move between them), and each format is a writer of pictures: `mermaid`, `dot`,
`markdown`, `svg` and, from the SVG, `png`. `style` says how things look, `meaning` what events mean in words,
`handlers` which methods of a service class belong to which state.

The SVG is laid out here (`layout`) and not by Graphviz, for three reasons: a lifecycle has a spine, which no
general layout finds; labels that say who raises what need several colours in one label; and a live page must
be able to draw where nothing but shem is installed. Only PNG needs the extra ``shem[diagrams]``.

What tables mean, and moving anything, belongs to `shem.lifecycle`; serving live pictures belongs to whoever
has the live state and passes it in as `counts` and `path`.
"""

from shem.diagrams.handlers import handler_notes
from shem.diagrams.render import Format, render

__all__ = ["Format", "handler_notes", "render"]
