"""The tables of scripts/bench-fleet."""

import statistics
import textwrap

import report

NAMES = {"tidegate": "tidegate FleetThrottle over Redis", "trypema-hybrid": "trypema 2.2.1 hybrid, synchronised every 10 ms",
         "trypema-redis": "trypema 2.2.1 Redis, a script a call", "limitador-memory": "limitador 0.14 in memory (shares nothing)",
         "governor": "governor 0.10 (shares nothing)"}
MIB = 1 << 20


def noted(head, rows, *notes):
    """A table, and what is to be said of it."""
    return "\n\n".join([report.table(head, rows)] + [textwrap.fill(note, 128, break_on_hyphens=False) for note in notes])


def write(path, text):
    report.write_section(path, "fleet", text)


def text(results, load, burst_limit, paced_rate, stop_limit):
    parts = [f"""### Fleet

{report.machine()}. Load average when it began: {load:.1f}.

Gateways of one worker each, one Redis server, the load and an upstream that counts share the machine's cores. The load is paced and
sent in the first nine tenths of each second of the clock that the store reads too, and tells the upstream in which second it
was sent: a call that arrived in the second it was sent in was admitted in that window. Times leave out the first second, in
which connections to the upstream are opened and the load warms up. Single runs, but for the bursts."""]
    made = {"gateways": gateways, "stop": stops, "keys": keys, "driver": driver, "new-keys": new_keys, "waits": waits, "peers": peers}
    parts += [made[name](result) for name, result in results.items()]
    return "\n\n".join(parts).replace("BURST", f"{burst_limit:,}").replace("PACED", f"{paced_rate:,}")


def tell(times, of):
    """A time for people: microseconds below a millisecond."""
    if not times:
        return "–"
    seconds = times[of]
    return f"{seconds * 1e9:.0f} ns" if seconds < 1e-6 else f"{seconds * 1e6:.1f} µs" if seconds < 1e-3 else report.duration(seconds)


def over(met):
    """Calls admitted beyond the limit, in the windows in which that happened."""
    return sum(max(0, surely - met["limit"]) for surely, _ in met["arrived"])


def gateways(rows):
    cells = []
    for met in rows:
        counted, windows = met["counted"], met["windows"]
        arrived = sum(surely + perhaps for surely, perhaps in met["arrived"])
        possible = min(met["share"], 1) * met["limit"] * windows
        decisions = counted["admitted"] + counted["refused"] + counted["unanswered"]
        shared = met["store"] != "memory"
        credit = counted["local"] + counted["waited"]
        cells.append([
            f"{met['limit']:,}/s, {met['share']:g}×", f"{met['gateways']}, {met['store']}", f"{over(met)}",
            f"{sum(perhaps for _, perhaps in met['arrived'])}", f"{(1 - arrived / possible) * 100:.2f} %",
            f"{counted['local'] / credit * 100:.2f} %" if shared and credit else "–",
            f"{counted['operations'] / decisions:.4f}" if shared and decisions else "–",
            tell(met["served"], "p50"), tell(met["served"], "p99"), tell(met["refused"], "p99"), f"{met['other'] + met['broken']}"])
    head = ["limit, offered", "gateways, store", "over", "at an edge", "under", "on credit in hand", "store operations a decision", "p50", "p99",
            "p99 of refusals", "failed"]
    return noted(head, cells, "*Over*: calls beyond the limit, summed over the windows. *At an edge*: calls that arrived in the "
            "second after the one they were sent in, of which one cannot say where they were admitted. *Under*: of what the limit and the load allow. *On "
            "credit in hand*: of the calls admitted. Times are of whole calls through the gateway.", "bar: over 0; under at most 1 % at 1.5×; "
            "the times with Redis as with memory")


