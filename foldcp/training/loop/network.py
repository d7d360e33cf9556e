"""The network of a training run: new, of a checkpoint to fine-tune, or of the run itself."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

from torch import Tensor, nn

from foldcp.checkpoint.identity import is_untrained
from foldcp.checkpoint.load import build_model, check_weights, read_checkpoint
from foldcp.checkpoint.precision import set_precision
from foldcp.config import Architecture
from foldcp.distributed.mesh import Mesh
from foldcp.kernels.dispatch import choose_backend
from foldcp.model.boltz2 import Boltz2
from foldcp.model.layers.layers import set_backend
from foldcp.training.gradients import require_gradients
from foldcp.training.loop.checkpoints import newest_checkpoint
from foldcp.training.loop.flat_weights import FlatWeights
from foldcp.training.loop.initialization import init_weights
from foldcp.training.loop.lightning_layout import TrainingState, read_state
from foldcp.training.loop.optimizer import Optimizer, decay_groups
from foldcp.training.loop.settings import TrainSettings, checkpoint_folder, untrained_size


@dataclass(frozen=True, eq=False)
class Network:
    """A network that is trained, the vector of its weights, and its optimizer."""

    model: Boltz2
    flat: FlatWeights
    groups: Sequence[Mapping[str, nn.Parameter]]  # of `decay_groups`
    optimizer: Optimizer
    num_steps: int  # that are done
    num_skipped: int  # among these


def make_network(settings: TrainSettings, out: Path, mesh: Mesh) -> Network:
    """The network of the newest checkpoint in the folder of the run, or a new one. Collective.

    Raises ValueError naming the file: damaged, or of a run with other settings.
    """
    newest = newest_checkpoint(checkpoint_folder(out))
    state = None
    if newest is not None:
        architecture, _ = read_checkpoint(newest)
        state = read_state(newest, architecture)
        _check_same_run(newest, state, settings)
        model = _with_weights(newest, architecture, state.weights, mesh)
    elif settings.model.init and not is_untrained(settings.model.init):
        path = Path(settings.model.init)
        architecture, weights = read_checkpoint(path)
        _check_architecture(path, architecture, settings)
        model = _with_weights(path, architecture, weights, mesh)
    else:
        architecture = settings.model.architecture
        if settings.model.init:
            architecture = untrained_size(settings.model.init)
        model = build_model(architecture, mesh.cp)
        init_weights(model, settings.seed)
    model.to(mesh.device)
    trained = choose_trained(model, settings)
    groups = decay_groups(trained, settings.optimizer.weight_decay)
    flat = FlatWeights(groups, mesh)
    if settings.precision == "bf16":
        set_precision(model, "mixed", sampling="fp32")
    flat.attach()
    set_backend(model, choose_backend("auto", mesh.device))
    optimizer = Optimizer(flat, settings.optimizer, mesh)
    if state is None:
        return Network(model.train(), flat, groups, optimizer, 0, 0)
    num_updates = state.num_steps - state.num_skipped
    optimizer.restore(state.average, state.mean, state.square, num_updates)
    return Network(model.train(), flat, groups, optimizer, state.num_steps, state.num_skipped)


def _with_weights(
    path: Path, architecture: Architecture, weights: Mapping[str, Tensor], mesh: Mesh
) -> Boltz2:
    check_weights(path, architecture, weights)
    model = build_model(architecture, mesh.cp)
    copies = {name: weight.clone() for name, weight in weights.items()}
    model.load_state_dict(copies, strict=True, assign=True)
    return model


def _check_same_run(path: Path, state: TrainingState, settings: TrainSettings) -> None:
    for name in ("examples_per_step", "seed"):
        then = getattr(state, name)
        now = getattr(settings, name)
        if then != now:
            raise ValueError(
                f"{path}: the run began with {name}={then}, not {now}; give --out another folder, "
                "or name this checkpoint as model.init"
            )
    _check_architecture(path, state.architecture, settings)


def _check_architecture(path: Path, architecture: Architecture, settings: TrainSettings) -> None:
    """Raise ValueError where the settings ask for other sizes than those of a file."""
    model = settings.model
    asked = model.architecture
    if asked != architecture and not (model.init and asked == Architecture()):
        raise ValueError(f"{path}: has other sizes than model.architecture asks for")


def choose_trained(model: Boltz2, settings: TrainSettings) -> dict[str, nn.Parameter]:
    """The parameters that are trained; no others require gradients.

    Raises ValueError for a pattern without a parameter, and when none is left.
    """
    require_gradients(model, settings.step.weights)
    named = dict(model.named_parameters())
    for key in ("train", "freeze"):
        for pattern in getattr(settings.model, key):
            if not any(fnmatchcase(name, pattern) for name in named):
                raise ValueError(f"model.{key}: no parameter has a name like {pattern!r}")
    for name, p in named.items():
        wanted = any(fnmatchcase(name, pattern) for pattern in settings.model.train)
        frozen = any(fnmatchcase(name, pattern) for pattern in settings.model.freeze)
        p.requires_grad_(p.requires_grad and wanted and not frozen)
    trained = {name: p for name, p in named.items() if p.requires_grad}
    if not trained:
        raise ValueError("model.train, model.freeze and step.weights leave nothing to train")
    return trained
