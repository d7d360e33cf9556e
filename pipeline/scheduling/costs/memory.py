"""Memory of one rank: the least that a fold needs, and the peak that it will have.

The least is what remains when chunks have shrunk as far as they go; it decides whether a group can
hold a complex. The peak is what a fold takes on a device with memory to spare, as its chunks and
the biases of the sampler are sized by what is free (`foldcp.model.layers.chunking`,
`foldcp.model.diffusion.conditioning`): an upper bound of what is measured.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from foldcp.config import Architecture, Precision
from foldcp.distributed.sample_parallel import SampleSharding
from foldcp.pipeline.scheduling.hardware import INT8_ITEMSIZE, Hardware

ATOMS_PER_TOKEN = 8.2  # heavy atoms of an average residue
# Chunks take an eighth of the free memory within these limits.
MIN_CHUNK_BYTES = 256 << 20
MAX_CHUNK_BYTES = 8 << 30
FREE_FRACTION = 8
# What the chunk of a step would take if it held all pairs, in bytes a pair of 128 channels: of a
# pair block in bf16 as measured, of the sampler's conditioning and of the scores as counted.
BLOCK_CHUNK = 776
CONDITIONING_CHUNK = 5632
CONDITIONING_SHARE = 0.75  # of what the conditioning counts for its chunk, at most in use at once
SCORES_CHUNK = 1536
# The sampler keeps the biases of all its layers if twice their size is free; that of one layer is
# there twice, as it is computed and as it is prepared.
BIAS_FREE_FACTOR = 2
MAX_DEVICE_COPY = 4 << 30  # a larger copy of the pairs is kept in host memory
# Staging buffers of several ranks, each one part of so many of a device's memory
# (`foldcp.distributed.transport`).
NUM_BUFFERS = 3
BUFFER_FRACTION = 512
# CUDA graphs of the trunk and the memory that they keep, with so many pairs on a rank.
MAX_GRAPH_PAIRS = 1024**2
GRAPH_PAIR_BYTES = 1500


@dataclass(frozen=True, slots=True)
class FoldSize:
    """What the memory of a fold depends on."""

    num_tokens: int
    num_ranks: int
    precision: Precision
    msa_rows: int
    sharding: SampleSharding
    num_parallel: int  # structures that are sampled at once
    chunk_bytes: int  # of every chunk; 0: as much as the free memory allows
    batch: int = 1  # complexes folded together, all as large as the largest

    @property
    def num_pairs(self) -> float:
        """Pairs of tokens of one rank, in the trunk."""
        return self.num_tokens**2 / self.num_ranks

    @property
    def num_sample_pairs(self) -> float:
        """Those of one rank in the sampler and the scores."""
        return self.num_tokens**2 / self.sharding.ranks_per_sample


def least_bytes(hardware: Hardware, net: Architecture, size: FoldSize) -> float:
    """The least memory of one rank that a fold needs, in bytes.

    The sum of the fixed part, the pair representation with what is as large at the same time, the
    gathered attention bias, the MSA (features whole, representation by columns), the tokens and
    atoms of the samples, and the smallest chunk. All samples but the last one of a rank are scored
    beside the pair representation of the trunk, unless that is in host memory. Where each rank has
    samples of its own, it is the larger of what they and its part of the trunk need.
    """

    def of_pairs(num_pairs: float) -> float:
        pairs = hardware.pair_bytes(size.precision) * net.token_z / 128 * num_pairs
        return pairs + min(MIN_CHUNK_BYTES, BLOCK_CHUNK * num_pairs)

    always = _fixed_bytes(hardware, size) + _bias_bytes(net, size)
    trunk = of_pairs(size.num_pairs) + _msa_bytes(net, size)
    samples = _sample_bytes(net, size)
    if size.sharding.samples_per_rank > 1:
        samples += _copy_bytes(_pair_array(net, size, size.num_sample_pairs))
    if size.num_sample_pairs == size.num_pairs:
        return always + trunk + samples
    return always + max(trunk, of_pairs(size.num_sample_pairs) + samples)


def peak_bytes(hardware: Hardware, net: Architecture, size: FoldSize) -> float:
    """The predicted peak memory of one rank in bytes, at most all of the device.

    The largest of the trunk, the conditioning of the sampler, the sampler and the scores, each with
    chunks as large as the memory that is free at its start allows. On a CPU chunks are small. Of a
    batch it is `batch_peak_bytes`.
    """
    if size.batch > 1:
        return min(batch_peak_bytes(hardware, net, size), hardware.memory)
    least = least_bytes(hardware, net, size)
    if hardware.device == "cpu":
        return least
    graphs = GRAPH_PAIR_BYTES * size.num_pairs if size.num_pairs <= MAX_GRAPH_PAIRS else 0.0
    peak = max(_trunk_peak(hardware, net, size) + graphs, _samples_peak(hardware, net, size))
    peak += _fixed_bytes(hardware, size)
    if size.num_ranks > 1:
        peak += NUM_BUFFERS * hardware.memory / BUFFER_FRACTION
    return min(max(least, peak), hardware.memory)


def _trunk_peak(hardware: Hardware, net: Architecture, size: FoldSize) -> float:
    """Bytes of the trunk without its CUDA graphs."""
    pairs = size.num_pairs
    z = _pair_array(net, size, pairs)
    product = _product_itemsize(size.precision) * net.token_z * pairs
    width = net.token_z / 128 * compute_itemsize(size.precision) / 2
    trunk = z + product + _chunk(hardware, size, BLOCK_CHUNK * width * pairs, 0.0)
    trunk += _bias_bytes(net, size) + _msa_bytes(net, size)
    return trunk + _copy_bytes(z)


def _samples_peak(hardware: Hardware, net: Architecture, size: FoldSize) -> float:
    """Bytes of the conditioning of the sampler, the sampler or the scores: the largest of them."""
    pairs = size.num_sample_pairs
    z = _pair_array(net, size, pairs)
    product = _product_itemsize(size.precision) * net.token_z * pairs
    biases = compute_itemsize(size.precision) * net.token_transformer_blocks * pairs
    biases *= net.diffusion_heads
    conditioning = CONDITIONING_CHUNK * net.token_z / 128 * pairs
    conditioning_chunk = CONDITIONING_SHARE * _chunk(hardware, size, conditioning, z)
    if biases * BIAS_FREE_FACTOR < _free_bytes(hardware) - z:
        sampler = z + biases + max(biases / net.token_transformer_blocks, conditioning_chunk)
    else:
        of_layer = 2 * biases / net.token_transformer_blocks
        sampler = z + _copy_bytes(z) + conditioning_chunk + of_layer
    sampler += _sample_bytes(net, size)
    scores = z + product
    if size.sharding.samples_per_rank > 1:
        scores += _copy_bytes(z)
    scores += _chunk(hardware, size, SCORES_CHUNK * pairs, z) + _bias_bytes(net, size)
    return max(sampler, scores)


def _free_bytes(hardware: Hardware) -> float:
    """Memory of a device that nothing has taken before a fold."""
    return hardware.memory - hardware.reserved_gb * 1e9


def _chunk(hardware: Hardware, size: FoldSize, whole: float, taken: float) -> float:
    """Bytes of a chunk of what takes `whole` bytes, where `taken` are not free."""
    free = _free_bytes(hardware) - taken
    budget = min(max(free / FREE_FRACTION, MIN_CHUNK_BYTES), MAX_CHUNK_BYTES)
    return min(size.chunk_bytes or budget, whole)


def batch_peak_bytes(hardware: Hardware, net: Architecture, size: FoldSize) -> float:
    """An upper bound of the peak memory in bytes of complexes that are folded together on one GPU:
    as if each had its own memory, but for the weights and the device's workspace.
    """
    alone = peak_bytes(hardware, net, replace(size, batch=1))
    reserved = hardware.reserved_gb * 1e9
    return reserved + size.batch * (alone - reserved)


def compute_itemsize(precision: Precision) -> int:
    """Bytes of a number that streams through the arithmetic units."""
    return 4 if precision == "fp32" else 2


def pair_itemsize(precision: Precision) -> int:
    """Bytes of a number of the pair representation."""
    return 2 if precision in ("bf16", "bf16-int8") else 4


def _product_itemsize(precision: Precision) -> float:
    """Bytes of a product of triangle multiplication."""
    return INT8_ITEMSIZE if precision == "bf16-int8" else compute_itemsize(precision)


def _pair_array(net: Architecture, size: FoldSize, num_pairs: float) -> float:
    """Bytes of the pair representation of so many pairs."""
    return pair_itemsize(size.precision) * net.token_z * num_pairs


def _copy_bytes(z: float) -> float:
    """Bytes on the device of a copy of the pair representation."""
    return z if z < MAX_DEVICE_COPY else 0.0


def _fixed_bytes(hardware: Hardware, size: FoldSize) -> float:
    """Driver, weights and workspace, and the features of the whole MSA."""
    return hardware.reserved_gb * 1e9 + 24 * size.msa_rows * size.num_tokens


def _bias_bytes(net: Architecture, size: FoldSize) -> float:
    """The gathered bias of triangle attention."""
    return 2 * compute_itemsize(size.precision) * net.pair_heads * size.num_tokens**2


def _msa_bytes(net: Architecture, size: FoldSize) -> float:
    """The representation of this rank's columns of the MSA, with its updates."""
    columns = size.num_tokens / size.num_ranks
    return 4 * compute_itemsize(size.precision) * net.msa_s * size.msa_rows * columns


def _sample_bytes(net: Architecture, size: FoldSize) -> float:
    """Tokens and atoms of the samples that are drawn at once."""
    of_token = 16 * 2 * net.token_s + 24 * ATOMS_PER_TOKEN * net.atom_s
    return size.num_parallel * size.num_tokens * of_token
