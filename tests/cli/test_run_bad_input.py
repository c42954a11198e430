"""Wrong input to `shem run` gets one clear error and exit code 2, and nothing is rented."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from shem.cli import main
from shem.devnet.devnet import Devnet

HEAD = """
from shem import Service, vm

class Demo(Service):
    @staticmethod
    async def get_payload():
        return await vm.repo(image_hash="{hash}")
"""
HASH = "8b11df59f84358d47fc6776d0bb7290b0054c15ded2d6f54cf634488"


@pytest.fixture(autouse=True)
def no_configured_node(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("YAGNA_APPKEY", raising=False)


@pytest.fixture
def rented(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Every demand published on an embedded devnet while the test runs."""
    from shem.devnet.market import Market

    seen: list[str] = []
    subscribe = Market.subscribe

    def noted(self: Market, *args: object, **kwargs: object) -> object:
        seen.append("demand")
        return subscribe(self, *args, **kwargs)

    monkeypatch.setattr(Market, "subscribe", noted)
    return seen


def service_file(folder: Path, body: str = "", image_hash: str = HASH) -> Path:
    file = folder / "demo_service.py"
    file.write_text(HEAD.format(hash=image_hash) + body)
    return file


def shem_run(*args: object) -> Result:
    return CliRunner().invoke(main, ["run", *map(str, args)])


def one_error(result: Result) -> str:
    """The error, which is all there is: no traceback, exit code 2."""
    assert result.exit_code == 2, result.output
    assert "Traceback" not in result.output
    return result.stderr.strip().splitlines()[-1]


@pytest.mark.parametrize(
    ("handler", "said"),
    [
        ("    async def start(self):\n        pass\n", "Demo.start() must be an async generator"),
        ("    def run(self):\n        return None\n", "Demo.run() must be an async generator"),
        ("    shutdown = 7\n", "Demo.shutdown() must be an async generator"),
    ],
    ids=["coroutine", "plain function", "no function"],
)
def test_a_handler_that_is_no_async_generator_is_refused_before_anything_is_rented(
    tmp_path, rented, handler, said
):
    error = one_error(shem_run(service_file(tmp_path, handler)))
    assert said in error and "yield" in error
    assert not rented


def test_a_malformed_image_hash_is_refused_before_anything_is_rented(tmp_path, rented):
    error = one_error(shem_run(service_file(tmp_path, image_hash="abc")))
    assert "image_hash 'abc' is not a SHA3-224 hash" in error and "56 hex digits" in error
    assert not rented


@pytest.mark.parametrize("budget", ["-1", "0", "many", "nan", "inf"])
def test_a_budget_that_is_no_amount_is_refused_before_anything_is_rented(tmp_path, rented, budget):
    error = one_error(shem_run(service_file(tmp_path), "--budget", budget))
    assert "budget must be" in error and budget in error.lower()
    assert not rented


@pytest.mark.parametrize("number", ["0", "-1"])
def test_a_number_of_instances_below_one_is_refused_before_anything_is_rented(tmp_path, rented, number):
    error = one_error(shem_run(service_file(tmp_path), "-n", number))
    assert f"num_instances must be at least 1, not {number}" in error
    assert not rented


def test_a_service_file_that_does_not_import_shows_the_users_own_error(tmp_path, rented):
    file = tmp_path / "broken.py"
    file.write_text("import shem\n\nvalue = 1 / 0\n")
    result = shem_run(file)
    assert result.exit_code == 2
    assert "broken.py, line 3" in result.stderr and "ZeroDivisionError" in result.stderr
    assert not rented


def test_a_missing_service_file_is_named(tmp_path, rented):
    assert "there is no file" in one_error(shem_run(tmp_path / "nothing.py"))
    assert not rented


def test_an_unknown_constructor_parameter_is_refused_before_anything_is_rented(tmp_path, rented):
    error = one_error(shem_run(service_file(tmp_path), "-p", "colour=red"))
    assert "Demo cannot be made with instance_params {'colour': 'red'}" in error
    assert not rented


def test_a_time_that_is_no_time_is_refused(tmp_path, rented):
    assert "'soon' is no duration; write 30s, 5m or 1h" in one_error(
        shem_run(service_file(tmp_path), "--for", "soon")
    )
    assert not rented


def test_an_image_that_is_no_folder_is_refused(tmp_path, rented):
    error = one_error(shem_run(service_file(tmp_path), "--image", f"{HASH}={tmp_path / 'nothing'}"))
    assert str(tmp_path / "nothing") in error
    assert not rented


def test_a_node_that_cannot_be_reached_is_named_with_what_to_do(tmp_path, monkeypatch):
    with _free_port() as port:
        pass
    monkeypatch.setenv("YAGNA_APPKEY", "key")
    monkeypatch.setenv("YAGNA_API_URL", f"http://127.0.0.1:{port}")
    error = one_error(shem_run(service_file(tmp_path)))
    assert "no answer from the node" in error and "YAGNA_API_URL" in error


def test_a_wrong_app_key_is_said_to_be_wrong_and_never_shown(tmp_path, monkeypatch):
    async def with_devnet() -> tuple[Result, int]:
        async with Devnet(runtime="null") as address:
            monkeypatch.setenv("YAGNA_APPKEY", "not-the-right-key")
            monkeypatch.setenv("YAGNA_API_URL", address.url)
            command = await asyncio.create_subprocess_exec(
                *_shem("run", str(service_file(tmp_path))),
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
            )
            out, err = await command.communicate()
            return (out + err).decode(), command.returncode

    output, code = asyncio.run(with_devnet())
    assert code == 2 and "401" in output and "check YAGNA_APPKEY" in output
    assert "not-the-right-key" not in output


def test_a_taken_port_is_named_with_what_to_do():
    with _free_port() as port:
        result = CliRunner().invoke(main, ["devnet", "--port", str(port)])
    error = one_error(result)
    assert str(port) in error


def test_a_yield_of_none_ends_the_instance_with_a_clear_error_and_exit_code_one(tmp_path):
    """It cannot be seen before the handler runs; then it ends at once and is not tried elsewhere."""
    file = service_file(tmp_path, "    async def start(self):\n        yield None\n")
    result = shem_run(file, "--for", "20s")
    assert result.exit_code == 1
    assert "Demo.start() yielded None, but a handler must yield a Script" in result.output.replace("\n", " ")
    assert result.stdout.count("agreement ") == 1


@contextlib.contextmanager
def _free_port() -> Iterator[int]:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        yield taken.getsockname()[1]


def _shem(*args: str) -> list[str]:
    import sys

    return [sys.executable, "-c", "from shem.cli import main; main()", *args]
