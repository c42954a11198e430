"""What namespaces keep apart. Real processes; skipped where the kernel allows no namespaces."""

import asyncio
import json
import os
import shutil
import socket
import stat
import subprocess
import sys
from pathlib import Path

import pytest
import structlog

import shem
from shem.clock import SystemClock
from shem.devnet.runtime.base import CommandError, DeployOptions
from shem.devnet.runtime.init import mounts
from shem.devnet.runtime.sandbox import SandboxFactory


def test_it_says_what_it_isolates(isolated, plain):
    assert "namespaces" in isolated.factory.isolation
    assert "not isolated" in plain.factory.isolation
    assert "\n" not in isolated.factory.isolation + plain.factory.isolation


def test_the_hosts_own_files_are_not_there(isolated, tmp_path):
    (tmp_path / "mine").write_text("mine")
    home = os.path.expanduser("~")

    async def scenario(sandbox):
        line = f"cat {tmp_path}/mine; ls -A {home}; ls -A /tmp /run /home /mnt; ls /"
        return await isolated.shell(sandbox, line)

    _code, text, errors = isolated.run(scenario)
    assert f"cat: {tmp_path}/mine: No such file" in errors.replace("'", "")
    assert "mine\n" not in text
    for name in (".bashrc", ".profile", ".ssh", "boot\n", "mnt\n"):
        assert name not in text


def test_the_system_directories_cannot_be_changed_not_even_by_mounting(isolated):
    async def scenario(sandbox):
        line = (
            "for d in / /usr /etc /opt /golem /bin; do touch $d/x-shem && echo wrote $d; done;"
            "mount -o remount,rw,bind /usr; mount -t tmpfs tmpfs /golem/work; umount /etc/hosts;"
            "mount --bind /golem/work /usr; touch /usr/x-shem && echo wrote; true"
        )
        return await isolated.shell(sandbox, line)

    code, text, _errors = isolated.run(scenario)
    assert (code, text) == (0, "")


def test_a_namespace_of_its_own_gives_a_command_no_more_rights(isolated):
    async def scenario(sandbox):
        inner = (
            "mount -o remount,rw,bind /usr; touch /usr/x-shem && echo wrote;"
            "mount -o remount,rw,bind /proc/sys; echo x > /proc/sys/kernel/domainname && echo set;"
            "umount /proc/sys && echo uncovered; mount -t proc proc /golem/work && echo mounted; true"
        )
        return await isolated.shell(sandbox, f"unshare -Urmpf /bin/sh -c '{inner}' || echo refused")

    _code, text, _errors = isolated.run(scenario)
    assert text in ("", "refused\n")


def test_the_kernel_cannot_be_told_anything(isolated):
    def settings():
        return [Path(f"/proc/sys/kernel/{name}").read_bytes() for name in ("core_pattern", "panic")]

    before = settings()

    async def scenario(sandbox):
        # Written back unchanged, so that a failing test does no harm.
        line = (
            "cd /proc/sys/kernel;"
            "for n in core_pattern panic; do cat $n > /tmp/v; cat /tmp/v > $n && echo wrote; done;"
            "head -c 1 /proc/kcore && echo read;"
            "[ ! -e /proc/sysrq-trigger ] || ! ( : > /proc/sysrq-trigger ) || echo trigger; true"
        )
        return await isolated.shell(sandbox, line)

    assert isolated.run(scenario)[1] == ""
    assert settings() == before


@pytest.mark.skipif(os.geteuid() != 0, reason="only root could read it outside")
def test_files_that_only_root_may_read_are_empty(isolated):
    secrets = [path for path in ("/etc/shadow", "/etc/gshadow") if Path(path).exists()]

    async def scenario(sandbox):
        return await isolated.shell(sandbox, f"cat {' '.join(secrets)} | wc -c")

    assert secrets
    assert isolated.run(scenario)[1].strip() == "0"


