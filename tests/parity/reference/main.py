"""The results of Boltz that are compared: python main.py FOLDER. Files that exist are kept."""

from __future__ import annotations

import hashlib
import importlib
import json
import multiprocessing
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "support"))
from cases import CASES, GRADIENTS, INPUTS, LOSSES, PRECISION, STEERED, TRAINING, Input  # noqa: E402

INPUT_SUFFIXES = (".csv", ".a3m", ".cif")


class Store:
    """Files named by what they are made from."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.index = {".gitignore": ".gitignore"}
        folder.mkdir(parents=True, exist_ok=True)
        (folder / ".gitignore").write_text("*\n")

    def get(
        self,
        name: str,
        suffix: str,
        options: str,
        sources: list[Path],
        make: Callable[[Path], None],
    ) -> Path:
        key = hashlib.sha256(options.encode())
        for source in sources:
            key.update(source.read_bytes() if source.is_file() else b"")
        slug = "".join(letter if letter.isalnum() else "-" for letter in name)
        path = self.folder / f"{slug}-{key.hexdigest()[:12]}{suffix}"
        if not path.exists():
            start = time.time()
            make(path)
            print(f"{time.time() - start:6.1f} s  {name}", flush=True)
        self.index[name] = path.name
        return path

    def close(self) -> None:
        """Forget what another state of the scripts made, and tell where the rest is."""
        for path in self.folder.iterdir():
            if path.name not in self.index.values():
                shutil.rmtree(path) if path.is_dir() else path.unlink()
        (self.folder / "index.json").write_text(json.dumps(self.index, indent=1))


def scripts(*names: str) -> list[Path]:
    return [HERE / f"{name}.py" for name in names]


def files_of(source: Input) -> list[Path]:
    """A YAML and the alignments and templates beside and below it."""
    return [
        source.path,
        *sorted(p for p in source.path.parent.rglob("*") if p.suffix in INPUT_SUFFIXES),
    ]


def in_fresh_process(make: Callable[[Path], None]) -> Callable[[Path], None]:
    """RDKit's conformer of a SMILES depends on those that the process made before it; here it is
    always the first.
    """

    def run(out: Path) -> None:
        process = multiprocessing.get_context("fork").Process(target=make, args=(out,))
        process.start()
        process.join()
        if process.exitcode:
            sys.exit(f"{out.name} was not made: exit code {process.exitcode}")

    return run


class Reference:
    def __init__(self, folder: Path) -> None:
        self.store = Store(folder)
        self.mols = self.store.get(
            "mols",
            "",
            "",
            scripts("make_mols"),
            lambda out: self._script("make_mols", out),
        )
        self.checkpoints = {size: self._checkpoint(size) for size in ("tiny", "real", "averaged")}

    def _script(self, name: str, *args: Any) -> None:
        subprocess.run([sys.executable, HERE / f"{name}.py", *map(str, args)], check=True)

    def _checkpoint(self, size: str) -> Path:
        sources = scripts("make_checkpoint")
        make = lambda out: self._script("make_checkpoint", out, size)  # noqa: E731
        return self.store.get(f"checkpoint {size}", ".ckpt", size, sources, make)

    def _boltz(self, function: str, *args: Any) -> Callable[[Path], None]:
        return lambda out: getattr(importlib.import_module("produce"), function)(*args, out)

    def features(self, name: str) -> Path:
        source = INPUTS[name]
        sources = [
            *scripts("features", "mended", "saving", "make_mols"),
            *files_of(source),
        ]
        make = in_fresh_process(self._boltz("write_features", name, self.mols))
        return self.store.get(
            f"features of {name}",
            ".pt",
            f"{source.method} {source.mended}",
            sources,
            make,
        )

    def network(self, kind: str, name: str, *used: str, more: tuple[Path, ...] = ()) -> Path:
        """The file that `write_<kind>` makes of a case."""
        case = {"steering": STEERED, "training": TRAINING}.get(kind, CASES)[name]
        files = [self.checkpoints[case.size], self.features(case.input), *more]
        options = " ".join([kind, str(case), *(path.name for path in files)])
        make = self._boltz(f"write_{kind}", name, *files)
        return self.store.get(
            f"{kind} of {name}",
            ".pt",
            options,
            scripts("prediction", "saving", *used),
            make,
        )

    def losses(self, name: str) -> Path:
        """Of a case, on an input's features or on an experimental structure."""
        case = LOSSES[name]
        source = case.structure if case.code else self.features(name)
        sources = [*scripts("train/losses", "train/structures", "train/truth", "saving"), source]
        make = self._boltz("write_losses", name, source)
        return self.store.get(f"losses of {name}", ".pt", str(case), sources, make)

    def all(self) -> None:
        importlib.import_module(
            "produce"
        )  # once for all the processes below, which fork before torch has threads
        for name, source in INPUTS.items():
            if source.path.exists():
                self.features(name)
        for size, checkpoint in self.checkpoints.items():
            make = self._boltz("write_weights", checkpoint)
            self.store.get(f"weights of {size}", ".pt", checkpoint.name, scripts("produce"), make)
        predictions = {name: self.network("prediction", name) for name in CASES}
        for name in GRADIENTS:
            self.network("gradients", name, "gradients")
        for name in PRECISION:
            self.network("precision", name, "precision", more=(predictions[name],))
        for name in STEERED:
            self.network("steering", name, "steering")
        for name in TRAINING:
            self.network("training", name, "train/step", "train/truth")
        for name, case in LOSSES.items():
            if case.exists:
                self.losses(name)
        self.store.get("training data", ".pt", "", scripts("train/data"), self._boltz("write_data"))
        self.store.close()


if __name__ == "__main__":
    Reference(Path(sys.argv[1]).resolve()).all()
