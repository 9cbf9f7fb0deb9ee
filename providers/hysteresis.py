"""When a row of looks becomes another verdict: not at the first that is different."""

from dataclasses import dataclass, replace

DOWN, UP = 3, 2  # looks in a row


@dataclass(frozen=True, slots=True)
class Verdict:
    """What is held of something; the first look decides alone."""

    why: str = ""  # it is not well; nothing: it is
    known: bool = False
    row: int = 0  # looks that said otherwise, in a row

    def after(self, why: str) -> "Verdict":
        """With one more look: why it is not well, or nothing.

        While it is not well, the newest reason holds.
        """
        agrees = bool(why) == bool(self.why)
        turns = self.row + 1 >= (DOWN if why else UP)
        if not self.known or agrees or turns:
            return Verdict(why, known=True)
        return replace(self, row=self.row + 1)