def test_only_its_own_processes_are_there_and_process_one_cannot_be_touched(isolated):
    async def scenario(sandbox):
        line = (
            "ls /proc | grep -c '^[0-9]'; kill -9 1; kill -TERM 1; kill -9 -1 2>/dev/null;"
            f"kill -0 {os.getpid()} 2>/dev/null && echo reached"
        )
        first = await isolated.shell(sandbox, line)
        second = await isolated.shell(
            sandbox, "cat /proc/1/environ; readlink /proc/1/fd/*; readlink /proc/1/root; echo ok"
        )
        return first, second

    (_code, text, _errors), (code, later, _) = isolated.run(scenario)
    assert int(text.split()[0]) <= 5
    assert "reached" not in text
    assert (code, later) == (0, "ok\n")


def test_two_can_listen_on_port_80_and_neither_is_seen_from_outside(isolated):
    code = (
        "import socket\n"
        "s = socket.create_server(('', 80)); print('up', flush=True)\n"
        "c, _ = s.accept(); c.sendall(NAME); c.close()\n"
    )

    async def serve(sandbox, name, up):
        program = code.replace("NAME", repr(name.encode()))
        return await sandbox.run("python3", ["-c", program], lambda *_: up.set())

    async def scenario():
        async with isolated.sandbox() as one, isolated.sandbox() as two:
            ups = [asyncio.Event(), asyncio.Event()]
            servers = [
                asyncio.ensure_future(serve(sandbox, name, up))
                for sandbox, name, up in zip((one, two), ("one", "two"), ups, strict=True)
            ]
            for up in ups:
                await asyncio.wait_for(up.wait(), 5)
            with pytest.raises(OSError, match="refused"):
                socket.create_connection(("127.0.0.1", 80), timeout=1).close()
            got = []
            for sandbox in (one, two):
                reader, writer = await asyncio.open_connection(sock=await sandbox.connect(80))
                got.append(await reader.read())
                writer.close()
                await writer.wait_closed()
            assert await asyncio.gather(*servers) == [0, 0]
            return got

    assert asyncio.run(scenario()) == [b"one", b"two"]


def test_the_hosts_network_is_out_of_reach(isolated):
    async def scenario(sandbox, port):
        code = (
            "import socket\n"
            f"for host in ('127.0.0.1', '{socket.gethostbyname('localhost')}'):\n"
            f"    try: socket.create_connection((host, {port}), 1); print('reached')\n"
            "    except OSError: pass\n"
            # The kernel gives every network some that lead nowhere.
            "made = ('lo', 'ifb', 'sit', 'tun', 'ip')\n"
            "print([name for _, name in socket.if_nameindex() if not name.startswith(made)])"
        )
        return await isolated.shell(sandbox, f'python3 -c "{code}"')

    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        code, text, errors = isolated.run(lambda sandbox: scenario(sandbox, port))
    assert (code, text.splitlines()[0][:2]) == (0, "[]"), errors


def test_host_name_hosts_and_network_addresses_of_the_deploy_are_there(isolated):
    options = DeployOptions(
        hostname="worker",
        hosts={"friend": "192.168.0.9"},
        net=[{"id": "n", "ip": "192.168.0.0", "mask": "255.255.255.0", "nodeIp": "192.168.0.2"}],
    )

    async def scenario(sandbox):
        code = (
            "import socket\n"
            "print(socket.gethostname(), socket.gethostbyname('friend'), socket.gethostbyname('worker'))\n"
            "s = socket.create_server(('192.168.0.2', 80))\n"
            "socket.create_connection(s.getsockname()).close()\n"
            "try: socket.create_connection(('192.168.0.9', 80), 1)\n"
            "except OSError as e: print(e.strerror)\n"
        )
        return await isolated.shell(sandbox, f'python3 -c "{code}"')

    host = socket.gethostname()
    assert isolated.run(scenario, options) == (
        0,
        "worker 192.168.0.9 127.0.1.1\nNetwork is unreachable\n",
        "",
    )
    assert socket.gethostname() == host


