"""The gateway beside nginx, HAProxy and Envoy: the same load, the same upstream, the same guards, one run."""

import argparse
import contextlib
import os
import resource
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request

import contenders
import load
import report

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
IDLE_CONNECTIONS = 10_000
# Seconds until a connection that does nothing is idle: what its last call took has been given back then, by whoever does.
REST = 5
SCENARIOS = [
    ("HTTP/1.1, 1 KiB", "http1", lambda port, seconds: load.wrk(port, "/1k", seconds)),
    ("HTTP/1.1, 64 KiB", "http1", lambda port, seconds: load.wrk(port, "/64k", seconds)),
    ("HTTP/2, 1 KiB", "http2", lambda port, seconds: load.h2load(port, "/1k", seconds)),
    ("gRPC unary", "grpc", lambda port, seconds: load.grpc(port, seconds)),
]


def main():
    options = argparse.ArgumentParser(prog="scripts/bench-gateway", description=__doc__)
    options.add_argument("--quick", action="store_true", help="one short repeat: a glance, not a result; writes nothing")
    options.add_argument("--repeats", type=int, default=3, help="repeats of each row, interleaved; the median counts (default 3)")
    options.add_argument("--seconds", type=int, default=4, help="seconds of each repeat (default 4)")
    options.add_argument("--only", default="", help="contenders to run, with commas between")
    options.add_argument("--scenario", default="", help="a part of the name of the rows to run")
    options.add_argument("--load-only", action="store_true", help="leave out reload, restart and idle connections")
    options = options.parse_args()
    if options.quick:
        options.repeats, options.seconds = 1, 1
    allow_open_files()
    only = [name for name in options.only.split(",") if name]

    with tempfile.TemporaryDirectory(prefix="tidegate-bench-") as directory:
        # nginx workers of a privileged master may be somebody else.
        os.chmod(directory, 0o755)
        http = contenders.HttpUpstream(directory)
        grpc = contenders.GrpcUpstream(directory, built("grpc-echo", "tidegate-benches"))
        wanted = lambda name: not only or name in only
        field = []
        if wanted("tidegate"):
            field.append(contenders.Tidegate(directory, http, grpc, built("tidegate", "tidegate-gateway")))
        if wanted("nginx"):
            field.append(contenders.Nginx(directory, http, grpc))
        if wanted("haproxy"):
            field.append(contenders.Haproxy(directory, http, grpc))
        if wanted("envoy"):
            binary = contenders.envoy_binary(os.path.join(ROOT, ".bench"))
            field += [contenders.Envoy(directory, http, grpc, binary)] if binary else []

        sections = [f"### Gateway\n\n{report.machine()}. " + ", ".join(f"{c.name} {c.version}" for c in field) + ".\n"
                    + EXPLANATION.format(workers=contenders.WORKERS, repeats=options.repeats, seconds=options.seconds,
                                         connections=load.CONNECTIONS, h2=f"{load.H2_CONNECTIONS} connections of {load.H2_STREAMS} streams")]
        with http.start(), grpc.start():
            sections += [compare(field, name, place, drive, options) for name, place, drive in SCENARIOS
                         if options.scenario.lower() in name.lower()]
            if not options.load_only:
                sections.append(over_changes(field, options))
                sections.append(idle(field, 1000 if options.quick else IDLE_CONNECTIONS))
        if not options.quick and not only and not options.scenario:
            report.write_section(os.path.join(ROOT, "docs", "benchmarks.md"), "gateway", "\n\n".join(sections))
            print("written to docs/benchmarks.md")


EXPLANATION = """
Each gateway has {workers} workers and its guards on: two limits on calls per time, one of them per client address, a limit on calls
in flight, an upstream left alone after failures; no access log, keep-alive on both sides, forwarding fields and a request id. One
upstream (nginx with files; tonic for gRPC) serves all. {connections} calls at once (HTTP/2: {h2}); {repeats} repeats of
{seconds} s, interleaved, medians. The load, the upstream and the gateway share the machine's cores, so *calls/s* is what the three of
them reach together; *CPU* is the gateway's own processor time, user and system, and the steadier figure. Memory is resident
(proportional set size), after the run. Failed: calls without an answer or with another status than 200."""


def built(binary, package):
    """Builds a release binary, and says where it is."""
    subprocess.run(["cargo", "build", "--release", "-p", package, "--bin", binary], check=True, cwd=ROOT, stdin=subprocess.DEVNULL)
    return os.path.join(os.environ.get("CARGO_TARGET_DIR", os.path.join(ROOT, "target")), "release", binary)


