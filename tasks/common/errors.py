"""The error a user can act on."""

from data.messages import plain


class TaskError(Exception):
    """A step can't go on for a reason the user can mend; its text says what was found and what to do next."""

    passing = False
    """Whether the same may go well a little later, nothing being mended."""
    has_lines = True
    """The text may have several lines, in logs too."""

    def __str__(self) -> str:
        return plain(super().__str__(), lines=True)
