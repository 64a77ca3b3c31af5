"""The error a user can act on."""


class TaskError(Exception):
    """A step can't go on for a reason the user can mend; its text says what was found and what to do next."""

    passing = False
    """Whether the same may go well a little later, nothing being mended."""
