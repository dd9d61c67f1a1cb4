"""Processes of a run: started in the foreground, watched through /proc, ended by id."""

import contextlib
import os
import signal
import socket
import subprocess
import time

CLOCK_TICKS = os.sysconf("SC_CLK_TCK")


def free_port():
    """A port below the range of outgoing connections, so that none of those takes it meanwhile."""
    for port in range(10000 + os.getpid() % 10000, 32000):
        with contextlib.closing(socket.socket()) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if port not in free_port.given and probe.connect_ex(("127.0.0.1", port)) != 0:
                try:
                    probe.close()
                    with contextlib.closing(socket.socket()) as bound:
                        bound.bind(("127.0.0.1", port))
                except OSError:
                    continue
                free_port.given.add(port)
                return port
    raise RuntimeError("no free port between 10000 and 32000")


free_port.given = set()


class Process:
    """A process and its children. Ends when the block does."""

    def __init__(self, name, command, ports, log, ready_timeout=15):
        self.name, self.ports, self.log = name, ports, log
        with open(log, "ab") as out:
            self.child = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=out, stderr=out)
        deadline = time.monotonic() + ready_timeout
        for port in ports:
            while not listens(port):
                if self.child.poll() is not None or time.monotonic() > deadline:
                    self.stop()
                    raise RuntimeError(f"{name} did not start:\n{open(log).read()[-3000:]}")
                time.sleep(0.02)

    def pids(self):
        """The process and all below it."""
        found, queue = [], [self.child.pid]
        while queue:
            pid = queue.pop()
            found.append(pid)
            with contextlib.suppress(OSError):
                for task in os.listdir(f"/proc/{pid}/task"):
                    with open(f"/proc/{pid}/task/{task}/children") as children:
                        queue += [int(child) for child in children.read().split()]
        return found

    def cpu_seconds(self):
        """User and system time so far."""
        ticks = 0
        for pid in self.pids():
            with contextlib.suppress(OSError):
                with open(f"/proc/{pid}/stat") as stat:
                    fields = stat.read().rsplit(")", 1)[1].split()
                ticks += int(fields[11]) + int(fields[12])
        return ticks / CLOCK_TICKS

    def memory(self):
        """Resident bytes; what processes share is counted once."""
        kilobytes = 0
        for pid in self.pids():
            with contextlib.suppress(OSError):
                with open(f"/proc/{pid}/smaps_rollup") as rollup:
                    kilobytes += sum(int(line.split()[1]) for line in rollup if line.startswith("Pss:"))
        return kilobytes * 1024

    def signal(self, number):
        os.kill(self.child.pid, number)

    def stop(self):
        if self.child.poll() is None:
            self.child.terminate()
            try:
                self.child.wait(3)
            except subprocess.TimeoutExpired:
                for pid in reversed(self.pids()):
                    with contextlib.suppress(OSError):
                        os.kill(pid, signal.SIGKILL)
                self.child.wait()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.stop()


def listens(port):
    with contextlib.closing(socket.socket()) as probe:
        probe.settimeout(1)
        return probe.connect_ex(("127.0.0.1", port)) == 0
