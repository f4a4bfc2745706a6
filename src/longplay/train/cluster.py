"""Making tokens on a cluster: the encoder of `encoding` as actors of Ray Data, one on each CPU or GPU that is lent.

Ray restarts actors that die and gives their blocks to others; the shards are written by the caller alone, so what is
made twice is still there once.
"""

import logging
import os
import pickle
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from longplay.data.workers import Outcome
from longplay.errors import LongplayError, UserError
from longplay.train.encoding import Codes, Encoder, Job


def find_ray() -> Any:
    """The module `ray`.

    Raises:
        UserError: it is not installed.
    """
    try:
        import ray
    except ImportError:
        raise UserError("a cluster needs Ray: `pip install 'longplay[cluster]'`") from None
    return ray


def join_cluster(workers: int, address: str | None = None) -> None:
    """Connect to a Ray cluster, or start one on this machine; nothing where this process has joined one.

    Args:
        workers: CPUs that one started here lends, and one more for Ray's own tasks.
        address: of the cluster, e.g. `auto`; default `RAY_ADDRESS`, and without it one is started here.
    """
    ray = find_ray()
    if ray.is_initialized():
        return
    address = address or os.environ.get("RAY_ADDRESS")
    own = {} if address else {"num_cpus": workers + 1, "include_dashboard": False}
    ray.init(address=address, log_to_driver=False, logging_level=logging.WARNING, **own)


class EncodingActor:
    """An encoder with the interface of a Ray Data map: a row in, a row out."""

    def __init__(self, tokenizer: str, codec: str | None, device: str, threads: int | None) -> None:
        self.encoder = Encoder.load(tokenizer, codec, device, threads)

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        """Encode one job; a track that cannot be encoded is an outcome, not the end of the run."""
        job = Job(**row)
        try:
            return row | {"codes": pickle.dumps(self.encoder(job)), "error": ""}
        except LongplayError as error:
            return row | {"codes": b"", "error": str(error)}


def encode_on_ray(
    tokenizer: str,
    codec: str | None,
    workers: int,
    device: str = "cpu",
    threads: int | None = None,
    address: str | None = None,
) -> Callable[[Sequence[Job]], Iterator[Outcome[Job, Codes]]]:
    """An `encode_all` of `prepare_tokens` that works on a Ray cluster.

    Args:
        workers: actors over the whole cluster.
        address: see `join_cluster`.

    Raises:
        UserError: Ray is not installed.
    """
    ray = find_ray()

    def encode_all(jobs: Sequence[Job]) -> Iterator[Outcome[Job, Codes]]:
        join_cluster(workers, address)
        rows = ray.data.from_items([job._asdict() for job in jobs], override_num_blocks=len(jobs))
        encoded = rows.map(
            EncodingActor,
            fn_constructor_args=(tokenizer, codec, device, threads),
            concurrency=workers,
            num_gpus=1 if device.startswith("cuda") else 0,
        )
        for row in encoded.iter_rows():
            job = Job(**{name: row[name] for name in Job._fields})
            if row["error"]:
                yield Outcome(job, None, LongplayError(row["error"]))
            else:
                yield Outcome(job, pickle.loads(row["codes"]), None)  # from our own actor

    return encode_all
