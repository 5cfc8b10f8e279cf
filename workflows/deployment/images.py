"""The step `images`: both images of container/Dockerfile are in the registry under a tag that
follows from what they are made of, and their digests are load_output on.

An image is built only where its tag is missing. A second build of the same files has another digest
(Debian's packages, times), and a release with another digest is another release.
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
"""Targets of the Dockerfile, and names of the images."""

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
    """Raises: DeploymentFailed."""
    repository, tag = image_repository(context), image_tag(context)
    _require_client(context)
    images = {}
    for target in TARGETS:
        digest = _provided(context, f"{repository}/{target}:{tag}", target)
        images[target] = f"{repository}/{target}@{digest}"
        say(f"{target}: {images[target]}")
    context.save_output(OUTPUT_FILE, images)


def image_tag(context: Context) -> str:
    """Names, modes and contents of `INPUTS` in the commit, as git has them. Raises:
    DeploymentFailed.
    """
    listed = context.output_of("git", "ls-tree", "-r", "--full-tree", "HEAD", "--", *INPUTS)
    if not listed:
        raise DeploymentFailed(f"{', '.join(INPUTS)} are not in the commit: nothing to build")
    return hashlib.sha256(listed.encode()).hexdigest()[:TAG_LETTERS]


def provided_image(context: Context, target: str) -> str:
    """HOST/PATH@sha256:.. of one of `TARGETS`, as `provide_images` load_output it on. Raises:
    DeploymentFailed where it has no digest.
    """
    image = context.load_output(OUTPUT_FILE, "images").get(target)
    if not isinstance(image, str) or not PINNED.fullmatch(image):
        raise DeploymentFailed(
            f"{OUTPUT_FILE} has {image!r} for the image {target}: HOST/PATH@sha256:<64 digits> is"
            " allowed; run the build again from the start"
        )
    return image


def _require_client(context: Context) -> None:
    """Install docker's client where the step's container has none. Raises: DeploymentFailed."""
    if not shutil.which("docker", path=context.variables.get("PATH")):
        context.output_of("apt-get", "update")
        context.output_of(*INSTALL_CLIENT)


def _provided(context: Context, reference: str, target: str) -> str:
    """The image's digest, after a build where it has none."""
    found = _looked_up(context, reference)
    digest = _digest_in(found.stdout)
    if digest:
        return digest
    say(f"{reference}: {found.stderr.strip()[:SHOWN_LETTERS]}; building it")
    where = ["--platform", PLATFORM, "--file", "container/Dockerfile", "--target", target]
    _shown(context, "docker", "build", *where, "--tag", reference, ".")
    pushed = context.run(["docker", "push", reference])
    # another build of the same files may have been faster, and the tag never moves
    digest = _digest_in(_looked_up(context, reference).stdout)
    if pushed.returncode and not digest:
        raise DeploymentFailed(
            f"docker push {reference} failed: {last_error_line(pushed)}; may the build's account write"
            " to the repository?"
        )
    if not digest:
        raise DeploymentFailed(
            f"{reference} was pushed, and the registry shows no digest of it for {PLATFORM}; look"
            f" with `docker manifest inspect --verbose {reference}`"
        )
    return digest


def _looked_up(context: Context, reference: str) -> subprocess.CompletedProcess[str]:
    return context.run(["docker", "manifest", "inspect", "--verbose", reference])


def _digest_in(described: str) -> str | None:
    """The digest for PLATFORM in what `docker manifest inspect --verbose` prints: an object for an
    image, a list for an image of several platforms. None where it has not exactly one.
    """
    try:
        document = json.loads(described)
    except ValueError:
        return None
    several = document if isinstance(document, list) else [document]
    descriptors = [one.get("Descriptor", {}) for one in several]
    if isinstance(document, list):
        descriptors = [one for one in descriptors if _platform_of(one) == PLATFORM]
    digests = [one.get("digest", "") for one in descriptors]
    return digests[0] if len(digests) == 1 and DIGEST.fullmatch(digests[0]) else None


def _platform_of(descriptor: dict[str, dict[str, str]]) -> str:
    platform = descriptor.get("platform", {})
    return f"{platform.get('os')}/{platform.get('architecture')}"


def _shown(context: Context, *command: str) -> None:
    """Run a program whose output is for the log. Raises: DeploymentFailed."""
    done = subprocess.run(command, cwd=context.root, env=dict(context.variables), check=False)
    if done.returncode:
        raise DeploymentFailed(
            f"`{' '.join(command)}` failed with exit code {done.returncode}; its own words are"
            " above"
        )
