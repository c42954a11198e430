#!/usr/bin/env python3
"""The simple service: a simulator on the provider, statistics and plots here.

On the provider a simulator writes normally distributed observations into SQLite. This side starts it, asks
for statistics and for a plot every few seconds, downloads the plot, and stops the simulator in the end.

    shem run examples/simple_service/simple_service.py -n 2 --for 20s \\
        --image 8b11df59f84358d47fc6776d0bb7290b0054c15ded2d6f54cf634488=examples/simple_service/image
    shem check examples/simple_service/simple_service.py
"""

from __future__ import annotations

import asyncio
import json
import os
import pathlib

from shem import Service, vm

IMAGE_HASH = "8b11df59f84358d47fc6776d0bb7290b0054c15ded2d6f54cf634488"
PLOTS = pathlib.Path(__file__).resolve().parent / "plots"


def from_here(path: pathlib.Path) -> str:
    """A path as one would type it in the present folder."""
    return os.path.relpath(path)


class SimpleService(Service):
    """Observes the simulator: statistics and a plot, again and again.

    Args:
        interval: seconds between two looks.
        plots: the folder that plots are downloaded to.
    """

    SIMPLE_SERVICE = "/golem/run/simple_service.py"
    SIMULATOR_CTL = "/golem/run/simulate_observations_ctl.py"

    def __init__(self, interval: float = 5.0, plots: str | pathlib.Path = PLOTS) -> None:
        super().__init__()
        self._interval = interval
        self._plots = pathlib.Path(plots)

    @staticmethod
    async def get_payload():
        return await vm.repo(image_hash=IMAGE_HASH, min_mem_gib=0.5, min_storage_gib=2.0)

    @staticmethod
    def fake_provider(program, args):
        """What the provider answers under `shem check`, which runs no programs."""
        if "--stats" in args:
            return '{"count": 80, "mean": 14.6, "stddev": 2.9}'
        if "--plot" in args:
            return '"/golem/output/dist.png"'
        return "a picture" if program == "download" else "done"

    async def start(self):
        async for script in super().start():
            yield script

        script = self._ctx.new_script()
        script.run(self.SIMULATOR_CTL, "--start")
        yield script

    async def run(self):
        self._plots.mkdir(parents=True, exist_ok=True)
        while True:
            await asyncio.sleep(self._interval)
            script = self._ctx.new_script(timeout=30)
            stats_result = script.run(self.SIMPLE_SERVICE, "--stats")
            plot_result = script.run(self.SIMPLE_SERVICE, "--plot", "dist")
            yield script
            stats = json.loads((await stats_result).stdout)
            print(f"{self.id} stats: n={stats['count']} mean={stats['mean']:.2f} sd={stats['stddev']:.2f}")

            plot = (await plot_result).stdout.strip().strip('"')
            target = self._plots / f"{self.id}.png"
            script = self._ctx.new_script(timeout=30)
            script.download_file(plot, target)
            yield script
            print(f"{self.id} plot:  {from_here(target)}")

    async def shutdown(self):
        script = self._ctx.new_script(timeout=30)
        script.run(self.SIMULATOR_CTL, "--stop")
        yield script
        async for script in super().shutdown():
            yield script
