"""Imports go down only, by folder, and what talks to the outside does so in one place."""

from __future__ import annotations

import ast
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

# From the lowest layer to the highest; a module imports from its own layer and those below it. A
# folder stands for all modules in it that no longer name stands for.
LAYERS = [
    ["foldcp.printable", "foldcp.files", "foldcp.complex", "foldcp.config"],
    ["foldcp.geometry", "foldcp.progress"],
    ["foldcp.distributed", "foldcp.kernels"],
    ["foldcp.chemistry"],
    ["foldcp.features"],
    ["foldcp.metrics"],
    ["foldcp.structure"],
    ["foldcp.model.layers"],
    ["foldcp.model.trunk"],
    ["foldcp.model.diffusion"],
    ["foldcp.model.steering"],
    ["foldcp.model"],
    ["foldcp.checkpoint"],
    ["foldcp.predict"],
    ["foldcp.predict_group"],
    ["foldcp.training.example", "foldcp.training.settings"],
    ["foldcp.training.losses"],
    ["foldcp.training"],
    ["foldcp.training.loop"],
    ["foldcp.datasets.parsing"],
    ["foldcp.datasets.accessions", "foldcp.datasets.uniprot", "foldcp.datasets.stoichiometry"],
    [
        "foldcp.datasets.chains",
        "foldcp.datasets.msa_store",
        "foldcp.datasets.msas",
        "foldcp.datasets.sequences",
    ],
    ["foldcp.datasets.templates"],
    ["foldcp.datasets.format", "foldcp.datasets.subunits"],
    ["foldcp.datasets.formats"],
    ["foldcp.datasets", "foldcp.datasets.writers"],
    [
        "foldcp.pipeline.config",
        "foldcp.pipeline.terminal",
        "foldcp.pipeline.fetch",
        "foldcp.pipeline.output_paths",
    ],
    ["foldcp.pipeline.inputs"],
    ["foldcp.pipeline.training_data"],
    ["foldcp.pipeline.msa_search"],
    ["foldcp.pipeline.template_search"],
    ["foldcp.pipeline.scheduling"],
    ["foldcp.pipeline.scheduling.simulation"],
    ["foldcp.pipeline.storage"],
    ["foldcp.pipeline.planning"],
    ["foldcp.pipeline.execution"],
    ["foldcp.pipeline.evaluation"],
    ["foldcp.pipeline.reporting", "foldcp.pipeline.bench", "foldcp.pipeline.fold_one"],
    ["foldcp.pipeline.exporting"],
    ["foldcp.pipeline.training"],
    ["foldcp.pipeline"],
    ["foldcp.pipeline.commands"],
    ["foldcp.pipeline.cli"],
    ["foldcp", "foldcp.__main__", "foldcp.api"],
]

# Where a library is imported, and nowhere else.
ONLY = {
    "torch.distributed": "foldcp/distributed/",
    "triton": "foldcp/kernels/",
    "ray": "pipeline/execution/",
    "pyarrow": "pipeline/storage/",
    "h5py": "pipeline/storage/",
    "safetensors": "foldcp/checkpoint/",
    "pickle": "pipeline/bench/",
}

# Deciding needs neither tensors nor actors; `plan` starts in a moment because of it.
WITHOUT_TORCH = [
    "foldcp/complex.py",
    "foldcp/config.py",
    "foldcp/files.py",
    "foldcp/checkpoint/unpickling.py",
    "foldcp/features/msa/chain_msas.py",
    "foldcp/features/msa/pairing.py",
    "foldcp/features/pairs.py",
    "foldcp/features/templates/matching.py",
    "foldcp/features/tokens.py",
    "foldcp/training/data/structure.py",
    "foldcp/training/data/prepared.py",
    "datasets/",
    "pipeline/config.py",
    "pipeline/inputs/",
    "pipeline/scheduling/",
]

FILES = sorted(
    path
    for folder in ("foldcp", "pipeline", "datasets")
    for path in (ROOT / folder).rglob("*.py")
    if not any(parent.is_symlink() for parent in path.parents)
)


