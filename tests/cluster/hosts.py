"""Hosts for tests: each with a network address, a hostname, processes, /dev/shm and sessions of its own.

Made of Linux namespaces: a host is a process that holds them; a switch is another one, with a bridge that the hosts'
links end at. Power is switched off by killing the host's first process, cables are pulled at the switch. Nothing of it
is seen outside, and all of it ends with the processes that hold it.

Where namespaces can't be made, ``LoopbackHosts`` has the same nodes on 127.0.0.1: what would be cut off is frozen.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import textwrap
import time
from pathlib import Path
from typing import Any

import psutil

from actorlib.runtime.drivers.session_file import remove_directories, sessions

NET = "10.83.0"
PORT = 6390
START_TIMEOUT_S = 60.0
CABLE = str(Path(__file__).with_name("cable.py"))
CHAIN = "add table inet faults; add chain inet faults in { type filter hook input priority 0; }"
CLI = [sys.executable, "-m", "actorlib.cli"]
HOLD = "echo held && exec cat"  # until its input is closed


def can_make_hosts() -> str:
    """'' if hosts can be made of namespaces here, else the reason why not."""
    try:
        with Namespaces("probe") as probe:
            probe.link("add", "name", "left", "type", "veth", "peer", "name", "right")
            probe.link("add", "name", "bridge", "type", "bridge")
            probe.run("true")
    except subprocess.CalledProcessError as error:
        return f"no hosts can be made of namespaces here: {error.stderr.strip() or error}"
    except OSError as error:
        return f"no hosts can be made of namespaces here: {error}"
    return ""


def can_filter() -> str:
    """'' if packets can be filtered on such hosts, else the reason why not."""
    if shutil.which("nft") is None:
        return "packets can't be filtered here: there is no nft (package nftables)"
    try:
        with Namespaces("probe") as probe:
            probe.network("nft", f"{CHAIN}; add rule inet faults in numgen random mod 2 < 1 reject with tcp reset")
    except (subprocess.CalledProcessError, OSError) as error:
        return f"packets can't be filtered here: {getattr(error, 'stderr', '').strip() or error}"
    return ""


def checked(command: list[str]) -> str:
    done = subprocess.run(command, capture_output=True, text=True, timeout=START_TIMEOUT_S)
    if done.returncode:
        raise subprocess.CalledProcessError(done.returncode, command, done.stdout, done.stderr)
    return done.stdout


class Namespaces:
    """Network, mounts, hostname and processes apart from everybody else's, for as long as this object lives."""

    def __init__(self, name: str) -> None:
        sessions = f"/tmp/actorlib-{os.getuid()}"
        inside = f"mkdir -p {sessions} && mount -t tmpfs -o mode=700 tmpfs {sessions} && mount -t tmpfs tmpfs /dev/shm"
        script = f"{inside} && hostname {name} && ip link set lo up && {HOLD}"
        command = [
            "unshare",
            "--net",
            "--mount",
            "--uts",
            "--ipc",
            "--pid",
            "--fork",
            "--mount-proc",
            "sh",
            "-c",
            script,
        ]
        self.name = name
        self.holder = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        assert self.holder.stdout is not None and self.holder.stderr is not None
        if self.holder.stdout.readline() != b"held\n":
            error = self.holder.stderr.read().decode()
            self.close()
            raise OSError(error.strip() or "unshare failed")
        (first,) = psutil.Process(self.holder.pid).children()
        self.first_pid = first.pid  # the host's process 1: all others go with it

    def __enter__(self) -> Namespaces:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def inside(self, *command: str) -> list[str]:
        return ["nsenter", "-t", str(self.first_pid), "-n", "-m", "-u", "-i", "-p", *command]

    def run(self, *command: str) -> str:
        return checked(self.inside(*command))

    def link(self, *words: str) -> str:
        """``ip link ...`` on its network, seen with our eyes: our process ids count."""
        return self.network("ip", "link", *words)

    def network(self, *command: str) -> str:
        return checked(["nsenter", "-t", str(self.first_pid), "-n", *command])

    def power_off(self) -> None:
        if self.holder.poll() is None:
            os.kill(self.first_pid, signal.SIGKILL)
            self.holder.wait(START_TIMEOUT_S)

    def close(self) -> None:
        if getattr(self, "first_pid", 0):
            self.power_off()
        else:
            self.holder.kill()
            self.holder.wait()
        for stream in (self.holder.stdin, self.holder.stdout, self.holder.stderr):
            if stream is not None:
                stream.close()


