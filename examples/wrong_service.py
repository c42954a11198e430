"""A service with classic mistakes, for `shem check` to find.

    shem check examples/wrong_service.py

Some of them show at once, and some only in the hands of an unkind provider.
"""

from __future__ import annotations

import asyncio
import time

from shem import Service, errors, vm


class WrongService(Service):
    deployed = False

    @staticmethod
    async def get_payload():
        return await vm.repo(image_hash="8b11df59f84358d47fc6776d0bb7290b0054c15ded2d6f54cf634488")

    @staticmethod
    def fake_provider(program, args):
        return "21.5" if program == "/bin/temperature" else ""

    async def start(self):
        # Mistake 1: what a failed start leaves in the object makes the next one skip a step, on a provider
        # on which nothing has been deployed. reset() would be the place to forget it.
        if not self.deployed:
            async for script in super().start():
                yield script
            self.deployed = True

        # Mistake 2: only shutdown() cancels the task, and without an activity there is no shutdown().
        self.counting = asyncio.create_task(self.count())

        script = self._ctx.new_script()
        script.run("/bin/prepare")
        yield script

    async def count(self):
        while True:  # noqa: ASYNC110
            await asyncio.sleep(1)

    async def run(self):
        while True:
            # Mistake 3: nothing else goes on meanwhile, in the whole program.
            time.sleep(1)  # noqa: ASYNC251

            # Mistake 4: this catches the cancellation, too, by which a stop ends the handler.
            try:
                await asyncio.sleep(5)
            except:  # noqa: E722
                pass

            answer = None
            script = self._ctx.new_script(timeout=10)
            result = script.run("/bin/temperature")
            try:
                yield script
                answer = (await result).stdout
            except errors.CommandFailed:
                # Mistake 5: the method makes a script and forgets to return it.
                yield self.repair()
            except errors.ScriptError:
                pass

            # Mistake 6: where there was no answer, this is a TypeError.
            print(f"{float(answer):.1f} degrees")

    def repair(self):
        script = self._ctx.new_script()
        script.run("/bin/repair")

    async def shutdown(self):
        # Mistake 7: who is stopped early on has begun no such task.
        self.counting.cancel()
        # Mistake 8: a minute is what shutdown() has, and then it is cut short.
        await asyncio.sleep(90)
        async for script in super().shutdown():
            yield script
