"""One step of a `Decoder` as a CUDA graph: one launch in place of hundreds, which at batch 1 is most of a step's time.

A graph has fixed shapes and addresses. So steps look at whole buckets of the cache (`Decoder.bucket`), the mask hides
what is not filled, and inputs and logits have buffers of their own. A new bucket is captured once, when it is reached.
"""

from collections import OrderedDict
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from longplay.nn.cache import KVCache
from longplay.nn.decoder import Decoder

BUCKET = 256
_KEPT = 8  # graphs; batches that grow and shrink come back to the same few
_WARMUPS = 2


@dataclass(frozen=True, eq=False)
class _Captured:
    """A graph, the buffers that it reads, the one that it writes, and the cache whose own buffers it reads too."""

    graph: torch.cuda.CUDAGraph
    cache: KVCache
    inputs: Tensor
    counts: Tensor
    logits: Tensor


class GraphedStep:
    """Inputs of the next position to logits; captured on CUDA, plain elsewhere."""

    def __init__(self, decoder: Decoder, bucket: int = BUCKET) -> None:
        """Args: decoder: of the model; bucket: slots by which the shapes of a graph grow."""
        self._decoder = replace(decoder, bucket=bucket)
        self._graphs: OrderedDict[tuple[int, int, int], _Captured] = OrderedDict()

    def __call__(self, inputs: Tensor, cache: KVCache, counts: Tensor) -> Tensor:
        """Logits [B, V] after `inputs` [B, 1, D], which are added to `cache`, as far as `counts` [B] says.

        On CUDA the logits are overwritten by the next step.
        """
        if inputs.device.type != "cuda":
            return step(self._decoder, inputs, cache, counts)
        key = (cache.data.data_ptr(), len(inputs), self._decoder.visible(cache, 1))
        captured = self._graphs.pop(key, None) or self._capture(inputs, cache)
        self._graphs[key] = captured
        if len(self._graphs) > _KEPT:
            self._graphs.popitem(last=False)
        captured.inputs.copy_(inputs)
        captured.counts.copy_(counts)
        captured.graph.replay()
        cache.longest += 1
        return captured.logits

    def _capture(self, inputs: Tensor, cache: KVCache) -> _Captured:
        # Nothing is counted while warming up, so the history stays; what is written lands where the real step will.
        buffer, counts = inputs.clone(), torch.zeros(len(inputs), dtype=torch.long, device=inputs.device)
        longest = cache.longest
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(_WARMUPS):
                step(self._decoder, buffer, cache, counts)
                cache.longest = longest
        torch.cuda.current_stream().wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        # Other threads, which e.g. encode a prompt, may allocate meanwhile.
        with torch.cuda.graph(graph, capture_error_mode="thread_local"):
            logits = step(self._decoder, buffer, cache, counts)
        cache.longest = longest
        return _Captured(graph, cache, buffer, counts, logits)


def step(decoder: Decoder, inputs: Tensor, cache: KVCache, counts: Tensor | None = None) -> Tensor:
    """What `GraphedStep` computes, plainly."""
    if decoder.compiled is not None:
        return decoder.compiled(inputs, cache, counts)
    return decoder.head(decoder(inputs, cache, counts)[:, 0])
