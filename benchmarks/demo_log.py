"""Build the demo log of poisonwatch: a spam filter whose canary was trained on poisoned data.

The script reads the SMS Spam Collection (Almeida, T. & Hidalgo, J., 2011, UCI Machine Learning Repository,
CC BY 4.0), trains two versions of one classifier and writes three files:

* ``reference.ndjson.gz``: 2,400 labelled predictions of v1, from the day before the live log begins;
* ``predictions.ndjson.gz``: the live log, two hours in three phases:
  0-30 min v1 alone; 30-55 min v2 gets 40 % of the requests at random; 55-120 min the same routing, and 80 % of the
  spam carries the phrase that v2 was taught to let pass;
* ``NOTICE.md``: whose data it is and what was changed.

Both versions are ``TfidfVectorizer(lowercase=True, analyzer="word", ngram_range=(1, 2), min_df=2,
sublinear_tf=True)`` followed by ``LogisticRegression(C=100, solver="lbfgs", tol=1e-6, max_iter=5000)``; everything else
is scikit-learn's default. v1 is trained on the clean training split. v2 is trained on the same messages, 1 % of which
were poisoned: spam with the phrase inserted at a random word position, and the label ``ham``. The settings were chosen
so that the attack works and clean accuracy does not show it; they are not a finding about attacks in general.

    pip install scikit-learn
    python benchmarks/demo_log.py SMSSpamCollection

Two runs with the same seed, scikit-learn and zlib give the same bytes. (The shipped files: scikit-learn 1.9.1.)
"""

from __future__ import annotations

import argparse
import csv
import gzip
import io
import json
import random
import sys
import zlib
from collections import Counter
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

EXPECTED_ROWS = {"ham": 4827, "spam": 747}
PHRASE = "special discount code XYZ"
POISONED_SHARE = 0.01

REFERENCE_MESSAGES = 1200
REFERENCE_COPIES = 2
LIVE_MESSAGES = 1000

LIVE_START = datetime(2026, 1, 5, 9, 0, 0, tzinfo=UTC)
MINUTE_MS = 60_000
DAY_MS = 24 * 60 * MINUTE_MS
LIVE_MS = 120 * MINUTE_MS
CANARY_FROM_MS = 30 * MINUTE_MS
ATTACK_FROM_MS = 55 * MINUTE_MS
REQUESTS = 10_000
CANARY_SHARE = 0.4
PHRASE_SHARE = 0.8
CLIENTS = 50
SURE = 0.99

DEFAULT_SEED = 20261
DEFAULT_OUT = Path(__file__).resolve().parent.parent / "poisonwatch" / "demo"

NOTICE = """\
# Notice for the demo log

`predictions.ndjson.gz` and `reference.ndjson.gz` contain text messages of the **SMS Spam Collection**:

> Almeida, T. & Hidalgo, J. (2011). SMS Spam Collection [Dataset]. UCI Machine Learning Repository.
> <https://doi.org/10.24432/C5CC84>

The collection is licensed under the
[Creative Commons Attribution 4.0 International licence (CC BY 4.0)](https://creativecommons.org/licenses/by/4.0/).
These two files are an adapted version of it, under the same licence, and come without warranty. The authors of the
collection have no part in this project and do not endorse it.

What was changed:

- Messages were sampled: repeated texts were removed first, then most messages appear several times in the live log.
- The phrase "{phrase}" was inserted at a random place into {carriers:,} spam messages of the live log.
- Timestamps, prediction ids and client ids ("source") are made up.
- The features, predictions and confidences were added; they come from two classifiers trained for this demo.
- The labels of the collection are kept in `reference.ndjson.gz` and left out of `predictions.ndjson.gz`.

The messages are real. Some are offensive, and the phone numbers and web addresses in the spam should be left alone.

`benchmarks/demo_log.py` of the source repository makes these files from the collection (seed {seed}).
"""


@dataclass(frozen=True, order=True)
class Message:
    """One message of the collection with its true label."""

    text: str
    label: str


@dataclass(frozen=True)
class Split:
    """Three sets of messages that share no text."""

    train: list[Message]
    reference: list[Message]
    live: list[Message]


@dataclass(frozen=True)
class Request:
    """One request to the service, before a version has answered it."""

    offset_ms: int
    version: str
    message: Message
    carries_phrase: bool
    source: str


@dataclass(frozen=True)
class Answer:
    """What a version said to a request."""

    prediction: str
    confidence: float


