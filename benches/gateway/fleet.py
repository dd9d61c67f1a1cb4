"""The throttle over a fleet: gateways that share one Redis, many keys, a store that stops, and the driver beside its peers."""

import argparse
import http.server
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request

import contenders
import fleet_report
from processes import Process, free_port
from run import ROOT, allow_open_files, built

NODES = [4, 8]
BURST_LIMIT, PACED_RATE = 1000, 20_000
PEERS = ["tidegate", "trypema-hybrid", "trypema-redis", "limitador-memory", "governor"]
# Calls a second of the runs in which the store stops: little enough that the machine is not what is measured.
STOP_LIMIT, STOP_FROM, STOP_TO = 2000, 3.0, 6.0


def main():
    options = argparse.ArgumentParser(prog="scripts/bench-fleet", description=__doc__)
    options.add_argument("--quick", action="store_true", help="short runs: a glance, not a result; writes nothing")
    options.add_argument("--only", default="", help="parts to run: gateways, stop, keys, driver, new-keys, waits, peers, with commas; writes nothing")
    options = options.parse_args()
    only = [name for name in options.only.split(",") if name]
    allow_open_files()
    with tempfile.TemporaryDirectory(prefix="tidegate-bench-") as directory:
        bench = Bench(directory, os.environ.get("TIDEGATE") or built("tidegate", "tidegate-gateway"), fleet_bench(), options.quick)
        with bench.store.start():
            parts = [(name, run) for name, run in [("gateways", bench.gateways), ("stop", bench.stops), ("keys", bench.keys),
                                                   ("driver", bench.driver), ("new-keys", bench.new_keys),
                                                   ("waits", bench.waits), ("peers", bench.peers)] if not only or name in only]
            load = os.getloadavg()[0]
            results = {}
            for name, run in parts:
                begun = time.monotonic()
                results[name] = run()
                print(f"{name}: {time.monotonic() - begun:.0f} s", file=sys.stderr, flush=True)
    text = fleet_report.text(results, load, BURST_LIMIT, PACED_RATE, STOP_LIMIT)
    print(text)
    if not (options.quick or only):
        fleet_report.write(os.path.join(ROOT, "docs", "benchmarks.md"), text)
        print("written to docs/benchmarks.md")


def fleet_bench():
    """Builds the peers, which are a workspace of their own."""
    target = os.environ.get("CARGO_TARGET_DIR", os.path.join(ROOT, "target"))
    manifest = os.path.join(ROOT, "benches", "fleet", "Cargo.toml")
    subprocess.run(["cargo", "build", "--release", "--locked", "--manifest-path", manifest, "--target-dir", target], check=True,
                   stdin=subprocess.DEVNULL)
    return os.path.join(target, "release", "tidegate-fleet-bench")