class Host:
    """A machine with one node of the cluster."""

    def __init__(self, name: str, ip: str, namespaces: Namespaces | None) -> None:
        self.name = name
        self.ip = ip
        self.namespaces = namespaces
        self.node: subprocess.Popen[bytes] | None = None

    def inside(self, *command: str) -> list[str]:
        return list(command) if self.namespaces is None else self.namespaces.inside(*command)

    def processes(self) -> list[psutil.Process]:
        assert self.node is not None
        try:
            first = psutil.Process(self.node.pid)
            return [first, *first.children(recursive=True)]
        except psutil.NoSuchProcess:
            return []

    def signal_all(self, number: signal.Signals) -> None:
        for process in self.processes():
            with contextlib.suppress(psutil.NoSuchProcess):  # it ended since it was listed
                process.send_signal(number)

    def freeze(self) -> None:
        self.signal_all(signal.SIGSTOP)

    def thaw(self) -> None:
        self.signal_all(signal.SIGCONT)

    def close(self) -> None:
        try:
            if self.node is not None:
                self._end_node(self.node)
        finally:
            if self.namespaces is not None:
                self.namespaces.close()

    def _end_node(self, node: subprocess.Popen[bytes]) -> None:
        family = self.processes()
        self.thaw()
        # nsenter, which would end alone, has the program as its child.
        for program in family[1:2] if self.namespaces is not None else family[:1]:
            with contextlib.suppress(psutil.NoSuchProcess):
                program.send_signal(signal.SIGINT)
        try:
            node.wait(30)
        except subprocess.TimeoutExpired:
            node.kill()
            node.wait()
        finally:
            assert node.stdout is not None
            node.stdout.close()
        psutil.wait_procs(family, 10)  # what outlives its node looks whether that still lives; it ends then