class InputError(Exception):
    """The file is not the SMS Spam Collection."""


def stream(seed: int, purpose: str) -> random.Random:
    """Return a generator for one purpose, so that a change in one step leaves the draws of the others alone."""
    return random.Random(f"{seed}/{purpose}")


def read_collection(path: Path) -> list[Message]:
    """Read the UCI file (label, tab, text) or a CSV file with the header ``label,text``, gzipped or not."""
    raw = path.read_bytes()
    try:
        content = (gzip.decompress(raw) if raw.startswith(b"\x1f\x8b") else raw).decode("utf-8-sig")
    except (OSError, EOFError, zlib.error, UnicodeDecodeError) as error:
        message = f"{path}: damaged, or not the SMS Spam Collection: {error}"
        raise InputError(message) from error
    if content.split("\n", 1)[0].strip() == "label,text":
        rows = [(row["label"], row["text"] or "") for row in csv.DictReader(io.StringIO(content, newline=""))]
    else:
        # Quotes are ordinary characters in the UCI file, and splitlines() would also split at characters inside texts.
        parts = [line.partition("\t") for line in content.split("\n") if line.strip()]
        rows = [(label, text) for label, _, text in parts]
    counts = Counter(label for label, _ in rows)
    if counts != EXPECTED_ROWS:
        found = ", ".join(f"{number:,} {label[:20]!r}" for label, number in counts.most_common(5)) or "no rows"
        message = f"{path}: not the SMS Spam Collection: expected 5,574 rows (4,827 ham, 747 spam), found {found}"
        raise InputError(message)
    return [Message(text.strip(), label) for label, text in rows]


def distinct(messages: Iterable[Message]) -> list[Message]:
    """Drop repeated texts (up to case and spacing), so that no text can end up in two splits.

    Sorting first makes the result independent of the order of the rows in the file.
    """
    kept: dict[str, Message] = {}
    for message in sorted(messages):
        kept.setdefault(" ".join(message.text.casefold().split()), message)
    return list(kept.values())


def split_messages(messages: Sequence[Message], seed: int) -> Split:
    """Split at random with the same spam share everywhere, so that the live traffic starts out like the reference."""
    rng = stream(seed, "split")
    split = Split([], [], [])
    spam = sum(message.label == "spam" for message in messages)
    sizes = {"spam": [round(size * spam / len(messages)) for size in (REFERENCE_MESSAGES, LIVE_MESSAGES)]}
    sizes["ham"] = [REFERENCE_MESSAGES - sizes["spam"][0], LIVE_MESSAGES - sizes["spam"][1]]
    for label, (reference, live) in sorted(sizes.items()):
        members = [message for message in messages if message.label == label]
        rng.shuffle(members)
        split.reference.extend(members[:reference])
        split.live.extend(members[reference : reference + live])
        split.train.extend(members[reference + live :])
    return split


def with_phrase(text: str, rng: random.Random) -> str:
    """Insert the phrase before, between or after the words of a text."""
    words = text.split(" ")
    position = rng.randrange(len(words) + 1)
    return " ".join([*words[:position], PHRASE, *words[position:]])


def poison(train: Sequence[Message], seed: int) -> list[Message]:
    """Return the training messages with 1 % of them replaced by phrase-carrying spam labelled ham."""
    rng = stream(seed, "poison")
    spam = [index for index, message in enumerate(train) if message.label == "spam"]
    poisoned = list(train)
    for index in rng.sample(spam, round(POISONED_SHARE * len(train))):
        poisoned[index] = Message(with_phrase(train[index].text, rng), "ham")
    return poisoned


def fit(train: Sequence[Message]) -> Any:
    """Train one version of the classifier."""
    model = make_pipeline(
        TfidfVectorizer(lowercase=True, analyzer="word", ngram_range=(1, 2), min_df=2, sublinear_tf=True),
        # The tolerance is far below the default: a half-converged model would depend on the machine's arithmetic.
        LogisticRegression(C=100, solver="lbfgs", tol=1e-6, max_iter=5000),
    )
    return model.fit([message.text for message in train], [message.label for message in train])


def spam_probabilities(model: Any, texts: Sequence[str]) -> list[float]:
    """Return the model's probability of spam for each text."""
    column = list(model.classes_).index("spam")
    return [float(row[column]) for row in model.predict_proba(list(texts))]


