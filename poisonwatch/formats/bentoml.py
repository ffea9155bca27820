"""BentoML's monitoring logs: one flat row per prediction, inputs and outputs side by side."""

from __future__ import annotations

import math
from collections import OrderedDict
from typing import TYPE_CHECKING, Any, Protocol

from poisonwatch.formats.instants import instant, zone_of
from poisonwatch.formats.invocations import LogConfig
from poisonwatch.formats.lenient import Rejected
from poisonwatch.formats.loading import objects
from poisonwatch.formats.rows import CONFIDENCE, PREDICTION, PROBABILITIES, Rows

if TYPE_CHECKING:
    from collections.abc import Mapping

    from poisonwatch.formats.events import Event
    from poisonwatch.formats.foreign import Draft

MOST_BYTES = 4 << 20
"""Bytes of one body after decompression."""

OWN = ("timestamp", "request_id", "trace_id", "bento_meta")
"""Columns that BentoML adds."""

CLASS = ("prediction", "pred", "y_pred", *PREDICTION[1:])
"""Usual names of the column with the class, the first one there counts."""

MOST_REQUESTS = 256
"""Requests whose rows may be met among those of others."""


class BentomlConfig(LogConfig, Protocol):
    """What users say of a monitoring log."""

    @property
    def timezone(self) -> str:
        """IANA zone of the server's clock."""
        ...

    @property
    def prediction_id(self) -> str | None:
        """Name of the column that is the prediction's own id."""
        ...


class RowNumbers:
    """Which row of its request a row is: the rows of one batch share the id of the request, each is a line of its own.

    It is remembered of the last 256 requests. Its shape is that of a pairing, where nothing ever waits.
    """

    def __init__(self) -> None:
        self._rows: OrderedDict[str, int] = OrderedDict()

    def __len__(self) -> int:
        return 0

    def next(self, request: str) -> int:
        """The number of the next row of a request, from 0."""
        number = self._rows.pop(request, -1) + 1
        self._rows[request] = number
        if len(self._rows) > MOST_REQUESTS:
            self._rows.popitem(last=False)
        return number

    def flush(self, draft: Draft) -> None:
        """Nothing waits."""

    def state(self) -> dict[str, Any]:
        """Everything that must survive a restart."""
        return {"rows": list(self._rows.items())}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Take up a saved state."""
        self._rows = OrderedDict((str(request), int(number)) for request, number in state["rows"])


class Bentoml:
    """Predictions of monitoring logs. Every column that is nothing else is a feature."""

    def __init__(self, config: BentomlConfig, most_bytes: int = MOST_BYTES) -> None:
        self._config, self._most = config, most_bytes
        self._rows = Rows(config)
        self._zone = zone_of(config.timezone)
        self._outputs = [
            names if said is None else (said,)
            for said, names in (
                (config.prediction, CLASS),
                (config.confidence, CONFIDENCE),
                (config.probabilities, PROBABILITIES),
            )
        ]
        self._numbers = self.pairing = RowNumbers()

    def read(self, event: Event, draft: Draft) -> None:
        """Add the predictions of a row; the line of the schema is none.

        Raises:
            Rejected: when it cannot be opened.
        """
        for row in objects(event, self._most, draft):
            if "meta_data" in row and isinstance(row.get("columns"), list):
                continue
            try:
                draft.records.append(self._record(row, event, draft))
            except Rejected as rejected:
                draft.reject(rejected.args[0], event.body)

    def _record(self, row: dict[str, Any], event: Event, draft: Draft) -> dict[str, Any]:
        time, request, trace = row.get("timestamp"), row.get("request_id"), row.get("trace_id")
        inputs = {name: value for name, value in row.items() if name not in OWN}
        outputs: dict[str, Any] = {}
        for names in self._outputs:
            name = next((name for name in names if inputs.get(name) is not None), None)
            if name is not None:
                outputs["prediction" if names is CLASS else name] = inputs.pop(name)
        if not outputs:
            raise Rejected("missing_prediction")
        record = {
            "timestamp": instant(time, self._zone) if time is not None or math.isnan(event.at) else event.at,
            "prediction_id": self._identity(inputs, request or trace),
            "model": self._config.model,
            "model_version": self._config.model_version,
        }
        record = {name: value for name, value in record.items() if value is not None}
        return {**record, **self._rows.given(inputs, draft.faults), **self._rows.answered(outputs)}

    def _identity(self, inputs: dict[str, Any], request: object) -> object:
        """The prediction's own id, else that of its request, numbered from the second row on."""
        own = self._config.prediction_id
        if own is not None and inputs.get(own) is not None:
            return inputs.pop(own)
        if not isinstance(request, str | int):
            return None
        number = self._numbers.next(str(request)[:128])
        return f"{request}#{number}" if number else request
