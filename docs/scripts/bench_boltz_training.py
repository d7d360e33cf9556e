"""Seconds and peak memory of a training step of the package boltz 2.2.1, by the size of the crop.

    python docs/scripts/bench_boltz_training.py 384 768
    python docs/scripts/bench_boltz_training.py 24 --tiny --device cpu --rows 8 --multiplicity 2

What `bench_training.py` measures of our step, of boltz's own: `Boltz2.training_step` with the sizes
of the released structure model and boltz's initial weights, on the same complex. Dropout,
checkpointing, weights of the losses, AdamW, clipping and the average of the weights are those of
the configuration that was published for the structure stage (`structurev2.yaml` of boltz-cp); bf16
is Lightning's own `bf16-mixed`. The first step of a size, which compiles kernels, is not counted:
on stderr it tells the terms of the loss, and the trained parameters that got no gradient.

Two differences from our benchmark are boltz's own. A complex without templates gets an empty one,
which goes through the template module. Matrix products outside autocast are full fp32, which that
configuration does not change, where ours are TF32; with `--tf32` these are too.

Needed are boltz 2.2.1, PyTorch and, for boltz's kernels, cuequivariance-torch with
cuequivariance-ops-torch-cu12 or -cu13 (or `--no-kernels`). The two kernels that boltz calls,
triangle attention and triangle multiplication, have gradients. foldcp is not imported.

On a machine without a network a training step needs no wheel that inference does not need: beside
NumPy, SciPy, SymPy, mpmath, tqdm, PyYAML, packaging and typing-extensions it imports einops, einx,
frozendict, fsspec, torchmetrics, lightning-utilities and pytorch-lightning (2.5.0 and 2.6.6 were
tried), which are pure Python: unpack their wheels, with the folders of their metadata, into one of
PYTHONPATH. Of rdkit it imports one name, for annotations: a folder `rdkit` with an empty
`__init__.py` and a `Chem.py` that says `class Mol: ...` will do.
"""

from __future__ import annotations

import argparse
import copy
import importlib.util
import json
import resource
import sys
import time
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from boltz.data import const
from boltz.model.models.boltz2 import Boltz2
from pytorch_lightning import seed_everything
from pytorch_lightning.plugins.precision import MixedPrecision, Precision
from pytorch_lightning.utilities.parsing import AttributeDict
from torch import Tensor
from torch.nn.functional import one_hot, pad

