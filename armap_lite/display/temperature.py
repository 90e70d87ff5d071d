"""The widget of notebook 02: what temperature does to the first choice."""

import math
from collections.abc import Mapping, Sequence

import ipywidgets as ipw
import matplotlib as mpl
from matplotlib.figure import Figure

from armap_lite.display import canvas
from armap_lite.display.tables import cut
from armap_lite.display.widgets import Interactive, image_html, with_output
from armap_lite.llms.base import Choice


def sides_of_the_die(choices: Sequence[Choice]) -> float:
    """Among how many actions a policy effectively chooses: e to the entropy of their probabilities, 1 to K."""
    return math.exp(-sum(math.exp(c.logprob) * c.logprob for c in choices if c.logprob > -math.inf))


def favourite(choices: Sequence[Choice]) -> Choice:
    """The most probable of the choices."""
    return max(choices, key=lambda choice: choice.logprob)


def explore_temperature(found: Mapping[float, Sequence[Choice]], most: int = 12) -> Interactive:
    """Move the temperature: the probabilities of the `most` most probable actions beside those at temperature 1.

    `found`: temperature -> all admissible actions with their log-probabilities, as `choose(n=None)` gives them; 1.0 is
    among the temperatures. Raises ValueError where it is not.
    """
    if 1.0 not in found:
        raise ValueError(f"temperatures {sorted(found)}: expected 1.0 among them, with which the others are compared")
    names = {choice.index: cut(" ".join(choice.text.split()), 44) for choice in found[1.0]}
    shares = {t: {choice.index: math.exp(choice.logprob) for choice in choices} for t, choices in found.items()}
    top = sorted(names, key=lambda index: -shares[1.0][index])[:most]
    number, highest = len(names), 1.05 * max(map(max, map(dict.values, shares.values())))

    @mpl.rc_context(canvas.STYLE)
    def chart(temperature: float) -> Figure:
        figure, (axes,) = canvas.panels(9, 2.1 + 0.34 * len(top))
        place, here = range(len(top)), shares[temperature]
        both = ((-0.2, 1.0, canvas.BLUE), (0.2, temperature, canvas.ORANGE))
        for shift, t, colour in both if temperature != 1 else both[:1]:
            axes.barh([i + shift for i in place], [shares[t][a] for a in top], 0.4, color=colour, label=f"T = {t:g}")
        axes.axvline(1 / number, color=canvas.GREY, ls="--", lw=1.2, label="all equally likely")
        axes.set_yticks(place, [names[index] for index in top], fontsize=12)
        axes.invert_yaxis()
        axes.set(xlabel=f"probability, {len(top)} of {number} first actions", xlim=(0, highest))
        sides, best = sides_of_the_die(found[temperature]), max(here.values())
        title = f"T = {temperature:g}: favourite {best:.0%},\nlike a die of {sides:.1f} sides"
        axes.set_title(title)
        figure.legend(loc="outside right upper")
        bars = "; ".join(f"{names[index]} {here[index]:.2f}" for index in top[:5])
        return canvas.with_alt(figure, f"Bar chart. {title.replace(chr(10), ' ')}. {bars}.")

    def build() -> Sequence[ipw.Widget]:
        options = [(f"{t:g}", t) for t in sorted(found)]
        temperature = ipw.SelectionSlider(options=options, value=1.0, description="T", continuous_update=False)
        temperature.tooltip = "the temperature at which the policy draws"
        return with_output([temperature], lambda value: image_html(chart(value)))

    return Interactive(build, lambda: chart(next((t for t in sorted(found) if t > 1), 1.0)))
