"""Runtimes of MLServer: the spam filter (one BYTES tensor of texts in; classes and probabilities out), and an echo."""

from __future__ import annotations

from mlserver import MLModel
from mlserver.codecs import NumpyCodec, NumpyRequestCodec, PandasCodec, StringCodec
from mlserver.types import InferenceRequest, InferenceResponse
from spam_filter import SpamFilter


class Filter(MLModel):  # type: ignore[misc]  # only MLServer's own environment has it
    """`parameters.extra` of the model's settings names the training texts and the log."""

    async def load(self) -> bool:
        """Train the filter."""
        extra = self.settings.parameters.extra
        self._filter = SpamFilter(self.name, self.version, extra["training"], extra["log"])
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        """Answer; a request's parameter `timestamp` stands for the time, so that a test can play days in seconds."""
        texts = StringCodec.decode_input(payload.inputs[0])
        given = payload.parameters
        headers = {name.lower(): value for name, value in (getattr(given, "headers", None) or {}).items()}
        source = headers.get("user-agent", "unknown")
        labels, probabilities = self._filter.answer(texts, source, getattr(given, "timestamp", None))
        return InferenceResponse(
            model_name=self.name,
            model_version=self.version,
            outputs=[
                StringCodec.encode_output("label", labels),
                NumpyCodec.encode_output("probabilities", probabilities),
            ],
        )


class Echo(MLModel):  # type: ignore[misc]  # as above
    """Names as the class of each row what MLServer's own codecs made of it: the values of a frame, or of an array."""

    async def load(self) -> bool:
        """There is nothing to load."""
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        """Decode by the content types that the request names."""
        decoded = self.decode_request(payload, default_codec=NumpyRequestCodec)
        if PandasCodec.can_encode(decoded):
            rows = [dict(zip(decoded.columns, row, strict=True)) for row in decoded.to_numpy().tolist()]
        else:
            rows = decoded.tolist()
        labels = [f"{type(decoded).__name__} {row}" for row in rows]
        return InferenceResponse(
            model_name=self.name, model_version=self.version, outputs=[StringCodec.encode_output("label", labels)]
        )