GRADIENT_CLIP = 10.0
ATOM_WINDOW = 32  # boltz pads atoms to a multiple of it
# Of the released structure model, but for dropout and checkpointing: as in training.
RELEASED: dict[str, Any] = {
    "atom_s": 128,
    "atom_z": 16,
    "token_s": 384,
    "token_z": 128,
    "num_bins": 64,
    "atom_feature_dim": 388,
    "atoms_per_window_queries": ATOM_WINDOW,
    "atoms_per_window_keys": 128,
    "fix_sym_check": True,
    "cyclic_pos_enc": True,
    "bond_type_feature": True,
    "predict_bfactor": True,
    "conditioning_cutoff_min": 4.0,
    "conditioning_cutoff_max": 20.0,
    "use_templates": True,
    "use_templates_v2": True,
    "template_args": {
        "template_dim": 64,
        "template_blocks": 2,
        "activation_checkpointing": True,
    },
    "embedder_args": {
        "atom_encoder_depth": 3,
        "atom_encoder_heads": 4,
        "add_mol_type_feat": True,
        "add_method_conditioning": True,
        "add_modified_flag": True,
        "add_cyclic_flag": True,
    },
    "msa_args": {
        "msa_s": 64,
        "msa_blocks": 4,
        "msa_dropout": 0.15,
        "z_dropout": 0.25,
        "use_paired_feature": True,
        "pairwise_head_width": 32,
        "pairwise_num_heads": 4,
        "activation_checkpointing": True,
    },
    "pairformer_args": {
        "num_blocks": 64,
        "num_heads": 16,
        "dropout": 0.25,
        "v2": True,
        "activation_checkpointing": True,
    },
    "score_model_args": {
        "sigma_data": 16,
        "dim_fourier": 256,
        "atom_encoder_depth": 3,
        "atom_encoder_heads": 4,
        "token_transformer_depth": 24,
        "token_transformer_heads": 16,
        "atom_decoder_depth": 3,
        "atom_decoder_heads": 4,
        "conditioning_transition_layers": 2,
        "transformer_post_ln": False,
        "activation_checkpointing": True,
    },
    "checkpoint_diffusion_conditioning": True,
    "diffusion_process_args": {
        "sigma_min": 0.0004,
        "sigma_max": 160.0,
        "sigma_data": 16.0,
        "rho": 7,
        "P_mean": -1.2,
        "P_std": 1.5,
        "gamma_0": 0.8,
        "gamma_min": 1.0,
        "noise_scale": 1.0,
        "step_scale": 1.0,
        "coordinate_augmentation": True,
        "alignment_reverse_diff": True,
        "synchronize_sigmas": False,
    },
    "diffusion_loss_args": {
        "add_smooth_lddt_loss": True,
        "nucleotide_loss_weight": 5.0,
        "ligand_loss_weight": 10.0,
        "filter_by_plddt": 0.0,
    },
    "confidence_prediction": False,
    "structure_prediction_training": True,
    "no_random_recycling_training": True,
    "ema": True,
    "ema_decay": 0.999,
    "validation_args": {},
}
TRAINING = {
    "sampling_steps": 20,
    "diffusion_samples": 1,
    "confidence_loss_weight": 1e-4,
    "diffusion_loss_weight": 4.0,
    "distogram_loss_weight": 3e-2,
    "bfactor_loss_weight": 1e-3,
    "adam_beta_1": 0.9,
    "adam_beta_2": 0.95,
    "adam_eps": 1e-8,
    "lr_scheduler": "af3",
    "base_lr": 0.0,
    "max_lr": 5e-4,
    "lr_warmup_no_steps": 1000,
    "lr_start_decay_after_n_steps": 50000,
    "lr_decay_every_n_steps": 50000,
    "lr_decay_factor": 0.95,
    "weight_decay": 0.003,
    "weight_decay_exclude": True,
}
TINY: dict[str, Any] = {
    "atom_s": 16,
    "atom_z": 8,
    "token_s": 32,
    "token_z": 32,
    "template_args": {"template_dim": 32},  # kernels need multiples of 32
    "embedder_args": {"atom_encoder_depth": 2, "atom_encoder_heads": 2},
    "msa_args": {"msa_s": 16, "msa_blocks": 2},
    "pairformer_args": {"num_blocks": 2, "num_heads": 4},
    "score_model_args": {
        "dim_fourier": 32,
        "atom_encoder_depth": 2,
        "atom_encoder_heads": 2,
        "token_transformer_depth": 2,
        "token_transformer_heads": 4,
        "atom_decoder_depth": 2,
        "atom_decoder_heads": 2,
    },
}


class SkippedBatchError(RuntimeError):
    """boltz printed an error, of memory for example, and returned no loss."""


class StructureStage(Boltz2):
    """boltz's network without the confidence module and without predicting structures.

    boltz 2.2.1 cannot train the structure alone: in training, its `forward` conditions diffusion
    and predicts B-factors only in the branch that samples structures for the confidence module,
    and without these it fails. So the option is on until that branch samples, which is left out.
    boltz-cp does the same; the rest, and so loss and gradients, is as with confidence at weight 0.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.logged: dict[str, float] = {}
        self.validate_structure = True  # boltz reads it to log the losses, and forgot to keep it
        self.structure_module.sample = self._sample_nothing

    def forward(self, *args: Any, **options: Any) -> dict[str, Tensor]:
        self.confidence_prediction = True
        return super().forward(*args, **options)

    def _sample_nothing(self, **_: Any) -> dict[str, Tensor]:
        self.confidence_prediction = False
        return {}

    def log(self, name: str, value: Any, **_: Any) -> None:
        """Lightning's needs a Trainer that runs."""
        self.logged[name] = float(torch.as_tensor(value).detach())


