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
        """With one more look: why it is not well, or nothing."""
        if not self.known or bool(why) == bool(self.why):
            return Verdict(why if not self.known or not why else self.why, known=True)
        row = self.row + 1
        if row >= (DOWN if why else UP):
            return Verdict(why, known=True)
        return replace(self, row=row)
