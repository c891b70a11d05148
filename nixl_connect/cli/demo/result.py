"""What became of the demo."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from nixl_connect.cli.demo.plan import Row


@dataclass
class RowResult:
    """What became of one row: the duration of each operation, and those whose bytes differ."""

    row: Row
    seconds: list[float]
    wrong: list[int]

    @property
    def verified(self) -> bool:
        """Whether all bytes agree."""
        return not self.wrong


@dataclass
class Result:
    """What became of the demo."""

    size: int
    seed: int
    rows: list[RowResult] = field(default_factory=list)
    library: dict[str, Any] = field(default_factory=dict)
    elapsed: float = 0.0
    error: str | None = None
    is_installed: bool = True
    """False where it failed for want of NIXL."""

    @property
    def counted(self) -> list[RowResult]:
        """The rows of the table."""
        return [result for result in self.rows if result.row.counted]

    @property
    def nbytes(self) -> int:
        """Bytes moved."""
        return sum(result.row.nbytes for result in self.counted)

    @property
    def seconds(self) -> float:
        """Duration of all transfers."""
        return sum(sum(result.seconds) for result in self.counted)

    @property
    def ok(self) -> bool:
        """Whether all was moved and all bytes agree."""
        return (
            self.error is None
            and self.nbytes == self.size
            and all(result.verified for result in self.rows)
        )
