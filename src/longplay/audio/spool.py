"""A piece in a temporary file while it grows, so that minutes of music do not stay in memory."""

import tempfile
from collections.abc import Iterator
from types import TracebackType

import numpy as np

from longplay.audio.file import Wav
from longplay.errors import AudioError

BLOCK = 1 << 18  # samples of each channel at a time


class Spool:
    """Append chunks, then iterate over blocks [C, S] as often as needed; the file goes with the context.

    Attributes:
        channels: of every chunk; 0 before the first.
        samples: so far.
    """

    def __init__(self) -> None:
        self.channels = 0
        self.samples = 0
        self._file = tempfile.TemporaryFile(prefix="longplay-")  # noqa: SIM115  closed by __exit__

    def __enter__(self) -> "Spool":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()

    def append(self, chunk: Wav) -> None:
        """Add [C, S], float32.

        Raises:
            AudioError: the disk of temporary files is full.
        """
        self.channels = chunk.shape[0]
        try:
            self._file.seek(0, 2)
            self._file.write(np.ascontiguousarray(chunk.T, dtype=np.float32).data)
        except OSError as error:
            raise AudioError(
                f"{tempfile.gettempdir()}: cannot hold the piece while it is made ({error.strerror}); "
                "free some space, or set TMPDIR to another folder"
            ) from None
        self.samples += chunk.shape[1]

    def __iter__(self) -> Iterator[Wav]:
        width = 4 * self.channels
        for start in range(0, self.samples, BLOCK):
            self._file.seek(width * start)
            data = self._file.read(width * min(BLOCK, self.samples - start))
            yield np.frombuffer(data, np.float32).reshape(-1, self.channels).T