def test_a_bad_host_name_or_address_fails_the_deploy_with_a_reason(isolated, spec):
    async def scenario():
        sandbox = await isolated.factory.create(spec())
        with pytest.raises(CommandError, match="sethostname"):
            await sandbox.deploy(DeployOptions(hostname="x" * 100))
        with pytest.raises(CommandError, match="is no IPv4 address"):
            await sandbox.deploy(DeployOptions(net=[{"nodeIp": "fe80::1"}]))
        await sandbox.deploy(DeployOptions())
        await sandbox.destroy()

    asyncio.run(scenario())


def test_shared_memory_devices_and_terminals_work(isolated):
    async def scenario(sandbox):
        code = (
            "import multiprocessing as m, os, pty\n"
            "lock = m.Lock(); a, b = pty.openpty(); print(os.path.exists(os.ttyname(b)))\n"
            "open('/dev/null', 'w').write('x'); print(len(open('/dev/urandom', 'rb').read(4)))\n"
            "for place in ('/dev/shm', '/run', '/var/log', '/var/tmp', '/root'):\n"
            "    open(place + '/x', 'w').write('x')\n"
        )
        return await isolated.shell(sandbox, f'python3 -c "{code}"')

    assert isolated.run(scenario) == (0, "True\n4\n", "")


def test_limits_of_a_command(isolated):
    async def scenario(sandbox):
        return await isolated.shell(sandbox, "ulimit -c; ulimit -n; umask")

    code, text, _errors = isolated.run(scenario)
    assert (code, text) == (0, "0\n4096\n0022\n")


@pytest.mark.parametrize("kernel", ["new", "old"])
def test_read_only_mounts_also_work_without_mount_setattr(isolated, tmp_path, kernel):
    """The fallback for kernels before 5.12, in a program that makes its own namespaces."""
    place = tmp_path / "place"
    place.mkdir()
    (tmp_path / "work").mkdir()
    steps = [
        ["dir", "/usr"],
        ["bind", "/usr", "/usr", "ro"],
        ["dir", "/w"],
        ["bind", "/w", str(tmp_path / "work"), "rw"],
    ]
    script = tmp_path / "try.py"
    script.write_text(
        "import os, sys, json\n"
        f"sys.path.insert(0, {str(Path(mounts.__file__).parent.parent)!r})\n"
        "from init import keeper, mounts, syscalls\n"
        "if sys.argv[1] == 'old':\n"
        "    def absent(target): raise OSError(38, 'Function not implemented')\n"
        "    syscalls.set_read_only = absent\n"
        "keeper._leave_namespaces(); syscalls.unshare(syscalls.CLONE_NEWNS)\n"
        f"mounts.make_root({str(place)!r}, json.loads(sys.argv[2]))\n"
        "for path in ('/usr/x-shem', '/x', '/w/x'):\n"
        "    try: open(path, 'w'); print('wrote', path)\n"
        "    except OSError as error: print(error.strerror)\n"
    )
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-B", str(script), kernel, json.dumps(steps)],
        capture_output=True,
        text=True,
    )
    assert done.stdout.splitlines() == ["Read-only file system"] * 2 + ["wrote /w/x"], done.stderr
    assert (tmp_path / "work/x").exists()


def copy_programs(image, names):
    """Copy host programs, and the libraries that ldd names for them, into an image."""
    for name in names:
        program = shutil.which(name)
        listed = subprocess.run(["ldd", program], capture_output=True, text=True).stdout
        libraries = [word for word in listed.split() if word.startswith("/")]
        for source, target in [(program, f"/bin/{name}"), *((path, path) for path in libraries)]:
            place = image / target[1:]
            place.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(os.path.realpath(source), place)


