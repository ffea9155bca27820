"""The little of `aws` and of `databricks` that the quickstarts use, out of folders below the folder in CLOUD."""

from __future__ import annotations

import os
import re
import shutil
import sys
from fnmatch import fnmatch
from itertools import pairwise
from pathlib import Path


def aws() -> None:
    """`aws s3 sync --only-show-errors s3://BUCKET/PREFIX FOLDER`, and `aws cloudwatch get-metric-statistics` of invocations."""
    store = Path(os.environ["CLOUD"]) / "s3"
    match sys.argv[1:]:
        case ["s3", "sync", "--only-show-errors", source, target] if source.startswith("s3://"):
            prefix = store / source.removeprefix("s3://")
            for file in sorted(prefix.rglob("*.jsonl")):
                _fetch(file, Path(target) / file.relative_to(prefix))
        case ["cloudwatch", "get-metric-statistics", *options]:
            said = " ".join(options)
            assert said.startswith("--namespace AWS/SageMaker --metric-name Invocations --statistics Sum "), said
            assert " --dimensions Name=EndpointName,Value=income-endpoint Name=VariantName,Value=AllTraffic --" in said
            assert re.search(
                r" --start-time \d{4}-\d\d-\d\dT00:00:00Z --end-time \d{4}-\d\d-\d\dT00:00:00Z --period 86400 ", said
            )
            folder = store / "example-bucket" / "datacapture" / "income-endpoint" / "AllTraffic"
            lines = sum(len(file.read_bytes().splitlines()) for file in folder.rglob("*-instance-1[01].jsonl"))
            sys.stdout.write(f"{lines}.0\n")
        case unknown:
            sys.exit(f"aws {unknown}: not known here")


def databricks() -> None:
    """`databricks fs cp --recursive dbfs:/Volumes/CATALOG/SCHEMA/VOLUME/FOLDER FOLDER`."""
    match sys.argv[1:]:
        case ["fs", "cp", "--recursive", source, target] if source.startswith("dbfs:/Volumes/"):
            folder = Path(os.environ["CLOUD"]) / "volumes" / source.removeprefix("dbfs:/Volumes/")
            files = sorted(file for file in folder.rglob("*") if file.is_file())
            assert files, f"{source} is not there"
            for file in files:
                _fetch(file, Path(target) / file.relative_to(folder))
        case unknown:
            sys.exit(f"databricks {unknown}: not known here")


def az() -> None:
    """`az storage blob download-batch --source CONTAINER --destination FOLDER --pattern PATTERN ...`."""
    match sys.argv[1:]:
        case ["storage", "blob", "download-batch", *options]:
            said = {name: value for name, value in pairwise(options) if name.startswith("--")}
            container = Path(os.environ["CLOUD"]) / "blobs" / said["--source"]
            # A `*` of these patterns matches slashes as well.
            for file in sorted(container.rglob("*.jsonl")):
                if fnmatch(str(file.relative_to(container)), said["--pattern"]):
                    _fetch(file, Path(said["--destination"]) / file.relative_to(container))
        case unknown:
            sys.exit(f"az {unknown}: not known here")


def _fetch(file: Path, copy: Path) -> None:
    """Copy what is not there yet, under another name first and with the time of the original."""
    if copy.exists() and copy.stat().st_size == file.stat().st_size:
        return
    copy.parent.mkdir(parents=True, exist_ok=True)
    draft = copy.with_name(f"{copy.name}.6eF1A2b3")
    shutil.copy2(file, draft)
    draft.rename(copy)
