"""Starting, idling and ending: times in fresh processes, memory and CPU of everything that a session runs."""

from __future__ import annotations

from typing import Any

from harness import QUICK, Figure, fresh, main, row

TIMES = """
import json, time
a = time.perf_counter()
import LIBRARY as lib
b = time.perf_counter()
lib.init(num_cpus=2, log_to_driver=False)
@lib.remote
def f(): return 1
lib.get(f.remote())
c = time.perf_counter()
lib.shutdown()
d = time.perf_counter()
print(json.dumps({"import": b - a, "first": c - b, "shutdown": d - c}))
"""

IDLE = """
import glob, json, os, sys, time, psutil
import LIBRARY as lib
workers, idle_s = int(sys.argv[1]), float(sys.argv[2])
lib.init(num_cpus=workers, log_to_driver=False)
@lib.remote
def pid(seconds):
    time.sleep(seconds)
    return os.getpid()
seen = set()
while len(seen) < workers:
    seen |= set(lib.get([pid.remote(0.2) for _ in range(workers)]))
time.sleep(3)
me = psutil.Process()
family = me.children(recursive=True)
pss = sum(p.memory_full_info().pss for p in family)
def spent():
    # Nanoseconds on a CPU, by the scheduler's own account: ticks would miss what runs for microseconds.
    paths = [path for p in [me, *family] for path in glob.glob(f"/proc/{p.pid}/task/*/schedstat")]
    return sum(int(open(path).read().split()[0]) for path in paths) / 1e9
before = spent()
time.sleep(idle_s)
used = spent() - before
print(json.dumps({"pss_mb": pss / 1e6, "cpu_percent": 100 * used / idle_s, "processes": len(family)}))
lib.shutdown()
"""


TURNS = 5


@row("import", "s", target=0.15, more_is_better=False, turns=TURNS)
def import_s(lib: Any) -> Figure:
    return fresh(lib, TIMES)["import"]


@row("init to first result", "s", target=0.3, more_is_better=False, turns=TURNS)
def first_result_s(lib: Any) -> Figure:
    return fresh(lib, TIMES)["first"]


@row("shutdown", "s", target=0.2, more_is_better=False, turns=TURNS)
def shutdown_s(lib: Any) -> Figure:
    return fresh(lib, TIMES)["shutdown"]


@row("idle memory without the driver (PSS), 2 workers", "MB", target=80, more_is_better=False, turns=1)
def idle_memory(lib: Any) -> Figure:
    figures = fresh(lib, IDLE, "2", "0.1")
    return {"value": figures["pss_mb"], "processes": figures["processes"]}


@row("memory of each further worker (PSS)", "MB", target=5, more_is_better=False, turns=1)
def further_worker(lib: Any) -> Figure:
    few, more = (fresh(lib, IDLE, workers, "0.1")["pss_mb"] for workers in ("2", "6"))
    return (more - few) / 4


@row("idle CPU, all processes", "%", target=0.5, more_is_better=False, turns=1)
def idle_cpu(lib: Any) -> Figure:
    return fresh(lib, IDLE, "2", "3" if QUICK else "20")["cpu_percent"]


if __name__ == "__main__":
    main(__file__, needs_session=False)
