"""What the reader of `vqmem explore` chooses. It imports nothing slow: the command line shows its defaults."""

from __future__ import annotations

from dataclasses import dataclass, replace


@dataclass(frozen=True)
class Settings:
    """Strategies, the first of which is the baseline, slots of each memory, and guards."""

    strategies: tuple[str, ...] = ()
    capacity: int = 128
    sinks: int = 0
    recent: int = 0

    def completed(self, usual: tuple[str, ...]) -> Settings:
        """The same; where no strategy was asked for, with the ``usual`` ones."""
        return self if self.strategies else replace(self, strategies=usual)