class Store:
    """A Redis server without files."""

    def __init__(self, directory):
        self.directory, self.port = directory, free_port()
        self.url = f"redis://127.0.0.1:{self.port}/0"

    def start(self):
        program = contenders.find("redis-server") or contenders.find("valkey-server")
        if not program:
            raise RuntimeError("redis-server is missing; scripts/install-test-tools installs it")
        command = [program, "--port", str(self.port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--dir", self.directory]
        self.process = Process("redis", command, [self.port], os.path.join(self.directory, "redis.log"))
        return self.process


class Gateway:
    """A gateway of one worker with one limit."""

    def __init__(self, name, bench, limit, store):
        self.name, self.bench, self.limit, self.store = name, bench, limit, store
        self.port, self.admin = free_port(), free_port()

    def start(self):
        path, name = os.path.join(self.bench.directory, f"{self.name}.yaml"), self.limit.split(":", 1)[0]
        with open(path, "w") as file:
            file.write(f"""
listen: {{ http: 127.0.0.1:{self.port}, admin: 127.0.0.1:{self.admin} }}
workers: 1
drain: 1s
store: {self.store}
namespace: bench
log: {{ access: false, level: warn }}
upstreams:
  only: {{ endpoints: [http://127.0.0.1:{self.bench.upstream}], breaker: off }}
  warm: {{ endpoints: [http://127.0.0.1:{self.bench.warm_upstream}], breaker: off }}
limits: {{ {self.limit} }}
routes:
  - {{ match: {{ path: /warm }}, limits: [{name}], upstream: warm }}
  - {{ limits: [{name}], upstream: only }}
""")
        return Process(self.name, [self.bench.tidegate, "serve", "--config", path], [self.port, self.admin],
                       os.path.join(self.bench.directory, f"{self.name}.log"))

    def counted(self):
        """What its metrics say of decisions and questions to the store."""
        sums = dict.fromkeys(["admitted", "refused", "local", "waited", "unanswered", "operations"], 0)
        with urllib.request.urlopen(f"http://127.0.0.1:{self.admin}/metrics", timeout=10) as answer:
            for line in answer.read().decode().splitlines():
                name, _, value = line.rpartition(" ")
                for key in sums:
                    if (name.startswith("tidegate_limit_decisions_total") and f'decision="{key}"' in name) or \
                            (name.startswith("tidegate_credit_decisions_total") and f'how="{key}"' in name) or \
                            (name.startswith("tidegate_store_operations_total") and key == "operations"):
                        sums[key] += float(value)
        return sums


class Warm(http.server.BaseHTTPRequestHandler):
    """Answers the calls before the load."""

    def do_GET(self):
        self.send_response(204)
        self.end_headers()

    def log_message(self, *_):
        pass


class Bench:
    def __init__(self, directory, tidegate, tools, quick):
        self.directory, self.tidegate, self.tools, self.quick = directory, tidegate, tools, quick
        self.store, self.upstream, self.runs = Store(directory), free_port(), 0
        warm = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Warm)
        self.warm_upstream = warm.server_address[1]
        threading.Thread(target=warm.serve_forever, daemon=True).start()

    def load(self, gateways, command, amount, seconds, connections, stop=False, memory=None):
        """Starts gateways, offers them load, and returns what the load met and what they counted."""
        running = []
        try:
            for gateway in gateways:
                running.append(gateway.start())
            for gateway in gateways:
                self.warm(gateway)
            before = [gateway.counted() for gateway in gateways]
            line = [self.tools, command, f"127.0.0.1:{self.upstream}", ",".join(f"127.0.0.1:{gateway.port}" for gateway in gateways),
                    str(amount), str(seconds), str(connections)] + ([str(STOP_FROM), str(STOP_TO)] if stop else [])
            child = subprocess.Popen(line, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True)
            try:
                if "started" not in child.stdout.readline():
                    raise RuntimeError(f"{' '.join(line)}: did not start")
                begun = time.monotonic()
                if stop:
                    self.pause_store(begun)
                if memory is not None:
                    watcher = threading.Thread(target=self.watch, args=(child, running, memory), daemon=True)
                    watcher.start()
                out, _ = child.communicate(timeout=seconds + 60)
            finally:
                if child.poll() is None:
                    child.kill()
                    child.wait()
            if child.returncode:
                raise RuntimeError(f"{' '.join(line)}: exit status {child.returncode}")
            met = json.loads(out.strip().splitlines()[-1])
            after = [gateway.counted() for gateway in gateways]
            met["counted"] = {key: sum(a[key] - b[key] for a, b in zip(after, before)) for key in after[0]}
            return met
        finally:
            for process in running:
                process.stop()

    def pause_store(self, begun):
        try:
            time.sleep(max(0, begun + STOP_FROM - time.monotonic()))
            self.store.process.signal(signal.SIGSTOP)
            time.sleep(max(0, begun + STOP_TO - time.monotonic()))
        finally:
            self.store.process.signal(signal.SIGCONT)

    def watch(self, child, running, memory):
        while child.poll() is None:
            memory.append((sum(process.memory() for process in running), self.store.process.memory()))
            time.sleep(1)

    def warm(self, gateway):
        """A new ledger grants nothing at first. The upstream that counts is not there yet."""
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline:
            try:
                request = urllib.request.Request(f"http://127.0.0.1:{gateway.port}/warm", headers={"x-key": "warm"})
                with urllib.request.urlopen(request, timeout=5):
                    return
            except urllib.error.HTTPError as error:
                refused = error.code
            time.sleep(0.05)
        raise RuntimeError(f"{gateway.name} still answers {refused} after 30 s")

    def fleet(self, count, limit, store=None):
        self.runs += 1
        return [Gateway(f"gateway-{self.runs}-{at}", self, f"run-{self.runs}: {limit}", store or self.store.url) for at in range(count)]

    def gateways(self):
        rows = []
        seconds = 2 if self.quick else 4
        for limit in [1000, 10_000]:
            for share in [0.9, 1.5]:
                for count, store in [(1, "memory://"), (1, None), (4, None)]:
                    fleet = self.fleet(count, f"{{ rate: {limit}/s, algorithm: fixed-window, key: [] }}", store)
                    met = self.load(fleet, "load", limit * share, seconds, 64 // count)
                    met.update(limit=limit, share=share, gateways=count, store="memory" if store else "Redis", windows=seconds)
                    rows.append(say(met))
        return rows

    def stops(self):
        rows = []
        for title, limit in [
                (f"{STOP_LIMIT}/s, deny", f"rate: {STOP_LIMIT}/s, on_store_failure: deny"),
                (f"{STOP_LIMIT * 60}/min, deny", f"rate: {STOP_LIMIT * 60}/min, window: first-call, on_store_failure: deny"),
                (f"{STOP_LIMIT * 60}/min, share", f"rate: {STOP_LIMIT * 60}/min, window: first-call, on_store_failure: share")]:
            fleet = self.fleet(4, f"{{ {limit}, algorithm: fixed-window, key: [] }}")
            met = self.load(fleet, "load", STOP_LIMIT * 0.9, 8, 16, stop=True)
            met.update(title=title, limit=STOP_LIMIT if "/s" in title else STOP_LIMIT * 60)
            rows.append(say(met))
        return rows

    def keys(self):
        fleet, memory = self.fleet(1, '{ rate: 10/s, algorithm: fixed-window, key: ["header:x-key"] }'), []
        met = self.load(fleet, "keys-load", 200_000, 5 if self.quick else 60, 64, memory=memory)
        met["memory"] = memory
        return say(met)

    def driver(self):
        return say(self.tool("keys", "200000", "3" if self.quick else "60"))

    def new_keys(self):
        """The same over the store, at two rates."""
        return [say(dict(self.tool("keys", rate, "3" if self.quick else "60", self.store.url), offered=int(rate))) for rate in ["50000", "200000"]]

    def waits(self):
        return say(self.tool("sync", self.store.url, "2000" if self.quick else "20000"))

    def peers(self):
        rows = {}
        for repeat in range(1 if self.quick else 3):
            for nodes in NODES:
                for name in PEERS[repeat:] + PEERS[:repeat]:
                    row = rows.setdefault((name, nodes), {"burst": [], "paced": []})
                    row["burst"].append(say(self.tool("burst", self.store.url, name, str(nodes), str(BURST_LIMIT)), name, nodes))
                    if repeat == 0:
                        row["paced"].append(say(self.tool("paced", self.store.url, name, str(nodes), str(PACED_RATE), "2"), name, nodes))
        return rows

    def tool(self, *arguments):
        done = subprocess.run([self.tools, *arguments], stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=120)
        if done.returncode:
            raise RuntimeError(f"{' '.join(arguments)}: {done.stderr}")
        return json.loads(done.stdout.strip().splitlines()[-1])


def say(met, *of):
    print(*of, {key: value for key, value in met.items() if key != "memory"}, file=sys.stderr, flush=True)
    return met


if __name__ == "__main__":
    try:
        main()
    except (RuntimeError, subprocess.SubprocessError) as error:
        sys.exit(f"bench-fleet: {error}")
