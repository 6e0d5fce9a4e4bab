"""The source's hash, for the metadata of what is made of it."""

from __future__ import annotations

import os
import threading

from lstmconvert import metadata, writing
from lstmconvert.jsontext import canonical
from lstmconvert.model import Model


class Digest:
    """The source's hash, taken in a thread while the tensors are written.

    Args:
        model: the model.
        size: how many bytes are written: of a few, the hash is taken when it is asked for.
    """

    def __init__(self, model: Model, size: int) -> None:
        self._error: Exception | None = None
        self._value: str | None = None
        self._text: str | None = None
        #: Stands where the hash will be; nobody can have written it into the file.
        self._stand_in = os.urandom(32).hex()
        self._model = model
        self._thread = threading.Thread(target=self._run, daemon=True)
        if size > writing.WORTH_A_THREAD:
            self._thread.start()

    def _run(self) -> None:
        try:
            self._value = self._model.source.sha256
        except Exception as error:  # raised anew where the digest is asked for
            self._error = error

    def texts(self, model: Model) -> dict[str, str]:
        """Return the metadata texts: the first time with a stand-in for the hash."""
        source = model.source
        if self._text is None:
            # Of what is not read from a file of its own kind, the hash is known, or there is none.
            is_known = source.container == "live" or source.container != model.container
            digest = self._joined() if is_known else self._stand_in
            self._text = metadata.to_text(model, digest=digest)
        elif self._stand_in in self._text:
            self._text = self._text.replace(f'"{self._stand_in}"', canonical(self._joined()))
        return {"format": "np", metadata.KEY: self._text}

    def _joined(self) -> str | None:
        if self._thread.ident is None:
            return self._model.source.sha256
        self._thread.join()
        if self._error is not None:
            raise self._error
        return self._value
