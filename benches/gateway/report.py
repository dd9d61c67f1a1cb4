"""Tables on the terminal and in docs/benchmarks.md."""

import datetime
import os
import platform
import re


def table(head, rows):
    """Markdown that is also readable as it stands."""
    cells = [head] + rows
    widths = [max(len(row[column]) for row in cells) for column in range(len(head))]
    line = lambda row: "| " + " | ".join(
        cell.ljust(width) if column == 0 else cell.rjust(width) for column, (cell, width) in enumerate(zip(row, widths))) + " |"
    rule = "|" + "|".join("-" * (width + 2) if column == 0 else "-" * (width + 1) + ":" for column, width in enumerate(widths)) + "|"
    return "\n".join([line(head), rule] + [line(row) for row in rows])


def duration(seconds):
    return f"{seconds * 1e3:.2f} ms" if seconds < 1 else f"{seconds:.2f} s"


def machine():
    with open("/proc/cpuinfo") as cpuinfo:
        found = re.search(r"model name\s*: (.*)", cpuinfo.read())
    with open("/proc/meminfo") as meminfo:
        kilobytes = int(re.search(r"MemTotal:\s*(\d+)", meminfo.read()).group(1))
    return (f"{os.cpu_count()} cores of {found.group(1) if found else platform.machine()}, {kilobytes / 1048576:.0f} GiB, "
            f"Linux {platform.release()}, {datetime.date.today().isoformat()}")


def write_section(path, name, text):
    """Replaces the text between the markers of a section; what people wrote around it stays."""
    begin, end = f"<!-- {name}: begin, written by make bench -->", f"<!-- {name}: end -->"
    section = f"{begin}\n{text.strip()}\n{end}"
    try:
        with open(path) as file:
            document = file.read()
    except FileNotFoundError:
        document = "# Benchmarks\n\nEvery figure was taken beside its peers in one run on one machine; only the ratios mean something elsewhere.\n"
    if begin in document and end in document:
        head, rest = document.split(begin, 1)
        document = head + section + rest.split(end, 1)[1]
    else:
        document = document.rstrip() + "\n\n" + section + "\n"
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "w") as file:
        file.write(document)
