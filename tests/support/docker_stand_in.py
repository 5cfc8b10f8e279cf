"""Stand-in for docker and its registry, started as a program: records its arguments and answers as
both do with immutable tags.

DOCKER_STAND_IN names a folder. A file `refuse` in it ends the command that it names with its other
text; with a file `other-build` another build pushes the same tag meanwhile. It writes `calls`, a
line of JSON for each start, and `registry.json`, the digest of each pushed tag. Each build has
another digest, as real ones do. Standard library only.
"""

from __future__ import annotations

import json
import os
import re
import secrets
import sys
from pathlib import Path
from typing import Any

NOT_THERE = "no such manifest: {}"
OTHER_DIGEST = f"sha256:{'5' * 64}"
"""Digest of the image that another build pushes."""


def main(arguments: list[str]) -> int:
    """Run docker's command; return its exit code."""
    folder = Path(os.environ["DOCKER_STAND_IN"])
    with (folder / "calls").open("a", encoding="utf-8") as calls:
        calls.write(json.dumps(arguments) + "\n")
    refusal = folder / "refuse"
    if refusal.exists():
        command, _, message = refusal.read_text(encoding="utf-8").partition(":")
        if command == arguments[0]:
            return _failed(message.strip())
    if arguments[:3] == ["manifest", "inspect", "--verbose"]:
        return _inspect(folder, arguments[3])
    if arguments[0] == "build":
        return _build(folder, arguments[1:])
    if arguments[0] == "push":
        return _push(folder, arguments[1])
    return _failed(f"docker: '{arguments[0]}' is not a docker command.")


def digests(folder: Path, name: str = "registry.json") -> dict[str, str]:
    """Return the digest of each pushed reference; `local.json`: of each built one."""
    path = folder / name
    by_reference: dict[str, str] = (
        json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    )
    return by_reference


def calls(folder: Path) -> list[list[str]]:
    """Return the arguments of every start."""
    lines = (folder / "calls").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


def _inspect(folder: Path, reference: str) -> int:
    digest = digests(folder).get(reference)
    if digest is None:
        return _failed(NOT_THERE.format(reference))
    platform = {"architecture": "amd64", "os": "linux"}
    media_type = "application/vnd.docker.distribution.manifest.v2+json"
    descriptor: dict[str, Any] = {"mediaType": media_type, "digest": digest, "platform": platform}
    print(json.dumps({"Ref": reference, "Descriptor": descriptor}))
    return 0


def _build(folder: Path, arguments: list[str]) -> int:
    options = dict(zip(arguments[:-1:2], arguments[1:-1:2], strict=True))
    source = Path(arguments[-1], options["--file"]).read_text(encoding="utf-8")
    target = options["--target"]
    if not re.search(rf"^FROM .* AS {re.escape(target)}$", source, re.MULTILINE):
        return _failed(f"failed to reach build target {target} in Dockerfile")
    _save(folder, "local.json", options["--tag"], f"sha256:{secrets.token_hex(32)}")
    if (folder / "other-build").exists():
        _save(folder, "registry.json", options["--tag"], OTHER_DIGEST)
    return 0


def _push(folder: Path, reference: str) -> int:
    digest = digests(folder, "local.json").get(reference)
    if digest is None:
        return _failed(f"An image does not exist locally with the tag: {reference}")
    if digests(folder).get(reference, digest) != digest:
        return _failed("manifest invalid: cannot update tag, the repository has immutable tags")
    _save(folder, "registry.json", reference, digest)
    return 0


def _save(folder: Path, name: str, reference: str, digest: str) -> None:
    content = json.dumps({**digests(folder, name), reference: digest})
    (folder / name).write_text(content, encoding="utf-8")


def _failed(message: str) -> int:
    sys.stderr.write(message + "\n")
    return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
