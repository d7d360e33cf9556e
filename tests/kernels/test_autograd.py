"""Gradients of kernels that are those of their references."""

from __future__ import annotations

from torch import Tensor, ones, randn
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils.checkpoint import checkpoint

from foldcp.kernels.autograd import with_reference_backward
from foldcp.kernels.transition import AddTransition, TransitionWeights


def test_checkpointing_frees_the_arguments_of_a_kernel() -> None:
    weights = TransitionWeights(ones(4), ones(4), randn(8, 4), randn(8, 4), randn(4, 8))
    kept: list[StorageWeakRef] = []

    def kernel(z: Tensor, weights: TransitionWeights) -> Tensor:
        return AddTransition()(z.clone(), weights)

    def block(z: Tensor) -> Tensor:
        argument = z * 2
        kept.append(StorageWeakRef(argument.untyped_storage()))
        return with_reference_backward(kernel, AddTransition(), argument, weights)

    z = randn(3, 4).requires_grad_()
    out = checkpoint(block, z, use_reentrant=False, preserve_rng_state=False)
    assert isinstance(out, Tensor) and kept[0].expired()
    out.sum().backward()
    assert z.grad is not None and len(kept) == 2
