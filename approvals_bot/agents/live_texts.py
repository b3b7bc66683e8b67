"""The texts that models are writing right now, for the streams that are open in this process.

They are streamed, never logged. In another process, or after a crash, a stream gets each text whole from the log,
under the same id.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import accumulate

from pydantic import JsonValue

Deltas = dict[str, list[str]]
"""The deltas of each text so far, by the id of its part."""

Chunk = dict[str, JsonValue]


class LiveTexts:
    """What models are writing, and who reads it, by run. It holds a text only while its request goes on."""

    def __init__(self) -> None:
        self._written: dict[str, Deltas] = {}
        self._readers: dict[str, dict[LiveReader, None]] = {}

    @property
    def is_empty(self) -> bool:
        """Whether nobody writes or reads."""
        return not self._written and not self._readers

    @contextmanager
    def writing(self, run_id: str) -> Iterator[Callable[[str, str], None]]:
        """Yield the function that takes a part's id and the next piece of its text. An attempt begins again."""
        written: Deltas = {}
        self._written[run_id] = written
        for reader in self._readers.get(run_id, ()):
            reader.deltas.clear()

        def add(id: str, piece: str) -> None:
            written.setdefault(id, []).append(piece)
            for reader in self._readers.get(run_id, ()):
                reader.add(id, piece)

        try:
            yield add
        finally:
            if self._written.get(run_id) is written:  # else another attempt has begun
                del self._written[run_id]

    @contextmanager
    def reading(self, run_id: str, wake: Callable[[], None]) -> Iterator[LiveReader]:
        """Yield a reader of what is written for this run. `wake` is called for each piece."""
        reader = LiveReader(self._written.get(run_id, {}), wake)
        readers = self._readers.setdefault(run_id, {})
        readers[reader] = None
        try:
            yield reader
        finally:
            del readers[reader]
            if not readers:
                del self._readers[run_id]


live_texts = LiveTexts()
"""Those of this process."""


class LiveReader:
    """The texts of one stream: what was written, and what the client has of it.

    It keeps its own deltas, because a model may be done before the stream has its turn.
    """

    def __init__(self, written: Deltas, wake: Callable[[], None]) -> None:
        self.deltas: Deltas = {id: list(deltas) for id, deltas in written.items()}
        self._wake = wake
        self._sent: dict[str, str] = {}
        self._open: dict[str, None] = {}
        self._whole: set[str] = set()

    def add(self, id: str, piece: str) -> None:
        if id not in self._whole:
            self.deltas.setdefault(id, []).append(piece)
            self._wake()

    def so_far(self) -> Iterator[Chunk]:
        """Yield the chunks of what has been written since the last look."""
        for id, deltas in list(self.deltas.items()):
            text, sent = "".join(deltas), self._sent.get(id, "")
            if len(text) > len(sent) or not sent.startswith(text):  # else another attempt hasn't come as far yet
                yield from self._more(id, text)

    def whole(self, id: str, text: str) -> Iterator[Chunk]:
        """Yield what the client hasn't got yet of a text that the log has, and its end."""
        yield from self._more(id, text)
        yield from self._end(id)
        self._whole.add(id)
        self._sent.pop(id)
        self.deltas.pop(id, None)

    def close(self) -> Iterator[Chunk]:
        """Yield the ends of texts that will never be whole."""
        for id in list(self._open):
            yield from self._end(id)

    def _more(self, id: str, text: str) -> Iterator[Chunk]:
        sent = self._sent.get(id)
        if sent is None or not text.startswith(sent):  # the first one, or an attempt that writes something else
            yield from self._end(id)
            yield {"type": "text-start", "id": id}
            self._open[id] = None
            sent = ""
        cuts = [*accumulate(map(len, self.deltas.get(id, ()))), len(text)]
        for cut in cuts:
            if len(sent) < cut <= len(text):
                yield {"type": "text-delta", "id": id, "delta": text[len(sent) : cut]}
                sent = text[:cut]
        self._sent[id] = sent

    def _end(self, id: str) -> Iterator[Chunk]:
        if id in self._open:
            del self._open[id]
            yield {"type": "text-end", "id": id}