class Hosts:
    """A cluster of hosts, started by the command line. The first one is the head, and drivers run there."""

    are_real = True

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.hosts: list[Host] = []
        self._drivers: list[Driver] = []
        self._cables: dict[str, subprocess.Popen[bytes]] = {}
        self.port = self._choose_port()
        self.why_no_filters = self._look_for_filters()
        self._make_switch()

    def _choose_port(self) -> int:
        return PORT

    def _look_for_filters(self) -> str:
        return can_filter()

    def _make_switch(self) -> None:
        self.switch = Namespaces("switch")
        self.switch.link("add", "name", "bridge", "type", "bridge")
        self.switch.link("set", "bridge", "up")

    def _make_host(self, name: str) -> Host:
        number = len(self.hosts) + 1
        namespaces = Namespaces(name)
        port, ip = f"port{number}", f"{NET}.{number}"
        there = str(namespaces.first_pid)
        self.switch.link("add", "name", port, "type", "veth", "peer", "name", "eth0", "netns", there)
        self.switch.link("set", port, "master", "bridge", "up")
        namespaces.network("ip", "address", "add", f"{ip}/24", "dev", "eth0")
        namespaces.link("set", "eth0", "up")
        return Host(name, ip, namespaces)

    def start(self, name: str, *options: str) -> Host:
        """One more host with a node of 1 CPU and a resource of its own name."""
        host = self._make_host(name)
        self.hosts.append(host)
        command = [*CLI, "start", "--block", "--node-ip", host.ip, "--num-cpus", "1"]
        command += ["--resources", f'{{"{name}": 100}}', *options]
        if host is self.hosts[0]:
            command += ["--head", "--dir", str(self.directory), "--port", str(self.port)]
        else:
            said = checked(self.hosts[0].inside(*CLI, "keys", "new", name, "--dir", str(self.directory)))
            key = said.strip().splitlines()[-1]
            command += ["--address", self.address, "--key", key]
        host.node = subprocess.Popen(host.inside(*command), stdout=subprocess.PIPE)
        assert host.node.stdout is not None
        line = host.node.stdout.readline().decode()
        assert "is up" in line, f"{name} did not start: {line!r}"
        return host

    @property
    def address(self) -> str:
        return f"{self.hosts[0].ip}:{self.port}"

    def driver(self, code: str) -> Driver:
        """Run a program on the head's host that has joined the cluster."""
        driver = Driver(self.hosts[0], self.address, code)
        self._drivers.append(driver)
        return driver

    # -- faults --------------------------------------------------------------------------------------------------------
    def cut(self, host: Host) -> None:
        """Pull its cable."""
        self.switch.link("set", self._port(host), "down")

    def mend(self, host: Host) -> None:
        self.switch.link("set", self._port(host), "up")

    def _port(self, host: Host) -> str:
        return f"port{host.ip.rpartition('.')[2]}"

    def cut_one_way(self, sender: Host, receiver: Host) -> None:
        """What the first sends to the second is lost: in silence, where packets can be filtered."""
        if not self.why_no_filters:
            self.filter(sender, receiver, "drop")
            return
        assert sender.namespaces is not None
        sender.namespaces.network("ip", "route", "add", "blackhole", f"{receiver.ip}/32")

    def mend_one_way(self, sender: Host, receiver: Host) -> None:
        if not self.why_no_filters:
            self.pass_all(receiver)
            return
        assert sender.namespaces is not None
        sender.namespaces.network("ip", "route", "del", "blackhole", f"{receiver.ip}/32")

    def filter(self, sender: Host, receiver: Host, what: str) -> None:
        """Do ``what`` (in the words of nftables) with what the second gets from the first."""
        assert receiver.namespaces is not None
        receiver.namespaces.network("nft", f"{CHAIN}; add rule inet faults in ip saddr {sender.ip} {what}")

    def pass_all(self, receiver: Host) -> None:
        assert receiver.namespaces is not None
        receiver.namespaces.network("nft", "delete table inet faults")

    def lose(self, one: Host, other: Host, share: float) -> None:
        """Of what two hosts send to each other so much is lost."""
        for sender, receiver in ((one, other), (other, one)):
            self.filter(sender, receiver, f"numgen random mod 1000 < {round(share * 1000)} drop")

    def break_connections(self, sender: Host, receiver: Host) -> None:
        """End the connections by which the first sends to the second just now. They may be made again at once."""
        assert receiver.namespaces is not None
        self.filter(sender, receiver, "meta l4proto tcp counter reject with tcp reset")
        try:
            assert wait_for(lambda: self._rejected(receiver) > 0), "nothing was sent"
        finally:
            self.pass_all(receiver)

    def _rejected(self, receiver: Host) -> int:
        assert receiver.namespaces is not None
        listed = json.loads(receiver.namespaces.network("nft", "-j", "list", "table", "inet", "faults"))["nftables"]
        rules = [entry["rule"]["expr"] for entry in listed if "rule" in entry]
        return sum(part["counter"]["packets"] for rule in rules for part in rule if "counter" in part)

    def sent_bytes(self, host: Host) -> int:
        """By its interface, since it was switched on."""
        assert host.namespaces is not None
        (shown,) = json.loads(host.namespaces.network("ip", "-s", "-j", "link", "show", "eth0"))
        return int(shown["stats64"]["tx"]["bytes"])

    def narrow(self, host: Host, megabits_per_s: int) -> None:
        """Its link sends no faster than that."""
        assert host.namespaces is not None
        host.namespaces.network(
            "tc", "qdisc", "replace", "dev", "eth0", "root", "tbf",
            "rate", f"{megabits_per_s}mbit", "burst", "256kb", "latency", "200ms",
        )  # fmt: skip

    def widen(self, host: Host) -> None:
        assert host.namespaces is not None
        host.namespaces.network("tc", "qdisc", "del", "dev", "eth0", "root")

    def spoil(self, host: Host, delay_s: float, loss: float) -> None:
        """Put a bad cable between it and the switch: what passes is late by ``delay_s``, and of it a part is lost."""
        port = self._port(host)
        left, right = f"{port}a", f"{port}b"
        assert host.namespaces is not None
        host.namespaces.network(sys.executable, CABLE, "plain", "eth0")
        self.switch.link("add", "name", left, "type", "veth", "peer", "name", right)
        for name in (left, right):
            self.switch.link("set", name, "up")
        self.switch.link("set", port, "nomaster")
        self.switch.link("set", right, "master", "bridge")
        self.switch.network(sys.executable, CABLE, "plain", right)
        inside = ["nsenter", "-t", str(self.switch.first_pid), "-n"]
        command = [*inside, sys.executable, CABLE, "carry", port, left, str(delay_s), str(loss), "1"]
        self._cables[host.name] = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        cable = self._cables[host.name]
        assert cable.stdout is not None and cable.stdout.readline() == b"ready\n"

    def heal(self, host: Host) -> None:
        """A good cable again."""
        self._end_cable(host.name)
        self.switch.link("del", f"{self._port(host)}a")
        self.switch.link("set", self._port(host), "master", "bridge")

    def _end_cable(self, name: str) -> None:
        cable = self._cables.pop(name)
        cable.kill()
        cable.wait()
        for stream in (cable.stdin, cable.stdout):
            if stream is not None:
                stream.close()

    def power_off(self, host: Host) -> None:
        """Without a last word: the cable goes first."""
        self.cut(host)
        assert host.namespaces is not None
        host.namespaces.power_off()

    def close(self) -> None:
        """End everything; what one of them says at its end does not keep the others."""
        with contextlib.ExitStack() as all_of_it:
            all_of_it.callback(self._close_switch)
            for host in self.hosts:
                all_of_it.callback(host.close)
            for driver in self._drivers:
                all_of_it.callback(driver.close)

    def _close_switch(self) -> None:
        for name in list(self._cables):
            self._end_cable(name)
        self.switch.close()