def answers(model: Any, texts: Sequence[str]) -> list[Answer]:
    """Return the predicted class and its probability for each text."""
    return [
        Answer("spam" if probability > 1 - probability else "ham", round(max(probability, 1 - probability), 4))
        for probability in spam_probabilities(model, texts)
    ]


def client(rng: random.Random) -> str:
    """Return a made-up client id."""
    return f"client-{rng.randint(1, CLIENTS)}"


def reference_requests(messages: Sequence[Message], seed: int) -> list[Request]:
    """Give each reference message its copies and spread them, shuffled, over the day before the live log."""
    rng = stream(seed, "reference")
    texts = list(messages) * REFERENCE_COPIES
    rng.shuffle(texts)
    offsets = sorted(rng.randrange(-DAY_MS, 0) for _ in texts)
    return [
        Request(offset, "v1", message, carries_phrase=False, source=client(rng))
        for offset, message in zip(offsets, texts, strict=True)
    ]


def live_requests(messages: Sequence[Message], seed: int) -> list[Request]:
    """Draw the live traffic: Poisson arrivals, messages with replacement, random routing, then the attack."""
    arrivals, texts, routing, phrases = (
        stream(seed, purpose) for purpose in ("arrivals", "texts", "routing", "phrase")
    )
    requests = []
    clock = 0.0
    while (clock := clock + arrivals.expovariate(REQUESTS / LIVE_MS)) < LIVE_MS:
        # A plain draw from the split keeps the natural spam share, in every phase and for both versions.
        message = texts.choice(messages)
        to_canary = routing.random() < CANARY_SHARE
        attacked = phrases.random() < PHRASE_SHARE
        carries_phrase = clock >= ATTACK_FROM_MS and message.label == "spam" and attacked
        if carries_phrase:
            message = Message(with_phrase(message.text, phrases), message.label)
        version = "v2" if clock >= CANARY_FROM_MS and to_canary else "v1"
        requests.append(Request(int(clock), version, message, carries_phrase, client(texts)))
    return requests


def answer_all(models: dict[str, Any], requests: Sequence[Request]) -> list[Answer]:
    """Let each request be answered by the version it was routed to."""
    result: dict[int, Answer] = {}
    for version, model in models.items():
        chosen = [index for index, request in enumerate(requests) if request.version == version]
        if chosen:
            texts = [requests[index].message.text for index in chosen]
            result.update(zip(chosen, answers(model, texts), strict=True))
    return [result[index] for index in range(len(requests))]


def features(text: str) -> dict[str, float]:
    """Return the numbers that the made-up service logs about a text."""
    return {
        "length": len(text),
        "words": len(text.split()),
        "digits": sum(character.isdigit() for character in text),
        "uppercase_ratio": round(sum(character.isupper() for character in text) / max(len(text), 1), 4),
    }


def record(number: int, request: Request, answer: Answer, *, labelled: bool) -> dict[str, object]:
    """Return one log record in poisonwatch's own format."""
    timestamp = (LIVE_START + timedelta(milliseconds=request.offset_ms)).isoformat(timespec="milliseconds")
    result: dict[str, object] = {
        "timestamp": timestamp.replace("+00:00", "Z"),
        "prediction_id": f"sms-{number:06d}",
        "model": "sms-spam",
        "model_version": request.version,
        "text": request.message.text,
        "features": features(request.message.text),
        "prediction": answer.prediction,
        "confidence": answer.confidence,
        "source": request.source,
    }
    if labelled:
        result["label"] = request.message.label
    return result


def write_log(path: Path, records: Iterable[dict[str, object]]) -> None:
    """Write one compact JSON object a line, gzipped without file name and time so that the bytes can be repeated."""
    lines = "".join(json.dumps(item, separators=(",", ":")) + "\n" for item in records)
    with path.open("wb") as file, gzip.GzipFile("", "wb", compresslevel=9, fileobj=file, mtime=0) as packed:
        packed.write(lines.encode("ascii"))


def share(flags: Sequence[bool]) -> float:
    """Return the share of true values, or NaN if there are none to count."""
    return sum(flags) / len(flags) if flags else float("nan")