@pytest.mark.skipif(shutil.which("ldd") is None, reason="an image is made with ldd's help")
def test_an_image_with_a_system_of_its_own_replaces_the_hosts(isolated, spec, tmp_path):
    copy_programs(tmp_path, ["sh", "cat", "ls", "touch"])
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/motd").write_text("hello\n")
    (tmp_path / "data").mkdir()

    async def scenario():
        factory = SandboxFactory({"ab": tmp_path}, clock=SystemClock())
        options = DeployOptions(volumes=["/data"])
        try:
            async with isolated.sandbox(options, factory, spec("ab")) as sandbox:
                line = (
                    "cat /etc/motd; ls -d /usr/bin; touch /data/x; ls /data /; cat /etc/hosts; touch /bin/x"
                )
                return await isolated.shell(sandbox, line)
        finally:
            await factory.aclose()

    code, text, errors = asyncio.run(scenario())
    assert code != 0
    assert "Read-only" in errors
    assert "/usr/bin" not in text
    assert text.startswith("hello\n/:\nbin\n")
    assert "/data:\nx\n" in text
    assert "localhost" in text
    assert not (tmp_path / "data/x").exists()


def test_an_image_with_a_system_of_its_own_needs_namespaces(plain, spec, tmp_path):
    (tmp_path / "usr").mkdir()

    async def scenario():
        factory = SandboxFactory({"ab": tmp_path}, clock=SystemClock(), plain=True)
        sandbox = await factory.create(spec("ab"))
        with pytest.raises(CommandError, match="needs namespaces"):
            await sandbox.deploy(DeployOptions())
        await factory.aclose()

    asyncio.run(scenario())


UNPRIVILEGED = """
import asyncio, os
from shem.clock import SystemClock
from shem.devnet.runtime.base import DeployOptions, RuntimeSpec
from shem.devnet.runtime.sandbox import SandboxFactory

async def main():
    assert os.geteuid() != 0
    factory = SandboxFactory(clock=SystemClock())
    print(factory.namespaces)
    sandbox = await factory.create(RuntimeSpec("a", None, 1, 1, 1))
    await sandbox.deploy(DeployOptions(hostname="h"))
    await sandbox.start([])
    with await sandbox.open_to_write("/golem/input/a") as file:
        file.write(b"text")
    serve = "python3 -c 'import socket; socket.create_server((str(), 80))'"
    line = f"id -u; cat /golem/input/a; hostname; touch /usr/x; {serve}"
    print(await sandbox.run("/bin/sh", ["-c", line], lambda stream, data: print(stream, data)))
    await factory.aclose()
    print(os.path.exists(factory._root))

asyncio.run(main())
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="everything runs unprivileged already")
def test_root_is_not_needed(isolated):
    python, setpriv = "/usr/bin/python3", shutil.which("setpriv")
    if setpriv is None:
        pytest.skip("no setpriv to become somebody else with")
    paths = [str(Path(module.__file__).parents[1]) for module in (shem, structlog)]
    drop = [setpriv, "--reuid=65534", "--regid=65534", "--clear-groups", python, "-c"]
    environment = {"PYTHONPATH": ":".join(paths), "PATH": os.environ["PATH"]}
    able = subprocess.run(
        [*drop, "import shem.log, sys; assert sys.version_info >= (3, 11)"], env=environment
    )
    if able.returncode:
        pytest.skip("nobody else can run a Python with these packages")
    done = subprocess.run([*drop, UNPRIVILEGED], capture_output=True, text=True, timeout=30, env=environment)
    lines = done.stdout.splitlines()
    assert lines[0] == "True", done
    output = "".join(line for line in lines if line.startswith("stdout"))
    assert output.replace("stdout b", "").replace("'", "") == "0\\ntexth\\n"
    assert any("Read-only file system" in line for line in lines)
    assert lines[-2:] == ["0", "False"], done.stderr


def test_the_common_directory_is_closed_to_others(isolated):
    mode = stat.S_IMODE(Path(isolated.factory._root).stat().st_mode)
    assert mode == 0o700
