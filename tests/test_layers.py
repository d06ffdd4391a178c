"""The house rules that no single module can check: imports go down only, and cheap things stay cheap."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import histcxr

PACKAGE = Path(histcxr.__file__).parent
# From the top floor down; rooms on one floor do not import each other.
FLOORS = [
    {"commands"},
    {"app"},
    {"site"},
    {"worklist", "study"},
    {"reports", "store"},
    {"models", "reference"},
    {"features"},
    {"lungs"},
    {"data"},
    {"decision", "dicom", "networks", "phantoms"},
    {"checks", "files"},
    {"exceptions"},
]
#: What users open the house by: the package, the command, and a public name.
OUTSIDE = {"__init__", "__main__", "plots"}
FLOOR_OF = {room: floor for floor, rooms in enumerate(FLOORS) for room in rooms}
HEAVY = (
    "sklearn",
    "xgboost",
    "pandas",
    "cv2",
    "numpy",
    "scipy",
    "pyarrow",
    "skops",
    "tensorflow",
    "keras",
    "torch",
    "onnxruntime",
)


def rooms_imported(path: Path):
    """Yield every room of the package that a file imports, also inside functions."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        names = []
        if isinstance(node, ast.ImportFrom) and node.level == 0:
            names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        for name in names:
            parts = name.split(".")
            if parts[0] == "histcxr" and len(parts) > 1 and parts[1] in FLOOR_OF:
                yield parts[1]


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda p: str(p.relative_to(PACKAGE)))
def test_imports_go_down_only(path):
    room = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
    if room in OUTSIDE:
        return
    assert room in FLOOR_OF, f"{room} has no floor: add it to FLOORS"
    for other in rooms_imported(path):
        assert other == room or FLOOR_OF[other] > FLOOR_OF[room], f"{room} must not import {other}"


def modules_imported(path: Path):
    """Yield every module of the package that a file needs to run, also those imported inside functions."""
    waiting: list[ast.AST] = [ast.parse(path.read_text(encoding="utf-8"))]
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test):
            waiting += node.orelse
            continue
        waiting += ast.iter_child_nodes(node)
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "histcxr":
            names = [f"{node.module}.{alias.name}" for alias in node.names]
            yield from (name if module_file(name) else node.module for name in names)
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name.split(".")[0] == "histcxr")


def module_file(name: str) -> Path | None:
    place = PACKAGE.parent.joinpath(*name.split("."))
    files = (place.with_suffix(".py"), place / "__init__.py")
    return next((file for file in files if file.is_file()), None)


def test_no_module_imports_itself_by_a_detour():
    """No circle anywhere, also not within a room."""
    needs = {}
    for path in PACKAGE.rglob("*.py"):
        if path != PACKAGE / "__init__.py":  # which names everything, and loads it when it is asked for
            needs[path] = {file for name in modules_imported(path) if (file := module_file(name)) != path} - {
                None
            }
    while leaves := {path for path, others in needs.items() if not others & needs.keys()}:
        for path in leaves:
            del needs[path]
    assert not needs, sorted(str(path.relative_to(PACKAGE)) for path in needs)


def test_rooms_and_files_stay_small():
    folders = [folder for folder in [PACKAGE, *PACKAGE.rglob("*")] if folder.is_dir()]
    assert {folder.name for folder in folders if len([*folder.glob("[!_]*.py")]) > 12} == set()
    long = {path.name for path in PACKAGE.rglob("*.py") if len(path.read_text().splitlines()) > 400}
    assert long == set()


def test_the_drawing_in_contributing_is_the_house():
    text = (PACKAGE.parent / "CONTRIBUTING.md").read_text(encoding="utf-8")
    drawing = text.split("```")[1].strip().splitlines()
    drawn = [set(line.split("  ")[0].strip().split(" | ")) for line in drawing]
    assert drawn == FLOORS
    rooms = {path.relative_to(PACKAGE).parts[0].removesuffix(".py") for path in PACKAGE.rglob("*.py")}
    assert rooms - OUTSIDE == set().union(*FLOORS)


def modules_after(code: str) -> set[str]:
    """Return the modules that a fresh interpreter has loaded after running ``code``."""
    output = subprocess.run(
        [
            sys.executable,
            "-c",
            f"import sys\n{code}\nprintable = sorted(sys.modules)\nprint('\\n'.join(printable))",
        ],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    return {line.split(".")[0] for line in output.splitlines()}


@pytest.mark.parametrize(
    "code",
    [
        "import histcxr",
        "from click.testing import CliRunner\nimport histcxr.commands as c\n"
        "assert CliRunner().invoke(c.main, ['--help']).exit_code == 0",
    ],
    ids=["import", "help"],
)
def test_nothing_heavy_is_loaded(code):
    assert not modules_after(code) & set(HEAVY)


def test_every_public_name_resolves():
    for name in histcxr.__all__:
        assert getattr(histcxr, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        _ = histcxr.nonsense


def test_checkers_see_every_public_name():
    """The imports for checkers are those that the table makes: add a name to both."""
    tree = ast.parse((PACKAGE / "__init__.py").read_text(encoding="utf-8"))
    (branch,) = [node for node in tree.body if isinstance(node, ast.If)]
    imports = [node for node in branch.body if isinstance(node, ast.ImportFrom)]
    seen = {one.asname or one.name: (node.module, one.name) for node in imports for one in node.names}
    table = {name: place.partition(":") for name, place in histcxr._PUBLIC.items()}
    assert seen == {name: (module, other or name) for name, (module, _, other) in table.items()}


def test_a_misspelt_public_name_is_found_by_mypy(tmp_path):
    code = tmp_path / "code.py"
    code.write_text("import histcxr\nhistcxr.read_manifest\nhistcxr.read_manifst\n")
    run = subprocess.run(
        [sys.executable, "-m", "mypy", "--follow-imports=skip", "--config-file=", f"--cache-dir={tmp_path}"]
        + [code, PACKAGE / "__init__.py"],
        capture_output=True,
        text=True,
        cwd=PACKAGE.parent,
    )
    errors = [line for line in run.stdout.splitlines() if "code.py" in line]
    assert len(errors) == 1, run.stdout + run.stderr
    assert ':3: error: Module has no attribute "read_manifst"' in errors[0]


def test_triage_stays_the_function_after_its_room_is_imported():
    code = "import histcxr.worklist.engine, histcxr\nassert callable(histcxr.triage)"
    modules_after(code)
