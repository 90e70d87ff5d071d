"""What a human player sees of an environment's page: see `Environment.page`."""

from typing import NamedTuple


class Part(NamedTuple):
    """One line of the page for human players: text, buttons, text; or a text field."""

    before: str = ""
    actions: tuple[tuple[str, str], ...] = ()  # (label, action) of each button, disabled if not admissible
    after: str = ""
    strong: bool = False  # bold text
    entry: tuple[str, str] | None = None  # (label, action with {} for the text), e.g. "search[{}]"
