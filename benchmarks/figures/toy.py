"""Draw the picture of the page "D_LR in five minutes": docs/concepts/toy-light.svg and toy-dark.svg.

    python benchmarks/figures/toy.py

Bars: the strengths of three uncorrelated features. Outlines: the strengths that the outputs need. D_LR is one minus the cosine
between the two.
"""

from __future__ import annotations

import math
from pathlib import Path

FOLDER = Path(__file__).parents[2] / "docs/concepts"
THEMES = {
    "light": {"text": "#1f2933", "faint": "#5c6770", "needed": "#2f6fb5", "unused": "#b9c0c7"},
    "dark": {"text": "#e6e9ee", "faint": "#a9b1bb", "needed": "#6ea8ec", "unused": "#5a6270"},
}
CASES = [  # title, strengths of the features, which of them the outputs need
    ("as rich as possible", (1, 1, 0), (1, 1, 0)),
    ("rich", (9, 4, 1), (1, 1, 0)),
    ("lazy", (9, 4, 1), (0, 1, 1)),
]
WIDTH, HEIGHT, PANEL, BASE, UNIT, BAR = 720, 330, 240, 215, 130, 44


def cosine(a: tuple[int, ...], b: tuple[int, ...]) -> float:
    """The cosine of the angle between two vectors."""
    return sum(x * y for x, y in zip(a, b, strict=True)) / math.sqrt(sum(x * x for x in a) * sum(y * y for y in b))


def drawn(theme: dict[str, str]) -> str:
    """The picture as SVG."""
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" height="{HEIGHT}" '
        f'font-family="Helvetica, Arial, sans-serif" font-size="14" fill="{theme["text"]}" text-anchor="middle">'
    ]
    for number, (title, strengths, needed) in enumerate(CASES):
        parts += _panel(number * PANEL, title, strengths, needed, theme)
    parts += _scale(theme)
    return "\n".join([*parts, "</svg>\n"])


def _panel(left: int, title: str, strengths: tuple[int, ...], needed: tuple[int, ...], theme: dict[str, str]) -> list[str]:
    value = 1 - cosine(strengths, needed)
    middle = left + PANEL // 2
    parts = [
        f'<text x="{middle}" y="22" font-size="16" font-weight="bold">{title}</text>',
        f'<text x="{middle}" y="44" font-size="16">D_LR = {abs(value):.2f}</text>',
        f'<line x1="{left + 20}" y1="{BASE}" x2="{left + PANEL - 20}" y2="{BASE}" stroke="{theme["faint"]}"/>',
    ]
    for k, (strength, need) in enumerate(zip(strengths, needed, strict=True)):
        x = left + 34 + k * (BAR + 20)
        bar, outline = (UNIT * v / math.hypot(*of) for v, of in ((strength, strengths), (need, needed)))
        color = theme["needed"] if need else theme["unused"]
        parts.append(f'<rect x="{x}" y="{BASE - bar:.1f}" width="{BAR}" height="{bar:.1f}" fill="{color}"/>')
        if need:
            parts.append(
                f'<rect x="{x}" y="{BASE - outline:.1f}" width="{BAR}" height="{outline:.1f}" fill="none" '
                f'stroke="{theme["text"]}" stroke-width="2" stroke-dasharray="5 4"/>'
            )
        parts.append(f'<text x="{x + BAR // 2}" y="{BASE + 19}" fill="{theme["faint"]}">φ{"₁₂₃"[k]}</text>')
    return parts


def _scale(theme: dict[str, str]) -> list[str]:
    left, right, y = 54, WIDTH - 54, 278

    def at(value: float) -> str:
        return f"{left + value * (right - left):.1f}"

    parts = [f'<line x1="{left}" y1="{y}" x2="{right}" y2="{y}" stroke="{theme["faint"]}" stroke-width="2"/>']
    for value, text in ((0.0, "0"), (1.0, "1")):
        parts.append(f'<text x="{at(value)}" y="{y + 24}" fill="{theme["faint"]}">{text}</text>')
    for _, strengths, needed in CASES:
        parts.append(f'<circle cx="{at(abs(1 - cosine(strengths, needed)))}" cy="{y}" r="7" fill="{theme["needed"]}"/>')
    isotropic = 1 - math.sqrt(2 / 3)
    parts += [
        f'<line x1="{at(isotropic)}" y1="{y - 9}" x2="{at(isotropic)}" y2="{y + 9}" stroke="{theme["text"]}" stroke-width="2"/>',
        f'<text x="{at(isotropic)}" y="{y + 24}" fill="{theme["faint"]}">three equal features: {isotropic:.2f}</text>',
        f'<text x="{WIDTH / 2}" y="{y + 44}" fill="{theme["faint"]}">'
        "bars: strength of each feature (blue: the outputs need it) · dashed: what the outputs need</text>",
    ]
    return parts


if __name__ == "__main__":
    for name, theme in THEMES.items():
        (FOLDER / f"toy-{name}.svg").write_text(drawn(theme), encoding="utf-8")
