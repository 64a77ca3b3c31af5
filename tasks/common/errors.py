"""The error a user can act on."""

from data.messages import plain

NO_PROJECT = "cd to the project's folder, or make one with `points2model init`"
"""The next step where a command needs a project and there is none."""


class TaskError(Exception):
    """A step can't go on for a reason that the user can fix; the text gives what was found and the next step."""

    passing = False
    """Whether the same may succeed later without any change."""
    has_lines = True
    """The text may have several lines, in logs too."""

    def __str__(self) -> str:
        return plain(super().__str__(), lines=True)
