"""The configuration: each mistake is told with its place and its remedy, and what holds can be read again."""

from __future__ import annotations

import contextlib
from pathlib import Path

import pytest

from poisonwatch.config import Config, budget_seconds, dump, load
from poisonwatch.demo import CONFIG
from poisonwatch.errors import ConfigError

MODELS = "models:\n  - {name: mail, reference: r.json}\n"
SOURCES = "sources:\n  - path: log.ndjson\n"
GOOD = MODELS + SOURCES


def loaded(tmp_path: Path, text: str | bytes) -> Config:
    """A configuration with this text."""
    path = tmp_path / "config.yaml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return load(path)


MISTAKES: list[tuple[str, list[str]]] = [
    # (text, what each line of the error says after the file's name)
    (GOOD + "detections: {}\n", ["detections: unknown key; did you mean `detection`?"]),
    (GOOD + "detection: {window: 5}\n", ["detection.window: unknown key; did you mean `window_seconds`?"]),
    (
        "models:\n  - {name: mail, reference: r.json, stabel: v1}\n" + SOURCES,
        ["models[0].stabel: unknown key; did you mean `stable`?"],
    ),
    (
        MODELS + "sources:\n  - {path: a, contents: feedback}\n",
        ["sources[0].contents: unknown key; did you mean `content`?"],
    ),
    (GOOD + "web: {qqq: 1}\n", ["web.qqq: unknown key; known are listen_address"]),
    ("models:\n  - {name: mail}\n" + SOURCES, ["models[0].reference: this key is required"]),
    (MODELS, ["sources: this key is required"]),
    (SOURCES, ["models: this key is required"]),
    ("{}", ["models: this key is required", "sources: this key is required"]),
    ("models: []\n" + SOURCES, ["models: at least one entry is needed"]),
    ("models: mail\n" + SOURCES, ["models: this must be a list"]),
    (MODELS + "sources:\n  - log.ndjson\n", ["sources[0]: this must be a mapping"]),
    (MODELS + "sources:\n  - path: [a]\n", ["sources[0].path: this must be a path"]),
    (MODELS + "sources:\n  - {path: a, content: labels}\n", ["sources[0].content: Input should be 'predictions' or"]),
    (MODELS + "sources:\n  - {path: a, kind: amqp}\n", ["sources[0]: `kind` must be one of file, stdin, http, kafka"]),
    (MODELS + "sources:\n  - {kind: kafka}\n", ["sources[0].brokers: this key is", "sources[0].topic: this key is"]),
    (
        MODELS + "sources:\n  - {path: a, format: {kind: kserve, colums: [a]}}\n",
        ["sources[0].format.colums: unknown key; known are"],
    ),
    (MODELS + "sources:\n  - {kind: http}\n", ["sources: /v1/predictions needs `state.spool`"]),
    (GOOD + "detection: {window_seconds: soon}\n", ["detection.window_seconds: Input should be a valid number"]),
    (
        GOOD + "detection: {window_seconds: 0}\n",
        ["detection.window_seconds: Input should be greater than or equal to 1"],
    ),
    (GOOD + "detection: {effect_floor: .nan}\n", ["detection.effect_floor: Input should be"]),
    (GOOD + "limits: {versions: 1.5}\n", ["limits.versions: Input should be a valid integer"]),
    (
        GOOD + "detection: {budget: 5}\n",
        ["detection.budget: Input should be a valid string"],
    ),
    *(
        (
            GOOD + f"detection: {{budget: {budget}}}\n",
            ["detection.budget: say it like `one page per 30 days` (minutes, hours, days or weeks)"],
        )
        for budget in (
            "never",
            "one page per 0 days",
            "one page per month",
            "one page per -3 days",
            "two pages per day",
            '""',
        )
    ),
    (
        GOOD + "detection: {canary_floor: 0.5, canary_page_floor: 0.4}\n",
        ["detection: canary_page_floor must not be below canary_floor: raise it, or lower the other"],
    ),
    (
        GOOD + "detection: {canary_floor: 0.8}\n",
        ["detection: canary_page_floor must not be below canary_floor: raise it, or lower the other"],
    ),
    (
        GOOD + "detection: {drift_label_floor: 0.3}\n",
        ["detection: drift_label_floor must not be below label_floor: raise it, or lower the other"],
    ),
    *(
        (
            "models:\n  - {name: mail, reference: r.json, reference_sha256: '" + pin + "'}\n" + SOURCES,
            ["models[0].reference_sha256: "],
        )
        for pin in ("", "f" * 63, "F" * 64, "g" * 64, "f" * 64 + " ")
    ),
    (
        MODELS + "sources:\n  - path: a\n  - path: a\n",
        ["sources: two sources read a: every record would count twice"],
    ),
    (
        "models:\n  - {name: m, reference: a}\n  - {name: m, reference: b}\n" + SOURCES,
        ["models: two models have the same name: give each its own"],
    ),
    (
        MODELS + "sources:\n  - {path: a, content: feedback}\n",
        ["sources: none has `content: predictions`: there is nothing to watch"],
    ),
    ("", ["the configuration must be a mapping with at least `models` and `sources`"]),
    ("- a\n", ["the configuration must be a mapping with at least `models` and `sources`"]),
    ("hello", ["the configuration must be a mapping with at least `models` and `sources`"]),
    (GOOD + "web: {}\nweb: {}\n", ["this is not valid YAML: while constructing a mapping"]),
    ("models: [\n", ["this is not valid YAML: while parsing a flow"]),
    ("models: !!python/object:os.system {}\n", ["this is not valid YAML: could not determine a constructor"]),
    ("\x00", ["this is not valid YAML"]),
    ("a: " + "[" * 5000, ["this is not valid YAML"]),
    (
        GOOD + "detection: {windw_seconds: 1}\nlimits: {line_bytes: 1}\n",
        [
            "detection.windw_seconds: unknown key; did you mean `window_seconds`?",
            "limits.line_bytes: Input should be greater than or equal to 1024",
        ],
    ),
]


