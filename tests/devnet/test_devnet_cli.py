"""``shem devnet`` as a program."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import threading
import urllib.request

import pytest

COMMAND = [sys.executable, "-c", "from shem.cli import main; main()", "devnet"]


def start(*arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [*COMMAND, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, bufsize=1
    )


def read_lines(process: subprocess.Popen[str], count: int) -> list[str]:
    """The first lines that the program prints; it is killed unless they come within 30 s."""
    guard = threading.Timer(30, process.kill)
    guard.start()
    try:
        return [process.stdout.readline().rstrip("\n") for _ in range(count)]
    finally:
        guard.cancel()


@pytest.mark.parametrize("stop", [signal.SIGINT, signal.SIGTERM])
def test_it_prints_the_environment_serves_and_ends_cleanly_on_a_signal(stop):
    with start("--port", "0", "--runtime", "null", "--providers", "2") as process:
        try:
            url, key, isolation = read_lines(process, 3)
            assert re.fullmatch(r"export YAGNA_API_URL=http://127\.0\.0\.1:\d+", url)
            assert re.fullmatch(r"export YAGNA_APPKEY=[0-9a-f]{64}", key)
            assert isolation.startswith("# ")
            assert "nothing is run" in isolation
            request = urllib.request.Request(
                url.partition("=")[2] + "/me", headers={"Authorization": f"Bearer {key.partition('=')[2]}"}
            )
            with urllib.request.urlopen(request, timeout=10) as response:
                assert response.status == 200
            process.send_signal(stop)
            assert process.wait(timeout=15) == 0
            assert "Traceback" not in process.stderr.read()
        finally:
            if process.poll() is None:
                process.kill()


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*COMMAND, *arguments], capture_output=True, text=True, timeout=60, env=os.environ)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--image", "abcd"], "HASH=DIR"),
        (["--image", "=/tmp"], "HASH=DIR"),
        (["--image", "abcd=/no/such/directory"], "/no/such/directory"),
    ],
)
def test_a_bad_image_is_one_clear_line_and_exit_code_2(arguments, said):
    ended = run("--port", "0", *arguments)
    assert ended.returncode == 2
    assert ended.stdout == ""
    (line,) = ended.stderr.splitlines()
    assert said in line


def test_a_taken_port_is_one_clear_line_and_exit_code_2():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        ended = run("--runtime", "null", "--port", str(port))
    assert ended.returncode == 2
    (line,) = ended.stderr.splitlines()
    assert f"port {port} on 127.0.0.1 is taken" in line
