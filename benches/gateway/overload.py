"""Goodput against offered load: one upstream of a known capacity, behind each limiter in turn, offered up to five times that."""

import argparse
import html
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import urllib.request

import contenders
import report
from processes import Process
from run import ROOT, allow_open_files, built

WORKERS, SERVICE_MS = 8, 20
CAPACITY = WORKERS * 1000 / SERVICE_MS
# Twice what the upstream works on at once, as one sets a limit by rule of thumb.
LIMIT = 2 * WORKERS
# What waits at the gateway instead of being refused at once.
QUEUE = WORKERS
DEADLINE_MS = 500
OFFERED = [0.5, 1, 1.5, 2, 3, 5]
WARM_MS = 500
COLOURS = {"Tidegate gradient": "#1b7837", "Tidegate fixed": "#2166ac", "nginx limit_conn": "#b35806",
           "tower ConcurrencyLimit": "#762a83", "no limiter": "#b2182b"}


def main():
    options = argparse.ArgumentParser(prog="scripts/bench-overload", description=__doc__)
    options.add_argument("--quick", action="store_true", help="one short repeat: a glance, not a result; writes nothing")
    options.add_argument("--repeats", type=int, default=3, help="repeats of each point, interleaved; the median counts (default 3)")
    options.add_argument("--millis", type=int, default=1300, help="milliseconds of each point (default 1300)")
    options.add_argument("--only", default="", help="a part of the name of the rows to run; writes nothing")
    options.add_argument("--debug", action="store_true", help="debug builds: to try the benchmark itself; writes nothing")
    options = options.parse_args()
    if options.quick:
        options.repeats, options.millis = 1, 700
    allow_open_files()
    with tempfile.TemporaryDirectory(prefix="tidegate-bench-") as directory:
        os.chmod(directory, 0o755)
        build = debug if options.debug else built
        tools, gateway = build("overload", "tidegate-benches"), build("tidegate", "tidegate-gateway")
        upstream = Upstream(directory, tools)
        fixed = f"limit: {LIMIT}, queue: {QUEUE}, max_wait: 100ms"
        adaptive = f"adaptive: gradient, min: 2, max: 200, queue: {QUEUE}, max_wait: 100ms"
        field = [
            Tidegate("Tidegate gradient", directory, upstream, gateway, adaptive),
            Tidegate("Tidegate fixed", directory, upstream, gateway, fixed),
            Nginx("nginx limit_conn", directory, upstream, LIMIT),
            Tower(directory, upstream, tools),
            Nginx("no limiter", directory, upstream, None),
        ]
        field = [contender for contender in field if options.only.lower() in contender.name.lower()]
        results = {(contender.name, offered): [] for contender in field for offered in OFFERED}
        for repeat in range(options.repeats):
            # Whoever comes first after a pause of the machine should not always be the same.
            for contender in random.Random(repeat).sample(field, len(field)):
                run(contender, upstream, tools, options, repeat, results)
    text = explained(options) + tables(field, results)
    print(text)
    if not (options.quick or options.only or options.debug):
        report.write_section(os.path.join(ROOT, "docs", "benchmarks.md"), "overload", text)
        with open(os.path.join(ROOT, "docs", "overload-goodput.svg"), "w") as file:
            file.write(picture(field, results))
        print("written to docs/benchmarks.md and docs/overload-goodput.svg")


def debug(binary, package):
    subprocess.run(["cargo", "build", "-p", package, "--bin", binary], check=True, cwd=ROOT, stdin=subprocess.DEVNULL)
    return os.path.join(os.environ.get("CARGO_TARGET_DIR", os.path.join(ROOT, "target")), "debug", binary)