def stops(rows):
    cells = []
    for met in rows:
        total = sum(surely + perhaps for surely, perhaps in met["arrived"])
        # A window that lasts longer than the run is judged by its sum.
        beyond = over(met) if "/s" in met["title"] else max(0, total - met["limit"])
        cells.append([met["title"], f"{beyond}", count(met["served"]), tell(met["served"], "p99"), count(met["served_stopped"]),
                      tell(met["served_stopped"], "p50"), tell(met["served_stopped"], "p99"), count(met["refused_stopped"]), tell(met["refused_stopped"], "p50"),
                      tell(met["refused_stopped"], "p90"), tell(met["refused_stopped"], "p99"), f"{met['longest'] * 1e3:.0f} ms", f"{sum(met['arrived'][6]):,}", f"{met['other'] + met['broken']}"])
    head = ["store stopped for 3 s; limit", "over", "served while it runs", "p99", "served while it is stopped", "p50", "p99", "refused while it is stopped", "p50", "p90", "p99",
            "longest call", "served in the second after it", "failed"]
    return noted(head, cells, "4 gateways, offered 0.9 of the limit for 8 s; Redis gets SIGSTOP after 3 s and SIGCONT after 6 s. With a limit a "
            "second the credit in hand is over when its window is, so that nearly all is refused until the store is back. Refusals that take long are those of calls that waited for a question to the store, at most for its deadline of 50 ms: a few questions are asked to learn whether it is back.", "bar: over 0; p99 of calls "
            "on credit as while it runs; refusals at once")


def count(times):
    return f"{times['count']:,}" if times else "0"


