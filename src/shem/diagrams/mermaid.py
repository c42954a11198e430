"""A picture as a mermaid `stateDiagram-v2`, which forges and many Markdown viewers draw by themselves.

Colours of states are shown; arrows have no styles in this kind of diagram, so steps taken are ticked.
"""

from __future__ import annotations

import re

from shem.diagrams.picture import Arrow, Node, Picture
from shem.diagrams.style import INK


def write_mermaid(picture: Picture) -> str:
    """The picture as mermaid text, with its title in the front matter."""
    names = {node.key: node.ident for node in picture.nodes}
    lines = ["---", f"title: {_yaml(picture.title or picture.table)}", "---", "stateDiagram-v2"]
    for node in picture.nodes:
        if node.count is not None or node.ident != node.name:
            count = "" if node.count is None else f" · {node.count}"
            lines.append(f'    state "{_escape(node.name)}{count}" as {node.ident}')
    lines += [f"    [*] --> {node.ident}" for node in picture.nodes if node.initial]
    for arrow in picture.arrows:
        lines.append(f"    {names[arrow.source]} --> {names[arrow.dest]} : {_label(arrow)}")
    lines += [f"    {node.ident} --> [*]" for node in picture.nodes if node.final]
    for node in picture.nodes:
        if node.lines:
            lines.append(f"    note right of {node.ident}")
            lines += [f"        {_escape(fact)}" for fact in node.lines]
            lines.append("    end note")
    for node in picture.nodes:
        lines.append(f"    classDef {_class(node)} {_style(node)}")
        lines.append(f"    class {node.ident} {_class(node)}")
    return "\n".join(lines) + "\n"


def _label(arrow: Arrow) -> str:
    texts: list[str] = []
    for guard, steps in arrow.by_guard():
        texts += [f"[{_escape(guard)}]"] if guard else []
        texts += [f"{'✓ ' if step.taken else ''}{_escape(step.text)}" for step in steps]
    return "<br/>".join(texts)


def _class(node: Node) -> str:
    return f"s{node.ident}"


def _style(node: Node) -> str:
    width = "4px" if node.current else "2px"
    return f"fill:{node.tone.fill},stroke:{node.tone.border},stroke-width:{width},color:{INK}"


def _escape(text: str) -> str:
    # Mermaid ends statements at `;`, starts entities with `#`, and would read tags and quotes as its own.
    return re.sub(r'[#;<>"&{}]', lambda found: f"#{ord(found[0])};", text)


def _yaml(text: str) -> str:
    if re.fullmatch(r"[A-Za-z][\w ,.()-]*", text):
        return text
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'
