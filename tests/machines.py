"""A machine for tests: a network of its own, and an /etc, in which all that runs can lose power."""

import ctypes
import os
import shlex
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from configparser import ConfigParser
from contextlib import suppress
from pathlib import Path
from select import select
from typing import TypeVar

from meshfed.federation.agent import unit

T = TypeVar("T")

SERVES = ("-m", "http.server", "8080", "--bind", "127.0.0.1")  # its application, a Python's
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin"  # what systemd gives its services
EMPTY = "*nat\nCOMMIT\n"  # of a kernel that has just started
LIBC = ctypes.CDLL(None, use_errno=True)
CLONE_NEWNET = 0x40000000


def ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True)


class Machine:
    """A network namespace, and an /etc, which survive a loss of power; processes do not.

    `network`: the first three numbers of its own; the machine is 2 in it, who tests it 1.
    """

    def __init__(
        self, folder: Path, network: str, serves: Sequence[str] = SERVES, **environment: str
    ) -> None:
        self.name = f"meshfed-{os.getpid()}"
        self.device = f"mf{os.getpid()}"  # the outer end of its line
        self.host = socket.gethostname()  # network namespaces share it
        self.outside, self.address = f"{network}.1", f"{network}.2"
        self.etc = folder / "etc"
        self.log = folder / "machine.log"
        self._serves = serves
        self._environment = {"PATH": PATH, **environment}
        self._started: list[subprocess.Popen[bytes]] = []
        self._inside = ThreadPoolExecutor(1, initializer=self._enter)
        self.etc.mkdir()
        for each in ("hosts", "passwd", "group", "nsswitch.conf", "ld.so.cache"):
            with suppress(FileNotFoundError):
                shutil.copy(f"/etc/{each}", self.etc / each)

    def start(self, *more: tuple[str, str]) -> None:
        """`more`: further addresses, outside and its own."""
        ip("netns", "add", self.name)
        ip("link", "add", self.device, "type", "veth", "peer", "eth0", "netns", self.name)
        ip("link", "set", self.device, "up")
        ip("-n", self.name, "link", "set", "eth0", "up")
        ip("-n", self.name, "link", "set", "lo", "up")
        for outside, own in ((f"{self.outside}/30", f"{self.address}/30"), *more):
            nodad = ["nodad"] if ":" in own else []
            ip("addr", "add", outside, "dev", self.device, *nodad)
            ip("-n", self.name, "addr", "add", own, "dev", "eth0", *nodad)

    def _enter(self) -> None:
        with Path("/run/netns", self.name).open() as there:
            assert LIBC.setns(there.fileno(), CLONE_NEWNET) == 0

    def there(self, act: Callable[..., T], *given: object) -> T:
        """Done by a thread in its network."""
        return self._inside.submit(act, *given).result()

    def inside(self, *words: str) -> list[str]:
        mounted = 'mount --bind "$0" /etc && exec "$@"'
        return ["ip", "netns", "exec", self.name, "sh", "-c", mounted, str(self.etc), *words]

    def typed(self, line: str) -> str:
        """One command of a person; what it said."""
        program = [sys.executable, "-m", "meshfed.federation.cli"]
        words = [*program, *shlex.split(line)[1:]]
        done = subprocess.run(
            self.inside(*words), capture_output=True, text=True, check=False, cwd="/", timeout=60
        )
        assert done.returncode == 0, done.stderr
        return done.stdout + done.stderr

    def rules(self, tool: str = "iptables") -> str:
        """Of its network."""
        done = subprocess.run(
            self.inside(f"{tool}-save", "-t", "nat"), capture_output=True, text=True, check=True
        )
        return done.stdout

    @property
    def unit(self) -> Path:
        return self.etc / unit.FOLDER.relative_to("/etc") / unit.NAME

    def boot(self) -> None:
        """Start what systemd would: its application, and the units that are wanted."""
        self.runs(sys.executable, *self._serves)
        if self.unit.is_file():
            self.starts_agent()

    def starts_agent(self) -> None:
        """As systemd does, at boot and when it has ended."""
        read = ConfigParser(strict=False, interpolation=None)
        read.read(self.unit)
        assert read["Install"]["WantedBy"] == "multi-user.target"
        self.runs(*shlex.split(read["Service"]["ExecStart"]))

    def runs(self, *words: str) -> None:
        with self.log.open("ab") as log:
            started = subprocess.Popen(
                self.inside(*words),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd="/",
                env=self._environment,
                start_new_session=True,
            )
        self._started.append(started)

    @property
    def running(self) -> list[int]:
        said = subprocess.run(["ip", "netns", "pids", self.name], capture_output=True, check=True)
        return [int(each) for each in said.stdout.split()]

    def kills(self, program: str) -> None:
        """All that runs it, until it has ended."""
        for pid in self.running:
            with suppress(ProcessLookupError, FileNotFoundError):
                if program in Path(f"/proc/{pid}/cmdline").read_text():
                    end = os.pidfd_open(pid)
                    os.kill(pid, signal.SIGKILL)
                    select([end], [], [])
                    os.close(end)

    def tells_agent(self, number: signal.Signals) -> None:
        """As `systemctl stop` does: its Envoy is told nothing."""
        for pid in self.running:
            if "meshfed.federation.agent" in Path(f"/proc/{pid}/cmdline").read_text():
                os.kill(pid, number)

    def loses_power(self) -> None:
        for pid in self.running:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        for each in self._started:
            each.wait(10)
        self._started.clear()
        self.flushes()

    def flushes(self) -> None:
        """As whoever restores other rules without --noflush."""
        for tool in ("iptables-restore", "ip6tables-restore"):
            if shutil.which(tool):
                subprocess.run(self.inside(tool), input=EMPTY, text=True, check=True)

    def end(self) -> None:
        with suppress(subprocess.CalledProcessError):
            self.loses_power()
        self._inside.shutdown()
        for words in (("link", "del", self.device), ("netns", "del", self.name)):
            with suppress(subprocess.CalledProcessError):
                ip(*words)

    def files(self) -> list[str]:
        return sorted(str(each.relative_to(self.etc)) for each in self.etc.rglob("*"))
