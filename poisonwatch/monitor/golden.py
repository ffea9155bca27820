"""What answers to verified inputs say of versions."""
from typing import NamedTuple
from poisonwatch.types import Answer


class GoldenAnswers(NamedTuple):
    """Answers of one version to golden inputs (k,): their numbers in the set, the verified labels, the answers; at event time `time`."""

    time: float
    model_version: str
    numbers: tuple[int, ...]
    labels: tuple[str, ...]
    answers: tuple[Answer, ...]