class Training:
    """A network, and what Lightning's Trainer does with it in a step."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.device = torch.device(options.device)
        self.on_gpu = self.device.type == "cuda"
        self.kernels = options.kernels and self.on_gpu
        seed_everything(0, verbose=False)  # boltz draws its weights by NumPy and by PyTorch
        with self.device:
            self.model = StructureStage(**hyper_parameters(options), use_kernels=self.kernels)
        self.model.to(self.device).train()
        # On a CPU fp32, as boltz leaves autocast by the name of "cuda" where it needs fp32.
        self.precision = MixedPrecision("bf16-mixed", "cuda") if self.on_gpu else Precision()
        (self.optimizer,), (schedule,) = self.model.configure_optimizers()
        self.schedule = schedule["scheduler"]
        # Boltz2 and its callback read no more of a Trainer: the step, and the rate to log.
        self.trainer = SimpleNamespace(global_step=0, optimizers=[self.optimizer])
        self.model.trainer = self.trainer
        (self.average,) = self.model.configure_callbacks()
        self.average.on_train_start(self.trainer, self.model)

    def step(self, batch: Mapping[str, Tensor], index: int) -> float:
        """One update of the weights, in the order of Lightning; the loss.

        boltz logs the terms of the loss at step 0, which thus is no step to be measured.
        """
        torch.manual_seed(index)
        self.trainer.global_step = index
        given = dict(batch)  # the step puts other coordinates into it
        with self.precision.train_step_context():
            loss = self.model.training_step(given, index)
        if loss is None:
            raise SkippedBatchError("boltz skipped the batch")
        self.optimizer.zero_grad()  # here, so that the former gradients are held till now
        loss.backward()
        self.precision.clip_gradients(self.optimizer, GRADIENT_CLIP)
        self.optimizer.step()
        self.schedule.step()
        self.trainer.global_step = index + 1
        self.average.on_train_batch_end(self.trainer, self.model, loss, given, index)
        return float(loss.detach())  # waits for the device

    def describe(self) -> str:
        """The terms of the loss of step 0, and the parameters that got no gradient."""
        terms = {
            name.removeprefix("train/"): round(value, 4)
            for name, value in self.model.logged.items()
            if name.endswith("loss")
        }
        trained = {name: p.grad for name, p in self.model.named_parameters() if p.requires_grad}
        missing = [name for name, gradient in trained.items() if gradient is None]
        return f"{terms}; {len(trained)} trained tensors, without gradients {missing or 'none'}"


def hyper_parameters(options: argparse.Namespace) -> dict[str, Any]:
    """The arguments of `Boltz2`."""
    found = copy.deepcopy(RELEASED)
    for name, value in TINY.items() if options.tiny else ():
        if isinstance(value, dict):
            found[name].update(value)
        else:
            found[name] = value
    found["training_args"] = AttributeDict(
        **TRAINING,
        recycling_steps=options.recycling,
        diffusion_multiplicity=options.multiplicity,
    )
    return found


def batch_of(num_tokens: int, rows: int) -> dict[str, Tensor]:
    """What boltz collates of two protein chains without templates: a batch of one.

    Residues, atoms, alignment and structure are those of `bench_training.py`; elements, names and
    positions of the reference conformers are random.
    """
    letters = "ACDEFGHIKLMNPQRSTVWY"
    names = [const.prot_letter_to_token[letters[i % len(letters)]] for i in range(num_tokens)]
    features = _tokens(names)
    features |= _atoms(names)
    features |= _alignment(features["res_type"].argmax(-1), rows)
    features |= _no_template(num_tokens)
    features |= _truth(features)
    return {name: feature[None] for name, feature in features.items()}


def _tokens(names: list[str]) -> dict[str, Tensor]:
    N = len(names)
    index = torch.arange(N)
    first = max(1, N * 3 // 5)  # of the first chain
    chain = (index >= first).long()
    zeros = torch.zeros(N, dtype=torch.long)
    return {
        "token_index": index,
        "residue_index": torch.where(index < first, index, index - first),
        "asym_id": chain,
        "entity_id": chain,
        "sym_id": zeros,
        "mol_type": zeros + const.chain_type_ids["PROTEIN"],
        "res_type": one_hot(
            torch.tensor([const.token_ids[name] for name in names]), const.num_tokens
        ),
        "token_bonds": torch.zeros(N, N, 1),
        "type_bonds": torch.zeros(N, N, dtype=torch.long),
        "token_pad_mask": torch.ones(N),
        "contact_conditioning": one_hot(
            torch.zeros(N, N, dtype=torch.long), len(const.contact_conditioning_info)
        ),
        "contact_threshold": torch.zeros(N, N),
        "method_feature": zeros + const.method_types_ids["x-ray diffraction"],
        "modified": zeros,
        "cyclic_period": torch.zeros(N),
    }


def _atoms(names: list[str]) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(2)
    counts = torch.tensor([len(const.ref_atoms[name]) for name in names])
    starts = counts.cumsum(0) - counts
    num_atoms = int(counts.sum())
    more = -num_atoms % ATOM_WINDOW
    token = torch.repeat_interleave(torch.arange(len(names)), counts)
    rep = starts + torch.tensor([const.res_to_disto_atom_id[name] for name in names])
    letters = torch.randint(1, 64, (num_atoms, 4), generator=generator)
    element = torch.randint(6, 9, (num_atoms,), generator=generator)
    return {
        "ref_pos": pad(torch.randn((num_atoms, 3), generator=generator), (0, 0, 0, more)),
        "ref_charge": torch.zeros(num_atoms + more),
        "ref_element": pad(one_hot(element, const.num_elements), (0, 0, 0, more)),
        "ref_atom_name_chars": pad(one_hot(letters, 64), (0, 0, 0, 0, 0, more)),
        "ref_space_uid": pad(token, (0, more)),
        "atom_to_token": pad(one_hot(token, len(names)), (0, 0, 0, more)),
        "token_to_rep_atom": one_hot(rep, num_atoms + more),
        "atom_pad_mask": pad(torch.ones(num_atoms), (0, more)),
    }


def _alignment(query: Tensor, rows: int) -> dict[str, Tensor]:
    shape = (rows, len(query))
    generator = torch.Generator().manual_seed(0)
    msa = torch.randint(2, 22, shape, generator=generator)
    msa[0] = query
    deleted = torch.rand(shape, generator=generator) < 0.02
    return {
        "msa": msa,
        "has_deletion": deleted,
        "deletion_value": 0.3 * deleted,
        "msa_paired": (torch.rand(shape, generator=generator) < 0.5).float(),
        "msa_mask": torch.ones(shape, dtype=torch.long),
        "profile": one_hot(msa, const.num_tokens).float().mean(0),
        "deletion_mean": 0.3 * deleted.float().mean(0),
    }


def _no_template(N: int) -> dict[str, Tensor]:
    """boltz's `load_dummy_templates_features` with its one template."""
    return {
        "template_restype": one_hot(torch.zeros(1, N, dtype=torch.long), const.num_tokens),
        "template_frame_rot": torch.zeros(1, N, 3, 3),
        "template_frame_t": torch.zeros(1, N, 3),
        "template_cb": torch.zeros(1, N, 3),
        "template_ca": torch.zeros(1, N, 3),
        "template_mask_cb": torch.zeros(1, N),
        "template_mask_frame": torch.zeros(1, N),
        "template_mask": torch.zeros(1, N),
        "visibility_ids": torch.zeros(1, N),
    }