class LoopbackHosts(Hosts):
    """The same nodes on 127.0.0.1, where there are no namespaces. Whoever is cut off is frozen."""

    are_real = False

    def __init__(self, directory: Path) -> None:
        super().__init__(directory)
        self._left_behind: list[str] = []

    def close(self) -> None:
        super().close()
        for directory in self._left_behind:
            remove_directories(directory)

    def _choose_port(self) -> int:
        """One that is free: several clusters may be there at a time."""
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port: int = probe.getsockname()[1]
            return port

    def _look_for_filters(self) -> str:
        return "there are no hosts"

    def _make_switch(self) -> None:
        return

    def _close_switch(self) -> None:
        return

    def _make_host(self, name: str) -> Host:
        return Host(name, "127.0.0.1", None)

    def cut(self, host: Host) -> None:
        host.freeze()

    def mend(self, host: Host) -> None:
        host.thaw()

    def cut_one_way(self, sender: Host, receiver: Host) -> None:
        sender.freeze()

    def mend_one_way(self, sender: Host, receiver: Host) -> None:
        sender.thaw()

    def narrow(self, host: Host, megabits_per_s: int) -> None:
        return

    def widen(self, host: Host) -> None:
        return

    def power_off(self, host: Host) -> None:
        """All of its processes at once. What they leave behind lies there for the others, who share their memory."""
        family = host.processes()
        self._left_behind += [one.directory for one in sessions() if one.pid in [process.pid for process in family]]
        host.signal_all(signal.SIGKILL)
        psutil.wait_procs(family, START_TIMEOUT_S)


class Driver:
    """A program on a host. It prints lines; what is sent to it arrives as lines."""

    PROLOGUE = """
        import os, socket, sys, time
        import numpy as np
        import actorlib

        def say(*words):
            print("@", *words, flush=True)

        def hear():
            return sys.stdin.readline().strip()

        def on(name, task, **options):
            return task.options(resources={name: 1}, **options)

        def alive():
            return sum(row["Alive"] for row in actorlib.nodes())

        def wait_until(condition, timeout_s=60.0):
            deadline = time.monotonic() + timeout_s
            while not condition():
                assert time.monotonic() < deadline, "it took too long"
                time.sleep(0.02)

        actorlib.init(address=sys.argv[1], log_to_driver=False)
    """

    def __init__(self, host: Host, address: str, code: str) -> None:
        program = textwrap.dedent(self.PROLOGUE) + textwrap.dedent(code) + "\nactorlib.shutdown()\nsay('done')\n"
        self.process = subprocess.Popen(
            host.inside(sys.executable, "-c", program, address),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def hear(self) -> str:
        """Its next word."""
        assert self.process.stdout is not None
        for line in self.process.stdout:
            if line.startswith("@ "):
                return line[2:].strip()
        raise AssertionError(f"the driver ended with status {self.process.wait()}")

    def say(self, word: str = "go") -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(word + "\n")
        self.process.stdin.flush()

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        for stream in (self.process.stdin, self.process.stdout):
            if stream is not None:
                stream.close()


def wait_for(condition: Any, timeout_s: float = 30.0) -> bool:
    deadline = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True
