"""The shape of the package: imports point strictly down, and the pure layers touch nothing outside of themselves.

    __main__      the way in
    cli           commands, a few lines each
    demo          an agent with a log that somebody plays
    offline       finished logs, for Python
    assemble      from a configuration to an agent
    agent         the one loop
    reference     the edge's own composition: reads logs (sources, formats) and tells the time as the journal does (sinks)
    sources  server  probe  notify  of formats, of sinks; of inference servers; of receivers
    config  formats  sinks  checkpoint  outgoing
    monitor       the pure machine of one model
    detect  judge  mining  none knows another
    profile
    types  errors  and the version in the package itself

A module may import from its own package and from any layer below its own, never from its neighbours or from above. What
is imported only for annotations counts too: it is knowledge all the same. Up to and including `monitor` everything is
pure: no clock, no files, no network, no threads, no log, no randomness.
"""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import poisonwatch

LAYERS = (
    {"types", "errors", "poisonwatch"},
    {"profile"},
    {"detect", "judge", "mining"},
    {"monitor"},
    {"config", "formats", "sinks", "checkpoint", "outgoing"},
    {"sources", "server", "probe", "notify"},
    {"reference"},
    {"agent"},
    {"assemble"},
    {"demo", "offline"},
    {"cli"},
    {"__main__"},
)
HEIGHT = {unit: height for height, units in enumerate(LAYERS) for unit in units}
PURE = {unit for unit, height in HEIGHT.items() if height <= HEIGHT["monitor"]}

IMPURE = frozenset(
    [
        "time",
        "os",
        "io",
        "sys",
        "pathlib",
        "socket",
        "threading",
        "asyncio",
        "logging",
        "random",
        "datetime",
        "secrets",
        "uuid",
        "tempfile",
        "shutil",
        "subprocess",
        "multiprocessing",
        "concurrent",
        "http",
        "urllib",
        "ssl",
        "select",
        "signal",
        "structlog",
        "prometheus_client",
        "starlette",
        "h11",
        "bcrypt",
    ]
)
CODE_FROM_DATA = frozenset(
    ["pickle", "cPickle", "_pickle", "cloudpickle", "dill", "joblib", "shelve", "marshal", "jsonpickle"]
)
GRAB_BAGS = frozenset(["utils", "util", "common", "helpers", "helper", "core", "base", "misc", "shared"])
LONGEST = 500

FOLDER = Path(poisonwatch.__file__).parent


def modules() -> dict[str, str]:
    """Source of every module of the package by its dotted name below `poisonwatch`."""
    found = {}
    for path in sorted(FOLDER.rglob("*.py")):
        parts = path.relative_to(FOLDER).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts) or "poisonwatch"] = path.read_text("utf-8")
    return found


