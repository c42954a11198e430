"""A picture in Graphviz's language, for those who want to lay it out or style it further.

The spine is held together by a `group` and heavy edges. Labels are plain text, so that every build of
Graphviz can draw them: a line per event with who raises it, under a line with the guard, if any. An arrow has
one colour.
"""

from __future__ import annotations

from shem.diagrams.legend import legend
from shem.diagrams.picture import Arrow, Node, Picture
from shem.diagrams.style import INK, KIND_COLOUR, MIXED, PAPER, QUIET

_FADED = "#cbd5e1"


def write_dot(picture: Picture) -> str:
    """The picture as a dot digraph."""
    idents = {node.key: node.ident for node in picture.nodes}
    font = "fontname=Helvetica"
    lines = [
        f"digraph {_quote(picture.table)} {{",
        f"    graph [label={_quote(picture.title)}, labelloc=t, labeljust=l, fontsize=20, {font}];",
        f'    graph [fontcolor="{INK}", bgcolor="{PAPER}", nodesep=0.5, ranksep=0.4, pad=0.3, rankdir=TB];',
        f'    node [shape=box, style="rounded,filled", fontsize=16, {font}, fontcolor="{INK}"];',
        '    node [penwidth=1.8, margin="0.3,0.14"];',
        f"    edge [fontsize=11, {font}, penwidth=1.4, arrowsize=0.8];",
        f'    __start__ [shape=circle, style=filled, fillcolor="{INK}", label="", width=0.16, group=spine];',
    ]
    lines += [f"    {_node(node, picture)}" for node in picture.nodes]
    lines += [
        f'    __start__ -> {_quote(node.ident)} [color="{INK}", weight=20];'
        for node in picture.nodes
        if node.initial
    ]
    lines += [f"    {_edge(arrow, picture, idents)}" for arrow in picture.arrows]
    lines += _legend(picture, idents)
    lines.append("}")
    return "\n".join(lines) + "\n"


def _quote(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def _lines(*texts: str, end: str) -> str:
    """A label of several lines; `end` is dot's mark for how they are set (``\\l`` left, ``\\n`` centred)."""
    return '"' + "".join(_quote(text)[1:-1] + end for text in texts) + '"'


def _node(node: Node, picture: Picture) -> str:
    count = "" if node.count is None else f"  ×{node.count}"
    attributes = [f"label={_lines(node.name + count, *node.lines, end=chr(92) + 'n')}"]
    faded = picture.steps_taken and not node.visited
    attributes.append(f'fillcolor="{PAPER if faded else node.tone.fill}"')
    attributes.append(f'color="{_FADED if faded else node.tone.border}"')
    if faded:
        attributes.append(f'fontcolor="{_FADED}"')
    if node.current:
        attributes.append("penwidth=4")
    if node.final:
        attributes.append("peripheries=2")
    if node.key in picture.plan.spine:
        attributes.append("group=spine")
    return f"{_quote(node.ident)} [{', '.join(attributes)}];"


def _edge(arrow: Arrow, picture: Picture, idents: dict[str, str]) -> str:
    colour = MIXED if arrow.kind is None else KIND_COLOUR[arrow.kind]
    if picture.steps_taken and not arrow.taken:
        colour = _FADED
    attributes = [f"label={_label(arrow)}", f'color="{colour}"', f'fontcolor="{colour}"']
    if picture.skips(arrow):
        # Without this some of them would pass through the states beside the spine.
        attributes += ["tailport=e", "headport=e"]
    if picture.on_spine(arrow):
        attributes += ["weight=50", "penwidth=2.6"]
    if arrow.taken:
        attributes.append("penwidth=4")
    return f"{_quote(idents[arrow.source])} -> {_quote(idents[arrow.dest])} [{', '.join(attributes)}];"


def _label(arrow: Arrow) -> str:
    texts: list[str] = []
    for guard, steps in arrow.by_guard():
        texts += [f"  [{guard}] "] if guard else []
        texts += [f"  {step.text} " for step in steps]
    return _lines(*texts, end="\\l")


def _legend(picture: Picture, idents: dict[str, str]) -> list[str]:
    last = _quote(idents[picture.plan.spine[-1]])
    lines = ["    subgraph legend {", "        rank=sink;"]
    lines.append("        node [shape=plaintext, style=solid, fontsize=11, margin=0.05];")
    names = []
    for number, entry in enumerate(legend(picture)):
        names.append(f"__legend_{number}__")
        colour = entry.colour or QUIET
        lines.append(f'        {names[-1]} [label={_quote(entry.text)}, fontcolor="{colour}"];')
    lines.append("    }")
    return lines + [f"    {last} -> {name} [style=invis];" for name in names]
