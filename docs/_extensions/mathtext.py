"""Formulas as inline SVG, drawn by Matplotlib while the pages are built.

Sphinx's own renderers need a TeX installation, or a script that the reader's browser downloads. These formulas need neither: they
read the same without a network, follow the colour of the text, and print well. Matplotlib knows a large part of TeX's
mathematics; what it does not know is a warning, and therefore an error of `make docs`.
"""

from __future__ import annotations

import html
import re

from docutils import nodes
from matplotlib.font_manager import FontProperties
from matplotlib.path import Path
from matplotlib.textpath import text_to_path
from sphinx.application import Sphinx
from sphinx.util import logging
from sphinx.writers.html5 import HTML5Translator

FONT = FontProperties(math_fontfamily="stix")
EM = text_to_path.FONT_SCALE  # units of a glyph's outline
SCALE = 1.12  # em of the text; STIX has smaller letters than the sans-serif of the page
MARGIN = 0.04 * EM  # outlines may pass the box that TeX gives a letter
COMMANDS = {Path.MOVETO: "M", Path.LINETO: "L", Path.CURVE3: "Q", Path.CURVE4: "C", Path.CLOSEPOLY: "Z"}

# Spellings of TeX that Matplotlib does not read, and the same in words that it does.
SPELLINGS = (
    (r"\\[bB]igg?[lr]?(?=[(\[])", r"\\left"),
    (r"\\[bB]igg?[lr]?(?=[)\]])", r"\\right"),
    (r"\\textstyle(?![a-z])", ""),
    (r"\\bmod(?![a-z])", r"\\ \\mathrm{mod}\\ "),
    (r"\\tfrac(?![a-z])", r"\\frac"),
    (r"\\(d?frac)\s*(\d)\s*(\d)", r"\\\1{\2}{\3}"),
    (r"\\(mathcal|mathbb|mathrm|hat|bar) (\w)", r"\\\1{\2}"),
    (r"\\(le|ge)(?![a-z])", r"\\\1q"),
)

logger = logging.getLogger(__name__)


def to_svg(tex: str, *, is_display: bool = False) -> str:
    """Draw a formula.

    Args:
        tex: Without dollar signs.
        is_display: It stands alone, with room for large fractions.

    Returns:
        An SVG element that stands on the baseline of the text around it.

    Raises:
        ValueError: Matplotlib cannot read it.
    """
    spelled = " ".join(tex.split())
    if is_display:
        spelled = re.sub(r"\\frac(?![a-z])", r"\\dfrac", spelled)
    for pattern, replacement in SPELLINGS:
        spelled = re.sub(pattern, replacement, spelled)
    formula = f"${spelled}$"
    width, height, descent = text_to_path.get_text_width_height_descent(formula, FONT.copy(), ismath=True)
    scale = EM / FONT.get_size_in_points()
    width, height, descent = (scale * size + pad for size, pad in ((width, 0), (height, 2 * MARGIN), (descent, MARGIN)))
    vertices, codes = text_to_path.get_text_path(FONT, formula, ismath=True)
    box = f"0 {descent - height:.0f} {width:.0f} {height:.0f}"
    size = f"width:{SCALE * width / EM:.3f}em;height:{SCALE * height / EM:.3f}em;vertical-align:{-SCALE * descent / EM:.3f}em"
    return (
        f'<svg class="formula" role="img" aria-label="{html.escape(tex)}" viewBox="{box}" style="{size}">'
        f'<path d="{_outline(vertices, codes)}"/></svg>'
    )


def _outline(vertices: list[tuple[float, float]], codes: list[int]) -> str:
    # All points of a curve carry its code: a command letter at the first, none at those that follow.
    lengths = {Path.CURVE3: 2, Path.CURVE4: 3}
    words, waiting = [], 0
    for (x, y), code in zip(vertices, codes, strict=True):
        if waiting == 0:
            words.append(COMMANDS[code])
            waiting = lengths.get(code, 1)
        if code != Path.CLOSEPOLY:
            words.append(f"{x:.0f} {-y:.0f}")
        waiting -= 1
    return " ".join(words)


def _draw(tex: str, node: nodes.Node, *, is_display: bool) -> str:
    try:
        return to_svg(tex, is_display=is_display)
    except ValueError as error:
        logger.warning("this formula cannot be drawn: %s: %s", tex, str(error).splitlines()[-1], location=node)
        return f"<code>{html.escape(tex)}</code>"


def visit_inline(translator: HTML5Translator, node: nodes.math) -> None:
    """Write a formula within a line."""
    translator.body.append(_draw(node.astext(), node, is_display=False))
    raise nodes.SkipNode


def visit_block(translator: HTML5Translator, node: nodes.math_block) -> None:
    r"""Write a formula that stands alone; a double backslash begins a new line."""
    lines = [_draw(line, node, is_display=True) for line in re.split(r"\\\\", node.astext()) if line.strip()]
    translator.body.append("".join(f'<div class="formulas">{line}</div>' for line in lines))
    raise nodes.SkipNode


def setup(app: Sphinx) -> dict[str, bool]:
    """Register the renderer with Sphinx, which calls this."""
    app.add_html_math_renderer("mathtext", (visit_inline, None), (visit_block, None))
    return {"parallel_read_safe": True, "parallel_write_safe": True}