def imported(source: str) -> set[str]:
    """Dotted names of all that a module imports, wherever the statement stands; `from a import b` gives `a.b`."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found |= {f"{'.' * node.level}{node.module or ''}.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.Attribute) and node.attr == "random" and isinstance(node.value, ast.Name):
            found.add(f"{node.value.id}.random")
    return found


def own_units(source: str) -> set[str]:
    """Which parts of poisonwatch a module imports."""
    parts = [name.split(".") for name in imported(source)]
    return {
        name[1] if len(name) > 1 and name[1] in HEIGHT else "poisonwatch" for name in parts if name[0] == "poisonwatch"
    }


def upward(sources: dict[str, str]) -> list[str]:
    """Imports that do not point strictly down."""
    found = []
    for module, source in sources.items():
        unit = module.split(".")[0]
        found += [
            f"{module} imports {other}"
            for other in sorted(own_units(source))
            if other != unit and HEIGHT[other] >= HEIGHT[unit]
        ]
        found += [f"{module} imports {name}" for name in sorted(imported(source)) if name.startswith(".")]
    return found


def called(source: str) -> set[str]:
    """Plain names that a module calls."""
    calls = (node.func for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Call))
    return {function.id for function in calls if isinstance(function, ast.Name)}


def impure(sources: dict[str, str]) -> list[str]:
    """What modules of the pure layers import or call although it reaches outside."""
    return [
        f"{module} calls {name}"
        for module, source in sources.items()
        if module.split(".")[0] in PURE
        for name in sorted(called(source) & {"open", "print", "input"})
    ] + [
        f"{module} uses {name}"
        for module, source in sources.items()
        if module.split(".")[0] in PURE
        for name in sorted(imported(source))
        if name.split(".")[0] in IMPURE or name.split(".")[:2] in (["np", "random"], ["numpy", "random"])
    ]


def from_data(sources: dict[str, str]) -> list[str]:
    """Where data could become code: pickles in any form, `eval`, `exec`, imports by name."""
    found = []
    for module, source in sources.items():
        found += [f"{module} uses {name}" for name in imported(source) if name.split(".")[0] in CODE_FROM_DATA]
        found += [f"{module} calls {name}" for name in called(source) & {"eval", "exec", "compile", "__import__"}]
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, ast.Attribute) and node.attr == "import_module":
                found.append(f"{module} calls import_module")
            if isinstance(node, ast.keyword) and node.arg == "allow_pickle":
                allowed = not (isinstance(node.value, ast.Constant) and node.value.value is False)
                found += [f"{module} allows pickles"] if allowed else []
    return found


def test_every_module_has_a_layer() -> None:
    """No part of the package stands outside of the table, and the table names nothing that is not there."""
    assert {module.split(".")[0] for module in modules()} == set(HEIGHT)


def test_imports_point_strictly_down() -> None:
    """No module imports from its neighbours or from above."""
    assert upward(modules()) == []


def test_the_pure_layers_reach_nothing_outside() -> None:
    """Up to the monitor there is no clock, file, network, thread, log or randomness."""
    assert impure(modules()) == []


def test_data_never_become_code() -> None:
    """No pickle, no eval, no import by name anywhere in the package; every NumPy load says that it allows no pickle."""
    sources = modules()
    assert from_data(sources) == []
    loads = sum(source.count("np.load(") for source in sources.values())
    assert loads == sum(source.count("allow_pickle=False") for source in sources.values()) > 0


def test_modules_are_small_and_named_for_what_they_know() -> None:
    """No file has more than 500 lines, and none is a grab-bag."""
    sources = modules()
    assert {module: n for module, source in sources.items() if (n := len(source.splitlines())) > LONGEST} == {}
    assert {part for module in sources for part in module.split(".")} & GRAB_BAGS == set()


@pytest.mark.parametrize(
    ("module", "source", "complaint"),
    [
        ("judge.alerts", "from poisonwatch.detect.kernel import log_sum", "judge.alerts imports detect"),
        ("detect.kernel", "import poisonwatch.judge.cause", "detect.kernel imports judge"),
        (
            "profile.window",
            "if TYPE_CHECKING:\n    from poisonwatch.monitor import Monitor",
            "profile.window imports monitor",
        ),
        ("monitor", "def f():\n    from poisonwatch import checkpoint", "monitor imports checkpoint"),
        (
            "sources.file",
            "from poisonwatch.sinks.journal import rfc3339\nfrom poisonwatch.server import app",
            "sources.file imports server",
        ),
        ("types", "from .errors import ConfigError", "types imports .errors.ConfigError"),
        ("detect.shift", "from datetime import datetime", "detect.shift uses datetime.datetime"),
        ("profile.odds", "print(p)", "profile.odds calls print"),
        ("config", "eval(text)", "config calls eval"),
        ("monitor", "import os.path", "monitor uses os.path"),
        ("profile.odds", "x = np.random.default_rng()", "profile.odds uses np.random"),
        ("checkpoint", "np.load(path, allow_pickle=True)", "checkpoint allows pickles"),
        ("checkpoint", "from pickle import loads", "checkpoint uses pickle.loads"),
        ("agent", "importlib.import_module(name)", "agent calls import_module"),
    ],
)
def test_the_checks_notice(module: str, source: str, complaint: str) -> None:
    """Each rule, broken on purpose, is named; the tests above can fail."""
    sources = {module: source}
    assert complaint in [*upward(sources), *impure(sources), *from_data(sources)]


def test_what_is_allowed_is_not_complained_of() -> None:
    """Imports within a package and downwards, and `.random` of anything but NumPy, are fine."""
    sources = {
        "judge.alerts": "from poisonwatch.judge.cause import cause_of\nfrom poisonwatch.types import Alert",
        "formats.infer": "import random\nfrom poisonwatch import __version__",
        "cli": "from poisonwatch.agent import run",
    }
    assert [*upward(sources), *impure(sources), *from_data(sources)] == []
