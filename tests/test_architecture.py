"""The layers that the package docstring promises, held against the imports in the code."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import vecdb

PACKAGE = Path(vecdb.__file__).parent
# each row may import from the rows above it, and from itself
LAYERS = [
    {"errors", "ending", "forking", "turns"},
    {"schema"},
    {"batch", "metadata", "progress"},
    {"workers"},
    {"kernels"},
    {"quant"},
    {"graph"},
    {"segment"},
    {"store"},
    {"filter"},
    {"query"},
    {"fingerprint", "hits", "vectors"},
    {"trust"},
    {"reading"},
    {"collection", "card"},
    {"interop"},
    {"__init__"},
    {"__main__", "cli"},
]
RANK = {name: rank for rank, names in enumerate(LAYERS) for name in names}
# the only modules that may import numba: it costs half a second and is loaded in the background
NUMBA = {"kernels", "quant", "graph"}


def _modules() -> list[tuple[str, Path]]:
    return [
        (path.relative_to(PACKAGE).parts[0].removesuffix(".py"), path)
        for path in sorted(PACKAGE.rglob("*.py"))
    ]


def _imports(path: Path, *, only_at_runtime: bool = False) -> set[str]:
    found: set[str] = set()
    tree = ast.parse(path.read_text())
    skipped: set[ast.AST] = set()
    for node in ast.walk(tree):
        if only_at_runtime and isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test):
            skipped.update(inner for inner in ast.walk(node))
        if node in skipped:
            continue
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            found.add(node.module or "")
            found.update(f"{node.module}.{alias.name}" for alias in node.names)
    return found


def test_every_module_stands_in_one_layer() -> None:
    assert {name for name, _ in _modules()} <= set(RANK)


def test_imports_go_one_way() -> None:
    wrong = [
        f"{path.relative_to(PACKAGE)} imports {target}"
        for layer, path in _modules()
        for target in _imports(path)
        if target.startswith("vecdb.")
        and RANK.get(target.split(".")[1], -1) > RANK[layer]
        and layer != "__init__"
    ]
    assert not wrong, "\n".join(wrong)


def test_numba_is_imported_by_the_engine_alone() -> None:
    wrong = [
        str(path.relative_to(PACKAGE))
        for layer, path in _modules()
        if layer not in NUMBA and any(t.split(".")[0] == "numba" for t in _imports(path))
    ]
    assert not wrong, "\n".join(wrong)


def test_importing_vecdb_loads_nothing_heavy() -> None:
    code = (
        "import sys, vecdb; "
        "print([m for m in ('numpy', 'pyarrow', 'numba', 'sqlglot', 'pandas') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_the_docstring_names_every_layer() -> None:
    assert vecdb.__doc__ is not None
    folders = {path.parent.name for path in PACKAGE.glob("*/__init__.py")}
    assert all(f"\n    {name} " in vecdb.__doc__ for name in folders)


def test_every_public_name_is_there_and_documented() -> None:
    for name in vecdb.__all__:
        assert getattr(vecdb, name).__doc__, name


def test_files_are_opened_and_changed_in_one_module_alone() -> None:
    """Else the failure tests, which stand behind it, would not see all of it."""
    calls = {"open", "read", "write", "pread", "pwrite", "readv", "writev", "fsync", "fdatasync",
             "truncate", "ftruncate", "rename", "replace", "unlink", "remove", "mkdir", "rmdir",
             "makedirs"}  # fmt: skip
    for layer, path in _modules():
        if layer not in {"segment", "store"} or path.name == "fs.py":
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
                assert not (node.value.id == "os" and node.attr in calls), f"{path}: {node.attr}"
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
                assert node.func.id != "open", path


def test_no_pickle_and_no_eval_in_the_package() -> None:
    for _, path in _modules():
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
                assert node.func.id not in {"eval", "exec", "compile"}, path
        assert not {"pickle", "marshal", "shelve"} & _imports(path), path
