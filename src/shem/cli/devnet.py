"""``shem devnet``: serve the embedded node until interrupted."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Sequence
from pathlib import Path

import click

from shem import log
from shem.cli.options import Image, Mendable
from shem.devnet.devnet import DEFAULT_PROVIDERS, Devnet
from shem.errors import ConfigError

#: Where yagna listens by default, so that clients need no setting but the key.
DEFAULT_PORT = 7465


@click.command("devnet")
@click.option(
    "--port",
    default=DEFAULT_PORT,
    show_default=True,
    type=click.IntRange(0, 65535),
    help="Port on 127.0.0.1; 0 for any free one.",
)
@click.option("--app-key", help="Key that clients must use; by default a new secret.")
@click.option(
    "--providers",
    default=DEFAULT_PROVIDERS,
    show_default=True,
    type=click.IntRange(0),
    help="How many built-in providers; each keeps one agreement at a time.",
)
@click.option(
    "--image",
    "images",
    multiple=True,
    type=Image(),
    metavar="HASH=DIR",
    help="Directory to use for an image hash; may be repeated.",
)
@click.option("--strict-images", is_flag=True, help="Fail a deploy whose image hash is not known.")
@click.option(
    "--runtime",
    default="sandbox",
    show_default=True,
    type=click.Choice(["sandbox", "null"]),
    help="Really run commands, or only pretend to.",
)
def command(
    port: int,
    app_key: str | None,
    providers: int,
    images: Sequence[tuple[str, Path]],
    strict_images: bool,
    runtime: str,
) -> None:
    """Serve a node with built-in providers on this machine.

    Prints the environment that clients need, then serves until interrupted.
    """
    log.configure()
    try:
        devnet = Devnet(
            providers=providers,
            images=dict(images),
            strict_images=strict_images,
            runtime=runtime,
            port=port,
            app_key=app_key,
        )
        asyncio.run(_serve(devnet))
    except ConfigError as error:
        raise Mendable(str(error)) from error


async def _serve(devnet: Devnet) -> None:
    interrupted = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, interrupted.set)
    try:
        async with devnet as address:
            click.echo(f"export YAGNA_API_URL={address.url}")
            click.echo(f"export YAGNA_APPKEY={address.app_key}")
            click.echo(f"# activities run in: {devnet.isolation}")
            await interrupted.wait()
    finally:
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.remove_signal_handler(number)