def _truth(features: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A random walk, all of it resolved."""
    mask = features["atom_pad_mask"]
    generator = torch.Generator().manual_seed(1)
    walk = torch.randn((1, len(mask), 3), generator=generator).cumsum(1)
    center = (walk * mask[:, None]).sum(1, keepdim=True) / mask.sum()
    coords = (walk - center) * mask[:, None]
    points = coords[0, features["token_to_rep_atom"].argmax(-1)]
    bins = (torch.cdist(points, points)[..., None] > torch.linspace(2.0, 22.0, 63)).sum(-1)
    return {
        "coords": coords,  # one conformer
        "atom_resolved_mask": mask.bool(),
        "bfactor": 20 * mask,
        "disto_target": one_hot(bins, 64)[:, :, None].float(),
        "token_disto_mask": features["token_pad_mask"],
    }


def measure(training: Training, num_tokens: int, options: argparse.Namespace) -> dict[str, Any]:
    """The median step of one size, and its peak memory: on a CPU, that of the process so far."""
    batch = {
        name: feature.to(training.device)
        for name, feature in batch_of(num_tokens, options.rows).items()
    }
    loss = training.step(batch, 0)
    print(f"{num_tokens} tokens: {training.describe()}", file=sys.stderr, flush=True)
    if training.on_gpu:
        torch.cuda.reset_peak_memory_stats()
    seconds = []
    for index in range(1, options.repeat + 1):
        started = time.perf_counter()
        loss = training.step(batch, index)
        seconds.append(time.perf_counter() - started)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return {
        "tokens": num_tokens,
        "ranks": 1,
        "seconds": sorted(seconds)[options.repeat // 2],
        "peak_bytes": torch.cuda.max_memory_allocated() if training.on_gpu else peak,
        "loss": loss,
        "boltz": version_of("boltz"),
        "kernels": version_of("cuequivariance_torch") if training.kernels else "",
    }


def version_of(package: str) -> str:
    """The version of a package; unknown where it was unpacked without its metadata."""
    try:
        return version(package)
    except PackageNotFoundError:
        return "unknown"


def read_options() -> argparse.Namespace:
    """The options of the command line."""
    parser = argparse.ArgumentParser(description="Seconds and memory of boltz's training step.")
    parser.add_argument("sizes", type=int, nargs="+", help="tokens of a crop")
    parser.add_argument("--recycling", type=int, default=1, help="passes before the last")
    parser.add_argument("--rows", type=int, default=1024, help="of the alignment")
    parser.add_argument("--multiplicity", type=int, default=16)
    parser.add_argument(
        "--no-kernels",
        dest="kernels",
        action="store_false",
        help="without cuEquivariance, which `boltz predict` uses by default on a GPU",
    )
    parser.add_argument("--tf32", action="store_true", help="for products outside autocast")
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--tiny", action="store_true", help="a tiny network, to try the script")
    parser.add_argument("--device", default="cuda", choices=["cuda", "cpu"])
    parser.add_argument("--out", type=Path, help="JSON lines")
    options = parser.parse_args()
    if options.device == "cuda" and not torch.cuda.is_available():
        parser.error("no GPU is visible; --device cpu tries the script without one")
    installed = importlib.util.find_spec("cuequivariance_torch") is not None
    if options.device == "cuda" and options.kernels and not installed:
        parser.error("cuequivariance_torch is not installed; --no-kernels goes without")
    return options


def main() -> None:
    """The sizes of the command line, in their order; the first that does not fit ends the run."""
    options = read_options()
    torch.backends.cuda.matmul.allow_tf32 = options.tf32
    training = Training(options)
    for num_tokens in options.sizes:
        try:
            found = measure(training, num_tokens, options)
        except (torch.OutOfMemoryError, SkippedBatchError) as error:
            print(f"{num_tokens} tokens: {error}", flush=True)
            break
        print(json.dumps(found), flush=True)
        if options.out is not None:
            with options.out.open("a") as file:
                file.write(json.dumps(found) + "\n")


if __name__ == "__main__":
    main()
