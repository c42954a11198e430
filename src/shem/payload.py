"""What to rent: a `Payload` says which offers fit and what the provider must know.

`vm.repo` describes the usual one, an image for the VM runtime. Nothing here asks the network: an image's
address is looked up when the demand is made, through an `ImageRegistry`, and only where the node needs it.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from shem import props
from shem.errors import ConfigError
from shem.props import constraint, demand_parts

_SHA3_224 = re.compile(r"[0-9a-f]{56}")


class ImageRegistry(Protocol):
    """Knows where images can be downloaded by providers."""

    async def find(self, *, image_hash: str | None, image_tag: str | None) -> tuple[str, str]:
        """Hash and URL of an image. Raises `ConfigError` where there is no such image."""


class Payload:
    """Base of everything that can be rented. Subclasses are dataclasses with `prop` and `constraint` fields.

    See `shem.props` for an example.
    """

    async def demand(self, registry: ImageRegistry | None) -> tuple[dict[str, Any], list[str]]:
        """Properties of the demand and constraints on offers.

        `registry` is None on a node that needs no image addresses (the devnet).
        """
        return demand_parts(self)


@dataclass(frozen=True)
class VmPayload(Payload):
    """An image run by the VM runtime; made by `vm.repo`."""

    image_hash: str | None = None
    image_tag: str | None = None
    image_url: str | None = None
    runtime: str = constraint(props.RUNTIME_NAME, default="vm")
    min_mem_gib: float = constraint(props.MEM_GIB, operator=">=", default=0.5)
    min_storage_gib: float = constraint(props.STORAGE_GIB, operator=">=", default=2.0)
    min_cpu_threads: int = constraint(props.CPU_THREADS, operator=">=", default=1)
    capabilities: tuple[str, ...] = constraint(props.RUNTIME_CAPABILITIES, default=())
    package_format: str = field(default="gvmkit-squash")

    async def demand(self, registry: ImageRegistry | None) -> tuple[dict[str, Any], list[str]]:
        """As in the base; adds the task package, whose URL the registry tells unless it is given."""
        properties, constraints = demand_parts(self)
        image_hash, url = self.image_hash, self.image_url
        if registry is not None and (url is None or image_hash is None):
            image_hash, found = await registry.find(image_hash=image_hash, image_tag=self.image_tag)
            url = url or found
        # Without a registry only the hash counts; a tag is then all there is to name the image by.
        properties[props.TASK_PACKAGE] = f"hash:sha3:{image_hash or ''}:{url or self.image_tag or ''}"
        properties[props.PACKAGE_FORMAT] = self.package_format
        return properties, constraints


class vm:
    """Payloads for the VM runtime. Named like a module, because `vm.repo(…)` is how everybody writes it."""

    @staticmethod
    async def repo(
        *,
        image_hash: str | None = None,
        image_tag: str | None = None,
        image_url: str | None = None,
        min_mem_gib: float = 0.5,
        min_storage_gib: float = 2.0,
        min_cpu_threads: int = 1,
        capabilities: Sequence[str] = (),
    ) -> VmPayload:
        """An image by its hash or its registry tag, and the least machine it needs.

        Args:
            image_hash: SHA3-224 of the image, 56 hex digits.
            image_tag: its name in the image registry, such as ``golem/node:20``.
            image_url: where providers download it; without it the registry is asked when the demand is made.
            min_mem_gib, min_storage_gib: in GiB.
            min_cpu_threads: number of threads.
            capabilities: what the runtime must be able to, such as ``vpn``.

        Raises `ConfigError` where something is malformed; asks nobody.
        """
        if (image_hash is None) == (image_tag is None):
            raise ConfigError("vm.repo: name the image either by image_hash or by image_tag")
        if image_hash is not None:
            image_hash = str(image_hash).lower()
            if not _SHA3_224.fullmatch(image_hash):
                raise ConfigError(
                    f"vm.repo: image_hash {image_hash!r} is not a SHA3-224 hash: expected 56 hex digits, "
                    f"got {len(image_hash)} characters; `gvmkit-build` prints the hash of an image"
                )
        if isinstance(capabilities, str):
            raise ConfigError(
                f"vm.repo: capabilities must be a sequence of strings, not the string {capabilities!r}"
            )
        _need_positive("min_mem_gib", min_mem_gib)
        _need_positive("min_storage_gib", min_storage_gib)
        _need_positive("min_cpu_threads", min_cpu_threads)
        return VmPayload(
            image_hash=image_hash,
            image_tag=image_tag,
            image_url=image_url,
            min_mem_gib=min_mem_gib,
            min_storage_gib=min_storage_gib,
            min_cpu_threads=min_cpu_threads,
            capabilities=tuple(capabilities),
        )


def _need_positive(name: str, value: object) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < 1e6:
        raise ConfigError(f"vm.repo: {name} must be a positive number, not {value!r}")
