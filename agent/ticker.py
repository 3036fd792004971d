"""What a model is writing, as one line at the bottom of the terminal that goes away again."""

from __future__ import annotations

from collections.abc import Callable
from types import TracebackType

from rich.console import Console
from rich.text import Text


class Ticker:
    """A context manager over a console; without a terminal it shows nothing and ``on_text`` is None."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._status = console.status("", spinner="dots") if console.is_terminal else None
        self._text = ""

    def __enter__(self) -> Ticker:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._status:
            self._status.stop()

    @property
    def on_text(self) -> Callable[[str], None] | None:
        """Takes the next piece of a model's text."""
        return self._show if self._status else None

    def say(self, line: str) -> None:
        """Print a line that stays, and begin anew below it."""
        self._console.print(line)
        if self._status:
            self._text = ""
            self._status.update("")

    def _show(self, piece: str) -> None:
        room = max(20, self._console.width - 4)
        self._text = " ".join((self._text + piece).splitlines())[-room:]
        if self._status:
            self._status.update(Text(self._text))
            self._status.start()
