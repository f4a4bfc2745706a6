"""Token shards as files of this machine that all of its processes map: none holds more of them than it reads.

A parquet file is compressed: to read from it is to hold what was read. So each shard is written once more, as Arrow has
it in memory, with codes of 16 bits, to the cache folder; copies of an older state of a shard, and of folders that are
gone, go. The pages that are read are the operating system's, which gives them to every process and takes them back
when memory is short.
"""

import hashlib
import platform
import posixpath
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from filelock import FileLock

from longplay.data.storage import Folder
from longplay.errors import TrainingError
from longplay.files import cache_folder, replacing, write_text

ROWS = 64  # that are in memory at once while a shard is written
SEMANTIC = "semantic_token"
ACOUSTIC = "acoustic_token"
LOCAL = "file://"
SOURCE = "folder.txt"  # beside the copies: which machine made them, and of which folder
FIGURES = ("semantic_length", "semantic_largest", "acoustic_length")  # columns besides those of the shard


def mapped(folder: Folder, name: str) -> pa.Table:
    """The table of a parquet shard, mapped: its columns and, of codes, the numbers `FIGURES` of each row.

    Raises:
        pyarrow.ArrowException: it is no parquet file, or a damaged one.
        TrainingError: a code does not fit into 16 bits, or the cache folder cannot take the copy.
    """
    address = folder.fs.unstrip_protocol(folder.root)
    place = cache_folder() / "shards" / _digest(address)
    copy = place / f"{name}.{_digest(folder.fs.ukey(posixpath.join(folder.root, name)))}.arrow"
    if not copy.is_file():
        try:
            place.mkdir(parents=True, exist_ok=True)
            with FileLock(place / f"{name}.lock"), folder.open(name) as file:
                if not copy.is_file():  # another process may have made it meanwhile
                    _write(file, name, copy)
                    write_text(place / SOURCE, f"{platform.node()}\n{address}")
                    _remove_outdated(copy, name)
        except OSError as error:
            raise TrainingError(
                f"{copy}: cannot be written ({error.strerror or error}); set LONGPLAY_CACHE to a folder that can hold the shards"
            ) from None
    with pa.memory_map(str(copy)) as source:
        return pa.ipc.open_file(source).read_all()


def codes_of(cell: pa.ListScalar) -> np.ndarray:
    """Codes of one cell, as they lie in the file: lists of lists [rows, width], or a flat list [1, T]."""
    values = cell.values
    if values is None or not len(values):
        return np.zeros((0, 0))
    if not pa.types.is_list(values.type):
        return values.to_numpy(zero_copy_only=False)[None]
    return values.flatten().to_numpy(zero_copy_only=False).reshape(len(values), -1)


def _write(file: BinaryIO, name: str, copy: Path) -> None:
    try:
        parquet = pq.ParquetFile(file)
    except OSError as error:
        raise pa.ArrowInvalid(str(error)) from None
    schema = parquet.schema_arrow
    fields = [field.with_type(_narrow(field.type)) if field.name in (SEMANTIC, ACOUSTIC) else field for field in schema]
    added = [pa.field(each, pa.int32()) for each in FIGURES] if SEMANTIC in schema.names else []
    with (
        replacing(copy) as part,
        pa.OSFile(str(part), "wb") as sink,
        pa.ipc.new_file(sink, pa.schema([*fields, *added], metadata=schema.metadata)) as writer,
    ):
        for batch in _batches(parquet):
            columns = [_narrowed(batch, field, name) for field in fields]
            if added:
                of = dict(zip(schema.names, columns, strict=True))
                columns += _measured(of[SEMANTIC], of.get(ACOUSTIC))
            writer.write_batch(pa.record_batch(columns, schema=pa.schema([*fields, *added])))


def _batches(parquet: pq.ParquetFile) -> Iterator[pa.RecordBatch]:
    try:
        yield from parquet.iter_batches(ROWS)
    except OSError as error:  # of reading; those of writing are the caller's
        raise pa.ArrowInvalid(str(error)) from None


def _narrow(kind: pa.DataType) -> pa.DataType:
    """Lists of 16 bits in place of any integers."""
    return pa.list_(_narrow(kind.value_type)) if pa.types.is_list(kind) else pa.int16()


def _narrowed(batch: pa.RecordBatch, field: pa.Field, name: str) -> pa.Array:
    try:
        return batch[field.name].cast(field.type)
    except pa.ArrowInvalid as error:
        raise TrainingError(f"{name}: {field.name}: {error}; make the tokens again") from None


def _measured(semantic: pa.Array, acoustic: pa.Array | None) -> list[pa.Array]:
    """How many codes of the tokenizer each row has, the largest of them, and how many of the codec; 0 of none."""
    codes = [codes_of(row) for row in semantic]
    figures = (
        [each.size for each in codes],
        [int(each.max(initial=0)) for each in codes],
        [0] * len(codes) if acoustic is None else [codes_of(row).size for row in acoustic],
    )
    return [pa.array(each, pa.int32()) for each in figures]


def _remove_outdated(copy: Path, name: str) -> None:
    """Copies of an older state of this shard, and those of folders of this machine that are no longer there."""
    for other in copy.parent.glob("*.arrow"):
        if other != copy and other.name.rpartition(".")[0].rpartition(".")[0] == name:
            other.unlink(missing_ok=True)
    for source in copy.parent.parent.glob(f"*/{SOURCE}"):
        machine, _, address = source.read_text(encoding="utf-8").partition("\n")  # others may share the cache folder
        if machine == platform.node() and address.startswith(LOCAL) and not Path(address.removeprefix(LOCAL)).is_dir():
            shutil.rmtree(source.parent, ignore_errors=True)


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]