class Upstream(contenders.Contender):
    def __init__(self, directory, binary):
        super().__init__("overload-upstream", directory)
        self.http2 = self.grpc = self.http1
        self.binary = binary

    def command(self):
        return [self.binary, "upstream", f"127.0.0.1:{self.http1}", str(WORKERS), str(SERVICE_MS)]

    def peak(self):
        """Most calls that it had at once, those in its line included."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.http1}/counts", timeout=10) as answer:
            return json.load(answer)["peak"]


class Single(contenders.Contender):
    """A contender that takes HTTP/1.1 only."""

    def __init__(self, name, directory, upstream):
        super().__init__(name, directory)
        self.upstream = upstream
        self.http2 = self.grpc = self.http1
        self.file = name.replace(" ", "-")

    def start(self):
        return Process(self.name, self.command(), [self.http1], os.path.join(self.directory, self.file + ".log"))


class Tidegate(Single):
    def __init__(self, name, directory, upstream, binary, in_flight):
        super().__init__(name, directory, upstream)
        self.binary, self.in_flight, self.admin = binary, in_flight, contenders.free_port()

    def command(self):
        config = f"""
listen: {{ http: 127.0.0.1:{self.http1}, admin: 127.0.0.1:{self.admin} }}
workers: {contenders.WORKERS}
log: {{ access: false, level: warn }}
upstreams:
  only:
    endpoints: [http://127.0.0.1:{self.upstream.http1}]
    in_flight: {{ {self.in_flight} }}
    breaker: off
routes: [{{ upstream: only }}]
"""
        return [self.binary, "serve", "--config", self.path(self.file + ".yaml", config)]


class Nginx(Single):
    def __init__(self, name, directory, upstream, limit):
        super().__init__(name, directory, upstream)
        self.limit = limit

    def command(self):
        limit = f"limit_conn in_flight {self.limit};" if self.limit else ""
        config = contenders.nginx_base(self.directory, self.file) + f"""
limit_conn_zone all zone=in_flight:1m;
limit_conn_status 503;
upstream only {{
  server 127.0.0.1:{self.upstream.http1} max_fails=0;
  keepalive 128;
  keepalive_requests 100000000;
}}
server {{
  listen 127.0.0.1:{self.http1} backlog=4096;
  location / {{
    {limit}
    proxy_pass http://only;
    proxy_http_version 1.1;
    proxy_set_header Connection '';
    proxy_next_upstream off;
  }}
}}
}}
"""
        return [contenders.find("nginx"), "-c", self.path(self.file + ".conf", config), "-p", self.directory, "-e", "stderr"]


class Tower(Single):
    def __init__(self, directory, upstream, binary):
        super().__init__("tower ConcurrencyLimit", directory, upstream)
        self.binary = binary

    def command(self):
        return [self.binary, "tower", f"127.0.0.1:{self.http1}", f"127.0.0.1:{self.upstream.http1}", str(LIMIT)]


def run(contender, upstream, tools, options, repeat, results):
    """Every load on one gateway, from low to high; each begins with an upstream that has no line of old calls."""
    with contender.start():
        for offered in OFFERED:
            with upstream.start():
                load = [tools, "load", f"127.0.0.1:{contender.http1}", str(offered * CAPACITY), str(WARM_MS), str(options.millis),
                        str(DEADLINE_MS), str(1000 * repeat + int(10 * offered))]
                done = subprocess.run(load, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=120)
                if done.returncode:
                    raise RuntimeError(f"load on {contender.name}: {done.stderr}")
                met = json.loads(done.stdout)
                met["peak"] = upstream.peak()
            met["goodput"] = met["served"] / met["seconds"] / CAPACITY
            print(f"{contender.name:24} {offered:>3}× {met}", file=sys.stderr, flush=True)
            results[contender.name, offered].append(met)


def median(results, name, offered, key):
    values = [met[key] for met in results[name, offered] if met[key] is not None]
    return statistics.median(values) if values else None


def explained(options):
    return f"""### Overload

{report.machine()}. {options.repeats} repeats of {options.millis / 1000:g} s, interleaved, medians.

An upstream with {WORKERS} workers and {SERVICE_MS} ms a call: a capacity of {CAPACITY:.0f} calls a second. Each call in its line makes it
1 % slower, and a call whose client left is worked on all the same. The load is open: calls come independently of each other at
the offered rate whatever becomes of those before them, and give up {DEADLINE_MS} ms after they were due. Fixed limits are {LIMIT} calls in
flight for all; Tidegate lets up to {QUEUE} wait, nginx none, tower any number for any time. *No limiter* is
nginx without `limit_conn`. Times of served calls count from when they were due, of refusals from when the call was sent.

