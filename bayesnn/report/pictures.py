"""What a page shows of a picture: figures with a title and a note each."""

from __future__ import annotations

import base64
import io
from typing import TYPE_CHECKING, NamedTuple

from markupsafe import Markup

if TYPE_CHECKING:
    from matplotlib.figure import Figure

DOTS = 110  # an inch: text of matplotlib's size is then that of the page


class Shown(NamedTuple):
    """A figure: its title, a note below the title, and the drawing."""

    title: str
    note: Markup
    chart: Markup


class Drawing(NamedTuple):
    """Figures side by side.

    Attributes:
        figures: The figures.
        remark: Sentence on what they leave out; empty if nothing.
    """

    figures: list[Shown]
    remark: str = ""


def embedded(figure: Figure, label: str) -> Markup:
    """Return a figure of matplotlib as an image inside the page.

    Args:
        figure: The figure.
        label: What it shows, for those who cannot see it.
    """
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=DOTS)
    source = base64.b64encode(file.getvalue()).decode()
    return Markup('<img class="picture" alt="{}" src="data:image/png;base64,{}">').format(label, source)
