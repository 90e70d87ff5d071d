"""What all figures share: colours, style, a size in inches, and alternative text.

The colours of Okabe and Ito and the map cividis suit colour-blind readers. pyplot is not used: a figure belongs to its
caller and is freed with it.
"""

import base64
import html
import io
from typing import Any

from IPython import display, get_ipython
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke

BLACK, ORANGE, SKY, GREEN, BLUE, VERMILLION = "#000000", "#E69F00", "#56B4E9", "#009E73", "#0072B2", "#D55E00"
GREY = "#666666"  # dark enough to be read on white
STYLE: dict[Any, Any] = {
    "font.size": 13,
    "axes.titlesize": 14,
    "axes.titlelocation": "left",
    "axes.titlepad": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "legend.frameon": False,
    "lines.linewidth": 2.2,
    "savefig.dpi": 120,
    "text.parse_math": False,  # an action may hold a $
}

WIDGET_MIME = "application/vnd.jupyter.widget-view+json"
TEXT_OUTLINE = [withStroke(linewidth=3, foreground="white")]  # keeps text readable across a line


def png(figure: Figure) -> bytes:
    """`figure` as the bytes of a PNG file."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=STYLE["savefig.dpi"])
    return buffer.getvalue()


def png_uri(data: bytes) -> str:
    """The bytes of a PNG file as a data URI."""
    return f"data:image/png;base64,{base64.b64encode(data).decode()}"


class NotebookFigure(Figure):
    """A figure that a notebook displays once, with its label as alternative text."""

    def _ipython_display_(self) -> None:
        """Display the figure and its alternative text, folded, below it: JupyterLab drops that of the image."""
        if not is_interactive():
            raise NotImplementedError  # IPython then uses the bundle below
        bundle, about = self._repr_mimebundle_()
        alt = str(self.get_label())
        folded = f"<details><summary>This figure in words</summary>{html.escape(alt)}</details>"
        display.display(bundle, metadata=about, raw=True)
        display.display({"text/html": folded, "text/plain": alt}, raw=True)

    def _repr_mimebundle_(self, **_: Any) -> tuple[dict[str, bytes], dict[str, dict[str, str]]]:
        return {"image/png": png(self)}, {"image/png": {"alt": str(self.get_label())}}


def is_interactive() -> bool:
    """Whether a reader uses this kernel: JupyterLab can ask for input, papermill cannot."""
    kernel = getattr(get_ipython(), "kernel", None)
    return bool(kernel and kernel.get_parent().get("content", {}).get("allow_stdin"))


def with_alt(figure: Figure, text: str) -> Figure:
    """`figure` with `text` as its alternative text (its label)."""
    figure.set_label(text)
    return figure


def panels(width: float, height: float, columns: int = 1, **grid: Any) -> tuple[Figure, list[Axes]]:
    """A figure of `width` x `height` inches and its axes, side by side."""
    figure = NotebookFigure(figsize=(width, height), layout="constrained")
    return figure, list(figure.subplots(1, columns, squeeze=False, **grid).flat)


def note(axes: Axes, text: str, at: tuple[Any, Any], offset: tuple[float, float] = (0, 0), **style: Any) -> None:
    """Write `text` at the point `at`, moved by `offset` points, with a white outline that keeps it readable."""
    axes.annotate(text, at, offset, textcoords="offset points", path_effects=TEXT_OUTLINE, **style)