def module_of(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    parts = parts if parts[0] == "foldcp" else ("foldcp", *parts)
    return ".".join(part for part in parts if part != "__init__")


MODULES = {module_of(path): path for path in FILES}


@cache
def imports(path: Path) -> frozenset[str]:
    """The imports of a module, inside functions too, as dotted names."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0 and node.module, f"{path}: relative import"
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return frozenset(found)


def is_in(name: str, package: str) -> bool:
    return name == package or name.startswith(package + ".")


def imported_modules(path: Path) -> set[str]:
    """Our modules that a module imports: the longest prefix of each name that is one."""
    found = set()
    for name in imports(path):
        while name and name not in MODULES:
            name = name.rpartition(".")[0]
        if name and name != module_of(path):
            found.add(name)
    return found


def layer(module: str) -> int:
    standing = [
        (len(package), level)
        for level, packages in enumerate(LAYERS)
        for package in packages
        if is_in(module, package)
    ]
    return max(standing)[1]


@pytest.mark.parametrize("module", MODULES)
def test_imports_go_down(module: str) -> None:
    for other in imported_modules(MODULES[module]):
        assert layer(other) <= layer(module), f"{module} imports {other}"


def test_no_module_imports_itself_through_others() -> None:
    below: dict[str, set[str]] = {}

    def visit(module: str, path: tuple[str, ...]) -> set[str]:
        assert module not in path, f"a cycle: {' -> '.join((*path, module))}"
        if module not in below:
            direct = imported_modules(MODULES[module])
            below[module] = direct.union(*(visit(other, (*path, module)) for other in direct))
        return below[module]

    for module in MODULES:
        visit(module, ())


@pytest.mark.parametrize("library", ONLY)
def test_each_library_has_its_folder(library: str) -> None:
    users = {
        str(path.relative_to(ROOT))
        for path in FILES
        if any(is_in(name, library) for name in imports(path))
    }
    assert users, f"no module imports {library}; is this rule out of date?"
    other_users = {user for user in users if not user.startswith(ONLY[library])}
    assert not other_users, f"{library} is imported by {sorted(other_users)}"


@pytest.mark.parametrize("place", WITHOUT_TORCH)
def test_deciding_needs_no_tensors(place: str) -> None:
    paths = [path for path in FILES if str(path.relative_to(ROOT)).startswith(place)]
    assert paths
    for path in paths:
        used = {name.split(".")[0] for name in imports(path)} & {"torch", "ray"}
        assert not used, f"{path} imports {sorted(used)}"


def test_driver_imports_nothing_that_takes_seconds() -> None:
    """Its workers do that while it waits for them."""
    program = "import sys, foldcp.pipeline.score_database; print(*sys.modules)"
    command = [sys.executable, "-c", program]
    modules = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
    assert not {"torch", "biotite", "scipy", "rdkit", "Bio", "duckdb", "h5py"} & set(modules)


def test_datasets_know_only_complexes_and_files() -> None:
    # The one parser of a3m, which knows no more than files, serves inputs that are alignments, too.
    parser = "foldcp.features.msa.parse"
    of_parser = {name for name in imports(MODULES[parser]) if is_in(name, "foldcp")}
    assert all(name.startswith("foldcp.files") for name in of_parser)
    # What structures to train on become knows no more than kinds of chains.
    structures = "foldcp.training.data.structure"
    of_structures = {name for name in imports(MODULES[structures]) if is_in(name, "foldcp")}
    assert all(name.startswith("foldcp.complex") for name in of_structures)
    allowed = (
        "foldcp.complex",
        "foldcp.files",
        "foldcp.printable",
        "foldcp.datasets",
        parser,
        structures,
    )
    for module, path in MODULES.items():
        if is_in(module, "foldcp.datasets"):
            others = {name for name in imports(path) if is_in(name, "foldcp")}
            other_users = {name for name in others if not name.startswith(allowed)}
            assert not other_users, f"{module} imports {sorted(other_users)}"


def test_no_folder_has_more_than_twelve_files() -> None:
    for top in ("foldcp", "pipeline", "datasets", "tests", "configs", "docs", "examples"):
        for folder in [ROOT / top, *(ROOT / top).rglob("*/")]:
            if folder.is_symlink() or any(parent.is_symlink() for parent in folder.parents):
                continue
            if folder.name == "__pycache__":  # keeps the bytecode of files that are gone
                continue
            files = [path.name for path in folder.glob("*") if path.is_file()]
            assert len(files) <= 12, f"{folder.relative_to(ROOT)}: {sorted(files)}"
