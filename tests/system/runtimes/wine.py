"""A model of tables that a server serves: which cultivar a wine is of, by the thirteen measurements that scikit-learn ships."""

from __future__ import annotations

from typing import Any

from sklearn.datasets import load_wine
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler


class Wine:
    """Trained when it is made; `features` (13,) and `classes` (3,) are the names of its columns."""

    def __init__(self) -> None:
        data = load_wine()
        self.features: list[str] = [str(name) for name in data.feature_names]
        self.classes: list[str] = [f"cultivar-{name[-1]}" for name in data.target_names]
        self._pipeline = make_pipeline(StandardScaler(), LogisticRegression(C=0.1))
        self._pipeline.fit(data.data, [self.classes[target] for target in data.target])

    def answer(self, rows: Any) -> tuple[list[str], Any]:
        """Classes (n,) and probabilities (n, classes) of rows (n, features)."""
        probabilities = self._pipeline.predict_proba(rows)
        return [self.classes[row.argmax()] for row in probabilities], probabilities