def keys(met):
    served = (met["served"] or {"count": 0})["count"]
    refused = (met["refused"] or {"count": 0})["count"]
    resident = [gateway for gateway, _ in met["memory"]]
    half = resident[len(resident) // 2:] or [0]
    store = [store for _, store in met["memory"]] or [0]
    rows = [[f"{(served + refused) / met['seconds']:,.0f}", f"{served:,}", f"{refused:,}", tell(met["served"], "p50"), tell(met["served"], "p99"),
             f"{met['gap'] * 1e3:.0f} ms", f"{met['longest'] * 1e3:.0f} ms", f"{max(resident or [0]) / MIB:.0f} MiB",
             f"{(half[-1] - half[0]) / MIB:+.1f} MiB", f"{max(store) / MIB:.0f} MiB", f"{met['other'] + met['broken']}"]]
    head = [f"200,000 keys in turn, {met['seconds']:.0f} s: calls/s", "served", "refused", "p50", "p99", "longest without an answer", "longest call",
            "gateway's memory, most", "its change over the second half", "store's, most", "failed"]
    return noted(head, rows, "One gateway, 64 connections, each call with the next of 200,000 keys, as quick as answers come. What the rate is "
            "bounded by is the machine: the load, the gateway, the upstream and the store together use both cores.", "bar: everything "
            "answered, no stall, memory flat")


def driver(met):
    times, resident = met["times"], met["resident"]
    rows = [[f"{met['rate']:,.0f}", f"{met['admitted']:,}", f"{met['refused']:,}", tell(times, "p50"), tell(times, "p99"), f"{met['gap'] * 1e3:.1f} ms",
             tell(times, "max"), f"{met['keys']:,}", f"{met['bytes'] / max(met['keys'], 1):.0f} B", ", ".join(f"{resident[at] / MIB:.0f}" for at in (len(resident) // 4, len(resident) // 2, -1)) + " MiB"]]
    head = ["the driver alone: new keys a second", "admitted", "refused", "p50", "p99", "longest without a decision", "longest decision",
            "accounts", "bytes an account", "process after 1/4, 1/2 and all of it"]
    return noted(head, rows, "`FleetThrottle` over a ledger in memory, in one process: every call has a key that was never seen and so asks the ledger. "
            "It has room for 200,000 accounts and the ledger for 800,000, and both make room for new ones.", "bar: 200,000 a second, no stall, memory bounded")


def new_keys(rows):
    cells = []
    for met in rows:
        resident, keys = met["resident"], max(met["store_keys"])
        used = max(met["store_bytes"])
        cells.append([
            f"{met['offered']:,}", f"{met['rate']:,.0f}", f"{met['admitted'] / met['seconds']:,.0f}", f"{met['unanswered'] / met['seconds']:,.0f}",
            f"{met['refused'] - met['unanswered']:,}", tell(met["times"], "p50"), tell(met["times"], "p99"), tell(met["times"], "max"),
            f"{met['gap'] * 1e3:.0f} ms", f"{met['answered'] / met['seconds']:,.0f}", f"{met['answered'] / max(met['scripts'], 1):.1f}",
            f"{met['store_cpu'] / max(met['answered'], 1) * 1e6:.1f} µs", f"{used / MIB:.0f} MiB, {used / max(keys, 1):.0f} B",
            ", ".join(f"{resident[at] / MIB:.0f}" for at in (len(resident) // 4, len(resident) // 2, -1)) + " MiB"])
    head = ["new keys a second over Redis", "decided a second", "admitted", "without an answer, told when to come back", "refused otherwise", "p50", "p99",
            "longest decision", "longest without one", "the store answers a second", "questions a script", "the store's processor a question",
            "the store's memory at most, a key", "process after 1/4, 1/2 and all of it"]
    return noted(head, cells, "The same over one Redis server, with 2048 callers. What gets no place among the 1024 questions that may be under way is refused at once, what "
            "gets no answer within 50 ms then, and while the store is known to be away everything that would have to ask; each is told when to come back. The driver, its callers and the store share the machine's two cores: what the store answers is what "
            "is left for it. An account of a rule of 10 a second stays in the store for 3 s.", "bar: 200,000 a second decided, no stall, memory bounded")


def waits(met):
    names = {"ping": "PING over a bare connection", "sync": "a decision that asks: a new key", "local": "a decision on credit in hand, through the driver"}
    rows = [[name, *[tell(met[of], at) for at in ("p50", "p90", "p99")],
             "" if of != "sync" else "+" + tell({"t": max(met["sync"]["p50"] - met["ping"]["p50"], 0)}, "t")] for of, name in names.items()]
    return noted(["one caller, in turn", "p50", "p90", "p99", "p50 beyond the PING's"], rows, "On one connection each, with nothing else to do for the store. Times include two readings of the clock.",
                 "bar: a decision that asks takes one round trip and 0.2 ms; one on credit in hand less than 50 µs at p99")


def peers(rows):
    cells = []
    for (name, nodes), runs in rows.items():
        bursts, paced = runs["burst"], runs["paced"][0]
        middle = lambda of: statistics.median(map(of, bursts))
        cells.append([NAMES[name], str(nodes), f"{middle(lambda run: run['over']):.3f}×",
                      *[tell({"t": middle(lambda run: run["times"][of])}, "t") for of in ("p50", "p99")],
                      tell(paced["times"], "p50"), tell(paced["times"], "p99"), f"{paced['store']:.4f}",
                      f"{paced['admitted'] / paced['times']['count'] * 100:.2f} %"])
    cells.sort(key=lambda row: (int(row[1]), list(NAMES.values()).index(row[0])))
    head = ["instances on one Redis", "instances", "burst: admitted, of the limit", "p50", "p99", "at 0.9 of the limit: p50", "p99", "scripts a decision", "admitted"]
    return noted(head, cells, "All instances in one process, each with a connection of its own; windows of 10 s. Burst: 16 callers "
            "of each instance call it twice as often as the whole fleet's limit of BURST, as quick as they can, all at once; medians of 3. Then PACED calls a second over all instances, 0.9 of the limit, for 2 s. "
            "A decision's time includes two readings of the clock, about 50 ns. limitador's Redis storage is left out: its feature does not "
            "compile without RocksDB.", "bar: at most 1.000×")