![Goodput and latency against offered load](overload-goodput.svg)

"""


def tables(field, results):
    heads = [f"{offered:g}×" for offered in OFFERED]
    number = lambda value, text: "–" if value is None else text(value)
    row = lambda contender, key, text: [contender.name] + [
        number(median(results, contender.name, offered, key), text) for offered in OFFERED]
    whole = lambda value: f"{value:,.0f}"
    return "\n\n".join(
        report.table([f"{title}, at an offered load of"] + heads, [row(contender, key, text) for contender in field])
        for title, key, text in [
            ("served in time, of capacity", "goodput", lambda value: f"{value:.2f}"),
            ("p99 of served calls", "p99", report.duration),
            ("p99 of refusals", "refused_p99", report.duration),
            ("most calls at once at the upstream", "peak", whole),
        ])


def picture(field, results):
    """Two panels, white behind them, so that they can be read on any page."""
    width, height, left, top, across, down, gap = 720, 640, 60, 60, 440, 220, 80
    lines = [f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" font-family="sans-serif" font-size="12" fill="#222222">',
             f'<rect width="{width}" height="{height}" fill="white"/>',
             f'<text x="{left}" y="28" font-size="15">Overload: an upstream of {CAPACITY:.0f} calls a second, offered up to five times that</text>']
    most_x = OFFERED[-1]
    for panel, (title, key, most, ticks, text) in enumerate([
            ("served in time, in multiples of capacity", "goodput", 1.2, [0, 0.5, 1.0], lambda value: f"{value:g}"),
            ("p99 of served calls, ms", "p99", DEADLINE_MS / 1000, [0, 0.1, 0.2, 0.3, 0.4, 0.5], lambda value: f"{value * 1000:.0f}")]):
        y = top + panel * (down + gap)
        place = lambda x, value: (left + x / most_x * across, y + down * (1 - min(value / most, 1)))
        lines.append(f'<text x="{left}" y="{y - 8}">{title}</text>')
        for tick in ticks:
            _, at = place(0, tick)
            lines.append(f'<line x1="{left}" y1="{at:.1f}" x2="{left + across}" y2="{at:.1f}" stroke="#dddddd"/>')
            lines.append(f'<text x="{left - 6}" y="{at + 4:.1f}" text-anchor="end">{text(tick)}</text>')
        for tick in range(int(most_x) + 1):
            at, _ = place(tick, 0)
            lines.append(f'<text x="{at:.1f}" y="{y + down + 16}" text-anchor="middle">{tick}</text>')
        lines.append(f'<path d="M{left} {y} V{y + down} H{left + across}" fill="none" stroke="#333333"/>')
        lines.append(f'<text x="{left}" y="{y + down + 34}">offered load, in multiples of capacity</text>')
        for contender in field:
            values = [(offered, median(results, contender.name, offered, key)) for offered in OFFERED]
            points = " ".join("{:.1f},{:.1f}".format(*place(x, value)) for x, value in values if value is not None)
            colour = COLOURS[contender.name]
            lines.append(f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="2"/>')
            for point in points.split():
                cx, cy = point.split(",")
                lines.append(f'<circle cx="{cx}" cy="{cy}" r="2.5" fill="{colour}"/>')
    for at, contender in enumerate(field):
        y = top + 16 + 22 * at
        lines.append(f'<line x1="{left + across + 24}" y1="{y}" x2="{left + across + 42}" y2="{y}" stroke="{COLOURS[contender.name]}" stroke-width="3"/>')
        lines.append(f'<text x="{left + across + 48}" y="{y + 4}">{html.escape(contender.name)}</text>')
    return "\n".join(lines + ["</svg>", ""])


if __name__ == "__main__":
    try:
        if not contenders.find("nginx"):
            sys.exit("nginx is missing; scripts/install-test-tools installs it")
        main()
    except (RuntimeError, subprocess.CalledProcessError) as error:
        sys.exit(f"bench-overload: {error}")