@pytest.mark.parametrize(("text", "told"), MISTAKES, ids=[told[0][:60] for _, told in MISTAKES])
def test_mistake(tmp_path: Path, text: str, told: list[str]) -> None:
    """Every mistake is one line with the file, the YAML path, and what to do."""
    with pytest.raises(ConfigError) as refused:
        loaded(tmp_path, text)
    found = str(refused.value).splitlines()
    assert len(found) == len(told)
    for line, expected in zip(found, told, strict=True):
        assert line.startswith(f"{tmp_path / 'config.yaml'}: {expected}")


def test_not_text(tmp_path: Path) -> None:
    """A file that is no text is refused as no YAML."""
    with pytest.raises(ConfigError, match="this is not valid YAML"):
        loaded(tmp_path, b"models: \xff\xfe\xfa")


@pytest.mark.parametrize("name", ["none.yaml", "."])
def test_not_readable(tmp_path: Path, name: str) -> None:
    """A file that is not there, or is a folder, is named with the reason."""
    with pytest.raises(ConfigError, match=r"the configuration cannot be read \("):
        load(tmp_path / name)


def test_defaults(tmp_path: Path) -> None:
    """A model and a source are enough; paths start from the configuration's own folder."""
    config = loaded(tmp_path, GOOD)
    assert config.models[0].reference == tmp_path / "r.json"
    assert [source.name for source in config.sources] == [str(tmp_path / "log.ndjson")]
    assert (config.sources[0].kind, config.sources[0].content) == ("file", "predictions")
    assert config.detection.budget == "one page per 30 days"
    assert config.web.listen_address == "127.0.0.1:9787"
    assert (config.state.checkpoint, config.state.journal, config.state.dead_letter) == (None, None, None)


def test_paths(tmp_path: Path) -> None:
    """Relative paths do not depend on where the agent was started; absolute ones stay as they are."""
    (tmp_path / "elsewhere").mkdir()
    text = (
        "models:\n  - {name: m, reference: refs/r.json}\nsources:\n  - path: /var/log/a\n  - path: ../b\n"
        "state: {checkpoint: s/c, journal: /s/j, dead_letter: d}\n"
    )
    config = loaded(tmp_path, text)
    with contextlib.chdir(tmp_path / "elsewhere"):
        assert load(Path("../config.yaml")) == config
    assert config.models[0].reference == tmp_path / "refs/r.json"
    assert [source.name for source in config.sources] == ["/var/log/a", str(tmp_path / "../b")]
    assert (config.state.checkpoint, config.state.journal) == (tmp_path / "s/c", Path("/s/j"))
    assert config.state.dead_letter == tmp_path / "d"


@pytest.mark.parametrize(
    "text",
    [
        GOOD,
        CONFIG,
        GOOD + "detection: {budget: one page per week, window_seconds: 30, effect_floor: 0.2}\n",
        "models:\n  - {name: 'yes', reference: r, stable: '1.0'}\n  - {name: 'null', reference: 'a: b # c'}\n"
        + SOURCES,
        "models:\n  - {name: m, reference: r, reference_sha256: " + "0a" * 32 + "}\n" + SOURCES,
        GOOD + "detection: {canary_floor: 0.5, canary_page_floor: 0.5}\n",
        GOOD + "state: {checkpoint: c, journal: j}\nlimits: {versions: 3}\nweb: {listen_address: '[::1]:0'}\n",
    ],
)
def test_effective_configuration_loads_again(tmp_path: Path, text: str) -> None:
    """What `check` prints is a configuration that says the same, whatever the strings look like."""
    config = loaded(tmp_path, text)
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "config.yaml").write_text(dump(config))
    assert load(tmp_path / "elsewhere" / "config.yaml") == config


@pytest.mark.parametrize(
    ("budget", "seconds"),
    [
        ("one page per 30 days", 30 * 86400.0),
        ("one page per day", 86400.0),
        ("one page per 1 day", 86400.0),
        ("one page per 2 weeks", 2 * 604800.0),
        ("one page per 1.5 hours", 5400.0),
        ("one page per 90 minutes", 5400.0),
    ],
)
def test_budget(budget: str, seconds: float) -> None:
    """A budget says the time that it stands for."""
    assert budget_seconds(budget) == seconds


def test_every_setting_is_described() -> None:
    """Every key that an operator can set says in the schema what it does, or has parts that do."""
    schema = Config.model_json_schema()
    parts = {name: part for name, part in schema["$defs"].items() if name != "JsonValue"}
    for name, part in {**parts, "Config": schema}.items():
        assert part["description"], name
        for key, setting in part["properties"].items():
            told = setting.get("description") or "$ref" in repr(setting) or "const" in setting
            assert told, f"{name}.{key}"