def compare(field, name, place, drive, options):
    """One row for each contender: medians of interleaved repeats, each in a process of its own."""
    runs = {contender.name: [] for contender in field}
    for _ in range(options.repeats):
        for contender in field:
            with contender.start() as process:
                drive(getattr(contender, place), 1)
                before = process.cpu_seconds()
                result = drive(getattr(contender, place), options.seconds)
                result.cpu = process.cpu_seconds() - before
                result.memory = process.memory()
            runs[contender.name].append(result)
    median = lambda name, of: statistics.median(map(of, runs[name]))
    rate = lambda run: run.calls / run.seconds
    cost = lambda run: run.cpu / max(run.calls, 1) * 1e6
    peer = "nginx" if "nginx" in runs else field[0].name
    rows = []
    for contender in field:
        mine = contender.name
        rows.append([
            mine,
            f"{median(mine, rate):,.0f}",
            f"{median(mine, rate) / median(peer, rate):.2f}×",
            f"{median(mine, cost):.1f} µs",
            f"{median(peer, cost) / median(mine, cost):.2f}×",
            report.duration(median(mine, lambda run: run.p50)),
            report.duration(median(mine, lambda run: run.p99)),
            f"{median(mine, lambda run: run.memory) / 1048576:.0f} MiB",
            f"{sum(run.failed for run in runs[mine]):,}",
        ])
    head = [name, "calls/s", f"to {peer}", "CPU a call", f"{peer} to it", "p50", "p99", "memory", "failed"]
    return show(report.table(head, rows))


def over_changes(field, options):
    """Calls that fail while the configuration is reloaded, and while a new process takes over from the old one."""
    seconds = max(options.seconds, 3)
    rows = []
    for contender in field:
        row = [contender.name]
        with contender.start() as process:
            if contender.reload_signal:
                row += over(contender, seconds, lambda: process.signal(getattr(signal, "SIG" + contender.reload_signal)))
            else:
                row += ["–", "–"]
        row += replaced(contender, seconds) if contender.name == "tidegate" else ["–", "–"]
        rows.append(row)
    return show(report.table(["calls over a change", "reload", "failed", "upgrade", "failed"], rows))


def replaced(contender, seconds):
    """The process starts another in its place, which takes its listening sockets over."""
    successors = []
    with contender.start() as process:

        def replace():
            process.signal(signal.SIGUSR2)
            deadline = time.monotonic() + 10
            while len(process.pids()) < 2 and time.monotonic() < deadline:
                time.sleep(0.01)
            successors.extend(process.pids()[1:])

        try:
            return over(contender, seconds, replace)
        finally:
            for pid in successors:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGTERM)


def over(contender, seconds, change):
    """HTTP/1.1 load with a change in the middle: calls, and how many of them failed."""
    results = []
    loader = threading.Thread(target=lambda: results.append(load.wrk(contender.http1, "/1k", seconds)))
    loader.start()
    time.sleep(seconds / 2)
    change()
    loader.join()
    return [f"{results[0].calls:,}", f"{results[0].failed:,}"]


def idle(field, connections):
    """Memory of client connections that have made one call and then do nothing for a while."""
    rows = []
    for contender in field:
        with contender.start() as process:
            urllib.request.urlopen(f"http://127.0.0.1:{contender.http1}/1k").read()
            before = process.memory()
            clients = []
            try:
                for _ in range(connections):
                    client = socket.create_connection(("127.0.0.1", contender.http1))
                    clients.append(client)
                    client.sendall(b"GET /1k HTTP/1.1\r\nHost: bench\r\n\r\n")
                    answer = b""
                    while len(answer) < 1024 or not answer.endswith(b"x" * 1024):
                        more = client.recv(65536)
                        if not more:
                            raise RuntimeError(f"{contender.name} closed connection {len(clients)}: {answer[:200]}")
                        answer += more
                time.sleep(REST)
                after = process.memory()
            finally:
                for client in clients:
                    client.close()
        rows.append([contender.name, f"{(after - before) / 1048576:.1f} MiB", f"{(after - before) / connections / 1024:.1f} KiB"])
    return show(report.table([f"{connections:,} idle connections", "memory", "each"], rows))


def show(text):
    print(text, end="\n\n", flush=True)
    return text


def allow_open_files():
    """The limit is inherited by every process of the run."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


if __name__ == "__main__":
    try:
        for tool in ("nginx", "haproxy", "wrk", "h2load"):
            if not contenders.find(tool):
                sys.exit(f"{tool} is missing; scripts/install-test-tools installs it")
        main()
    except (RuntimeError, subprocess.CalledProcessError) as error:
        sys.exit(f"bench-gateway: {error}")