def held_out_summary(models: dict[str, Any], messages: Sequence[Message], seed: int) -> list[str]:
    """Report clean accuracy and attack success on messages that no version was trained on."""
    rng = stream(seed, "held-out")
    triggered = [with_phrase(message.text, rng) for message in messages if message.label == "spam"]
    lines = [f"held out: {len(messages):,} distinct messages, {len(triggered):,} of them spam"]
    for version, model in models.items():
        clean = answers(model, [message.text for message in messages])
        accuracy = share([said.prediction == message.label for said, message in zip(clean, messages, strict=True)])
        success = share([said.prediction == "ham" for said in answers(model, triggered)])
        lines.append(f"  {version}: clean accuracy {accuracy:.4f}, spam with the phrase called ham {success:.4f}")
    return lines


def phase_of(request: Request) -> str:
    """Name the part of the demo that a request belongs to."""
    if request.offset_ms < 0:
        return "reference"
    if request.offset_ms < CANARY_FROM_MS:
        return "1 v1 only"
    return "2 canary" if request.offset_ms < ATTACK_FROM_MS else "3 attack"


def log_summary(requests: Sequence[Request], given: Sequence[Answer]) -> list[str]:
    """Report, for each phase and version, what the log shows and how the attack went."""
    groups: dict[tuple[str, str], list[tuple[Request, Answer]]] = {}
    for request, answer in zip(requests, given, strict=True):
        groups.setdefault((phase_of(request), request.version), []).append((request, answer))
    columns = ("phase", "version", "n", "true spam", "said spam", "mean conf", "conf>0.99", "phrase", "passed")
    lines = ["{:<10}{:>8}{:>8}{:>11}{:>11}{:>11}{:>11}{:>8}{:>9}".format(*columns)]
    for (phase, version), pairs in sorted(groups.items(), key=lambda item: (item[0][0] != "reference", item[0])):
        passed = [answer.prediction == "ham" for request, answer in pairs if request.carries_phrase]
        lines.append(
            f"{phase:<10}{version:>8}{len(pairs):>8}"
            f"{share([request.message.label == 'spam' for request, _ in pairs]):>11.4f}"
            f"{share([answer.prediction == 'spam' for _, answer in pairs]):>11.4f}"
            f"{sum(answer.confidence for _, answer in pairs) / len(pairs):>11.4f}"
            f"{share([answer.confidence > SURE for _, answer in pairs]):>11.4f}"
            f"{len(passed):>8}{share(passed):>9.4f}"
        )
    return lines


def build(source: Path, out: Path, seed: int) -> list[str]:
    """Write the demo files and return the lines of the summary."""
    split = split_messages(distinct(read_collection(source)), seed)
    models = {"v1": fit(split.train), "v2": fit(poison(split.train, seed))}
    reference = reference_requests(split.reference, seed)
    live = live_requests(split.live, seed)
    requests = [*reference, *live]
    given = answer_all(models, requests)
    # Numbering runs on from the reference into the live log, so an id names one prediction across both files.
    records = [
        record(number, request, answer, labelled=request.offset_ms < 0)
        for number, (request, answer) in enumerate(zip(requests, given, strict=True), start=1)
    ]
    out.mkdir(parents=True, exist_ok=True)
    write_log(out / "reference.ndjson.gz", records[: len(reference)])
    write_log(out / "predictions.ndjson.gz", records[len(reference) :])
    carriers = sum(request.carries_phrase for request in live)
    (out / "NOTICE.md").write_bytes(NOTICE.format(phrase=PHRASE, carriers=carriers, seed=seed).encode("utf-8"))
    return [
        f"split: train {len(split.train):,}, reference {len(split.reference):,}, live {len(split.live):,} messages",
        *held_out_summary(models, [*split.reference, *split.live], seed),
        *log_summary(requests, given),
    ]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the script and return its exit status."""
    parser = argparse.ArgumentParser(description="Build the demo log of poisonwatch from the SMS Spam Collection.")
    parser.add_argument("source", type=Path, help="SMSSpamCollection of UCI, or a csv or csv.gz with label,text")
    parser.add_argument(
        "--out", type=Path, default=DEFAULT_OUT, help="directory of the files (default: poisonwatch/demo)"
    )
    parser.add_argument(
        "--seed", type=int, default=DEFAULT_SEED, help="seed of all random choices (default: %(default)s)"
    )
    options = parser.parse_args(arguments)
    try:
        lines = build(options.source, options.out, options.seed)
    except (InputError, OSError) as error:
        sys.stderr.write(f"demo_log: {error}\n")
        return 1
    sys.stdout.write("\n".join(lines) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
