"""The step `images`: builds both images of container/Dockerfile if their tag is missing from the
registry, and saves their digests. The tag is a hash of the inputs.
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import subprocess

from common.errors import DeploymentFailed
from workflows.deployment.checkout import image_repository
from workflows.deployment.context import SHOWN_LETTERS, Context, last_error_line, say

OUTPUT_FILE = "images.json"
BATCH, CLOUD_RUN = TARGETS = ("batch", "cloud-run")
"""Targets of the Dockerfile and names of the images."""

INPUTS = ("container", "requirements-spark.txt")
PLATFORM = "linux/amd64"
TAG_LETTERS = 16
DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
PINNED = re.compile(r"[^\s@]+@sha256:[0-9a-f]{64}")

INSTALL_CLIENT = ("apt-get", "install", "--yes", "--no-install-recommends", "docker.io")
"""Debian 12 has 20.10, as Cloud Build's daemon is. A client from 29 on refuses that daemon
(https://github.com/docker/buildx/issues/3654), and Google's images of gcloud have had no client
since 531.0.0 (https://github.com/GoogleCloudPlatform/cloud-sdk-docker/pull/597).
"""


def provide_images(context: Context) -> None:
    """Run the step.

    Raises:
        DeploymentFailed: An image cannot be built or pushed.
    """
    repository, tag = image_repository(context), image_tag(context)
    _require_client(context)
    images = {}
    for target in TARGETS:
        digest = _provide(context, f"{repository}/{target}:{tag}", target)
        images[target] = f"{repository}/{target}@{digest}"
        say(f"{target}: {images[target]}")
    context.save_output(OUTPUT_FILE, images)


def image_tag(context: Context) -> str:
    """Hash names, modes and contents of `INPUTS` in the commit.

    Raises:
        DeploymentFailed: They are not in the commit.
    """
    tree = context.output_of("git", "ls-tree", "-r", "--full-tree", "HEAD", "--", *INPUTS)
    if not tree:
        raise DeploymentFailed(f"{', '.join(INPUTS)} are not in the commit: nothing to build")
    return hashlib.sha256(tree.encode()).hexdigest()[:TAG_LETTERS]


def provided_image(context: Context, target: str) -> str:
    """Return the saved reference of an image.

    Args:
        context: The step.
        target: One of `TARGETS`.

    Returns:
        `HOST/PATH@sha256:..`.

    Raises:
        DeploymentFailed: It has no digest.
    """
    image = context.load_output(OUTPUT_FILE, "images").get(target)
    if not isinstance(image, str) or not PINNED.fullmatch(image):
        raise DeploymentFailed(
            f"{OUTPUT_FILE} has {image!r} for the image {target}: HOST/PATH@sha256:<64 digits> is"
            " allowed; run the build again from the start"
        )
    return image


def _require_client(context: Context) -> None:
    """Install docker's client if the step's container has none."""
    if not shutil.which("docker", path=context.variables.get("PATH")):
        context.output_of("apt-get", "update")
        context.output_of(*INSTALL_CLIENT)


def _provide(context: Context, reference: str, target: str) -> str:
    """Return the image's digest; build the image if it has none."""
    # a second build of the same files has another digest (Debian's packages, times), and would
    # make another release
    lookup = _look_up(context, reference)
    digest = _digest_in(lookup.stdout)
    if digest:
        return digest
    say(f"{reference}: {lookup.stderr.strip()[:SHOWN_LETTERS]}; building it")
    where = ["--platform", PLATFORM, "--file", "container/Dockerfile", "--target", target]
    _run_logged(context, "docker", "build", *where, "--tag", reference, ".")
    pushed = context.run(["docker", "push", reference])
    # a concurrent build of the same files may have pushed first; tags are immutable
    digest = _digest_in(_look_up(context, reference).stdout)
    if pushed.returncode and not digest:
        raise DeploymentFailed(
            f"docker push {reference} failed: {last_error_line(pushed)}; check that the build's"
            " account may write to the repository"
        )
    if not digest:
        raise DeploymentFailed(
            f"{reference} was pushed, and the registry shows no digest of it for {PLATFORM}; look"
            f" with `docker manifest inspect --verbose {reference}`"
        )
    return digest


def _look_up(context: Context, reference: str) -> subprocess.CompletedProcess[str]:
    return context.run(["docker", "manifest", "inspect", "--verbose", reference])


def _digest_in(output: str) -> str | None:
    """Return the digest for PLATFORM in the output of `docker manifest inspect --verbose`: an
    object for an image, a list for several platforms. None unless there is exactly one.
    """
    try:
        payload = json.loads(output)
    except ValueError:
        return None
    entries = payload if isinstance(payload, list) else [payload]
    descriptors = [entry.get("Descriptor", {}) for entry in entries]
    if isinstance(payload, list):
        descriptors = [item for item in descriptors if _platform_of(item) == PLATFORM]
    digests = [item.get("digest", "") for item in descriptors]
    return digests[0] if len(digests) == 1 and DIGEST.fullmatch(digests[0]) else None


def _platform_of(descriptor: dict[str, dict[str, str]]) -> str:
    platform = descriptor.get("platform", {})
    return f"{platform.get('os')}/{platform.get('architecture')}"


def _run_logged(context: Context, *command: str) -> None:
    """Run a program whose output goes to the log.

    Raises:
        DeploymentFailed: The program fails.
    """
    process = subprocess.run(command, cwd=context.root, env=dict(context.variables), check=False)
    if process.returncode:
        raise DeploymentFailed(
            f"`{' '.join(command)}` failed with exit code {process.returncode}; its error is above"
        )
