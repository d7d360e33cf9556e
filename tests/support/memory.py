"""Peak memory of tensors, counted at every operation, for real and for fake tensors alike."""

from __future__ import annotations

from typing import Any

from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class LiveBytes(TorchDispatchMode):
    """Counts the storages that operations return, until they are freed."""

    def __init__(self) -> None:
        super().__init__()
        self.live: dict[int, tuple[StorageWeakRef, int]] = {}
        self.peak = self.largest = 0
        self.counted = 0  # bytes of what lives, and perhaps of some that is freed

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(out):
            if isinstance(leaf, Tensor):
                storage = leaf.untyped_storage()
                _, before = self.live.get(storage._cdata, (None, 0))
                self.live[storage._cdata] = (StorageWeakRef(storage), storage.nbytes())
                self.counted += storage.nbytes() - before
                self.largest = max(self.largest, storage.nbytes())
        if self.counted > self.peak:  # else the peak is not reached, whatever is freed
            self.live = {key: item for key, item in self.live.items() if not item[0].expired()}
            self.counted = sum(size for _, size in self.live.values())
            self.peak = max(self.peak, self.counted)
        return out
