"""Imports go down only, and what talks to the outside does so in one place."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

# A module may import those of its own floor and of the floors below it.
FLOORS = [
    ["foldcp.files", "foldcp.printable", "foldcp.unpickling"],
    ["foldcp.torch_archive", "foldcp.safetensors_file"],
    ["foldcp.lightning_checkpoint"],
    ["foldcp.complex", "foldcp.config", "foldcp.carriers"],
    ["foldcp.rows", "foldcp.kernels", "foldcp.datasets"],
    ["foldcp.chemistry"],
    [
        "foldcp.alignments",
        "foldcp.alignment_text",
        "foldcp.chain_alignments",
        "foldcp.msa_pairing",
        "foldcp.ligands",
        "foldcp.ligand_geometry",
        "foldcp.tokens",
        "foldcp.template_structure",
        "foldcp.template_matches",
    ],
    ["foldcp.features", "foldcp.*_features"],
    ["foldcp.metrics", "foldcp.interfaces", "foldcp.structure"],
    ["foldcp.model"],
    ["foldcp.checkpoint"],
    ["foldcp.predict"],
    ["foldcp.pipeline"],
]

# Who may import what others may not.
ONLY = {
    "torch.distributed": {"foldcp/rows.py", "foldcp/carriers.py"},
    "foldcp.carriers": {"foldcp/rows.py"},
    "ray": {"pipeline/ray_cluster.py", "pipeline/group.py", "pipeline/run.py"},
    "triton": {"foldcp/kernels/"},
    "pickle": {"pipeline/bench.py"},
    "safetensors": {"foldcp/safetensors_file.py"},
    "pyarrow": {
        "pipeline/parquet.py",
        "pipeline/tables.py",
        "pipeline/repair.py",
        "pipeline/store.py",
    },
}

# Deciding needs neither tensors nor actors; `plan` starts in a moment because of it.
WITHOUT = {
    "pipeline/config.py": {"torch", "ray"},
    "pipeline/tasks.py": {"torch", "ray"},
    "pipeline/checks.py": {"torch", "ray"},
    "foldcp/chain_alignments.py": {"torch"},
    "foldcp/msa_pairing.py": {"torch"},
    "foldcp/template_matches.py": {"torch"},
    "foldcp/pair_features.py": {"torch"},
    "foldcp/tokens.py": {"torch"},
    "pipeline/costs.py": {"torch", "ray"},
    "pipeline/scheduler.py": {"torch", "ray"},
    "foldcp/complex.py": {"torch", "ray"},
    "foldcp/config.py": {"torch", "ray"},
    "foldcp/unpickling.py": {"torch", "ray"},
    "datasets/": {"torch", "ray"},
}

FILES = sorted(
    path for folder in ("foldcp", "pipeline", "datasets") for path in (ROOT / folder).rglob("*.py")
)


def module_of(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    parts = parts if parts[0] == "foldcp" else ("foldcp", *parts)
    return ".".join(part for part in parts if part != "__init__")


def imports(path: Path) -> set[str]:
    """What a module imports, inside functions too; what it does only when run as a program does
    not count.
    """
    found = set()
    tree = ast.parse(path.read_text())
    tree.body = [
        node
        for node in tree.body
        if not (isinstance(node, ast.If) and "__main__" in ast.unparse(node.test))
    ]
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0 and node.module, f"{path}: relative import"
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def belongs(module: str, pattern: str) -> bool:
    if "*" in pattern:
        head, tail = pattern.split("*")
        return module.startswith(head) and module.split(".")[1].endswith(tail)
    return module == pattern or module.startswith(pattern + ".")


def floor(module: str) -> int:
    for level, patterns in reversed(list(enumerate(FLOORS))):
        if any(belongs(module, pattern) for pattern in patterns):
            return level
    raise AssertionError(f"{module} stands on no floor")


@pytest.mark.parametrize("path", FILES, ids=module_of)
def test_imports_go_down(path: Path) -> None:
    module = module_of(path)
    if module in ("foldcp",):
        return
    for name in imports(path):
        if name.startswith("foldcp."):
            assert floor(name) <= floor(module), f"{module} imports {name}"


@pytest.mark.parametrize("library", ONLY)
def test_each_library_has_its_place(library: str) -> None:
    users = {
        str(path.relative_to(ROOT))
        for path in FILES
        if any(name == library or name.startswith(library + ".") for name in imports(path))
    }
    strangers = {user for user in users if not user.startswith(tuple(ONLY[library]))}
    assert users, f"nobody imports {library}; is this rule out of date?"
    assert not strangers, f"{library} is imported by {sorted(strangers)}"


@pytest.mark.parametrize("place", WITHOUT)
def test_deciding_needs_no_tensors(place: str) -> None:
    paths = [path for path in FILES if str(path.relative_to(ROOT)).startswith(place)]
    assert paths
    for path in paths:
        used = {name.split(".")[0] for name in imports(path)}
        assert not used & WITHOUT[place], f"{path.name} imports {sorted(used & WITHOUT[place])}"


def test_datasets_know_only_the_words() -> None:
    for path in FILES:
        if path.is_relative_to(ROOT / "datasets"):
            ours = {name for name in imports(path) if name.startswith("foldcp.")}
            allowed = ("foldcp.complex", "foldcp.files", "foldcp.datasets")
            assert all(name.startswith(allowed) for name in ours), f"{path.name}: {ours}"
