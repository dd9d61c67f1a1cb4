"""Load, and what came of it: wrk for HTTP/1.1, h2load for HTTP/2 and gRPC."""

import os
import re
import struct
import subprocess
import tempfile

CONNECTIONS = 64
# As many calls at once as over HTTP/1.1.
H2_CONNECTIONS, H2_STREAMS = 8, 8
TIMES = {"us": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0}


class Result:
    """One run: calls answered, calls failed, seconds, p50 and p99 in seconds."""

    def __init__(self, calls, failed, seconds, p50, p99):
        self.calls, self.failed, self.seconds, self.p50, self.p99 = calls, failed, seconds, p50, p99


def wrk(port, path, seconds, connections=CONNECTIONS):
    text = run(["wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "--latency", "--timeout", "10s",
                f"http://127.0.0.1:{port}{path}"])
    calls, took = re.search(r"(\d+) requests in ([\d.]+)(us|ms|s|m),", text).group(1, 2)
    unit = re.search(r"requests in [\d.]+(us|ms|s|m),", text).group(1)
    errors = re.search(r"Socket errors: connect (\d+), read (\d+), write (\d+), timeout (\d+)", text)
    failed = sum(map(int, errors.groups())) if errors else 0
    other = re.search(r"Non-2xx or 3xx responses: (\d+)", text)
    failed += int(other.group(1)) if other else 0
    quantile = lambda q: (lambda m: float(m.group(1)) * TIMES[m.group(2)])(re.search(rf"{q}%\s+([\d.]+)(us|ms|s|m)", text))
    return Result(int(calls), failed, float(took) * TIMES[unit], quantile(50), quantile(99))


def h2load(port, path, seconds, body=None, headers=()):
    with tempfile.TemporaryDirectory() as directory:
        log = os.path.join(directory, "log")
        command = ["h2load", "-t1", f"-c{H2_CONNECTIONS}", f"-m{H2_STREAMS}", "-D", str(seconds), f"--log-file={log}"]
        if body is not None:
            file = os.path.join(directory, "body")
            with open(file, "wb") as out:
                out.write(body)
            command += ["-d", file]
        for header in headers:
            command += ["-H", header]
        text = run(command + [f"http://127.0.0.1:{port}{path}"])
        done, failed, errored, timed_out = map(int, re.search(
            r"requests: \d+ total, \d+ started, (\d+) done, \d+ succeeded, (\d+) failed, (\d+) errored, (\d+) timeout", text).groups())
        took, unit = re.search(r"finished in ([\d.]+)(us|ms|s|m)", text).groups()
        with open(log) as lines:
            # start of the call, status, duration; both times in microseconds
            times = sorted(int(line.split("\t")[2]) for line in lines)
        size = int(re.search(r"\((\d+)\) data", text).group(1))
        if not times or size < done * (len(body) if body else 1024) * 0.9:
            raise RuntimeError(f"{path}: answers without their body\n{text}")
        at = lambda q: times[min(len(times) - 1, int(len(times) * q))] * 1e-6
        return Result(done, failed + errored + timed_out, float(took) * TIMES[unit], at(0.5), at(0.99))


def grpc(port, seconds):
    """Unary calls with a message of 32 bytes (field 1, a string of 30)."""
    message = b"\x0a\x1e" + b"x" * 30
    frame = struct.pack(">BI", 0, len(message)) + message
    return h2load(port, "/tidegate.test.Echo/Unary", seconds, frame, ("content-type: application/grpc", "te: trailers"))


def run(command):
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=300)
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(command)}\n{done.stdout}{done.stderr}")
    return done.stdout
