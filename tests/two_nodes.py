"""Runs in namespaces of its own, for test_cluster.py: two Ray nodes on loopback, a library driven on them, and three kills.

Prints a JSON object of what was seen. A worker's process, a whole node and the driver are killed in the middle of the work, and the
driver is started again.
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
RAY = [sys.executable, "-m", "ray.scripts.scripts"]
HEAD = "127.0.0.1:6399"
LOST = "is tried again: its worker was lost"
DEADLINE = 120  # seconds, of any wait


def main():
    parser = argparse.ArgumentParser()
    for name in ("source", "output", "model", "token", "folder"):
        parser.add_argument(name, type=Path)
    arguments = parser.parse_args()
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    os.environ.update(
        HOME=str(arguments.folder),
        RAY_AUTH_MODE="token",
        RAY_AUTH_TOKEN_PATH=str(arguments.token),
        RAY_USAGE_STATS_ENABLED="0",
    )
    head = start_node("--head", "--port=6399", "--num-cpus=0", "--include-dashboard=false", f"--temp-dir={arguments.folder}/r")
    nodes = [start_node(f"--address={HEAD}", "--num-cpus=1") for _ in range(2)]
    seen, other = {"listeners": listeners()}, start_stranger(arguments)
    log = arguments.folder / "driver.log"
    driver = start_driver(arguments, log)
    wait_for(lambda: finished(arguments.output) >= 4, driver)
    os.kill(worker_of(nodes[0].pid), signal.SIGKILL)
    wait_for(lambda: log.read_text().count(LOST) == 1, driver)
    after = finished(arguments.output)
    wait_for(lambda: finished(arguments.output) >= after + 4, driver)
    kill_all(nodes[1].pid)
    wait_for(lambda: log.read_text().count(LOST) == 2, driver)
    driver.kill()
    driver.wait()
    seen["first"] = log.read_text()
    seen["finished when the driver was killed"] = finished(arguments.output)
    again = start_driver(arguments, log)
    out, _ = again.communicate(timeout=DEADLINE)
    seen.update(second=log.read_text(), status=again.returncode, out=out)
    seen["stranger"] = other.communicate(timeout=DEADLINE)[1]
    seen["stranger's status"] = other.returncode
    kill_all(nodes[0].pid)
    kill_all(head.pid)
    print(json.dumps(seen))


def start_node(*options):
    command = [*RAY, "start", "--block", "--disable-usage-stats", "--node-ip-address=127.0.0.1", *options]
    node = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True)
    said = ""
    while "Ray runtime started" not in said:
        line = node.stdout.readline()
        assert line, said
        said += line
    return node


def start_driver(arguments, log):
    command = [sys.executable, "videodeblur", "library", arguments.source, arguments.output, "--model", arguments.model]
    options = ["--backend", "onnxruntime", "--threads", "1", "--segment", "10", "-e", "qp=0", "-e", "preset=ultrafast", "--json"]
    cluster = ["--address", HEAD, "--token-file", arguments.token, "--no-progress"]
    with log.open("w") as told:
        return subprocess.Popen(
            [*map(str, [*command, *options, *cluster])], cwd=ROOT, stdout=subprocess.PIPE, stderr=told, text=True
        )


def start_stranger(arguments):
    """A driver with another token."""
    other = arguments.folder / "other"
    other.touch(0o600)
    other.write_text("0" * 64)
    command = ["videodeblur", "library", arguments.source, arguments.folder / "none", "--model", arguments.model]
    cluster = ["--backend", "onnxruntime", "--address", HEAD, "--token-file", other]
    return subprocess.Popen([sys.executable, *map(str, [*command, *cluster])], cwd=ROOT, stderr=subprocess.PIPE, text=True)


def finished(output):
    """Segments, those of joined videos included."""
    folders = [folder for folder in (output / ".videodeblur").glob("*") if folder.is_dir()]
    return sum(segments_of(folder) for folder in folders)


def segments_of(folder):
    if (folder / "joined.json").exists():
        return len(json.loads((folder / "plan.json").read_text())["segments"])
    return len(list(folder.glob("0*.json")))


def wait_for(condition, driver):
    until = time.monotonic() + DEADLINE
    while not condition():
        if driver.poll() is not None or time.monotonic() > until:
            raise SystemExit(f"waited in vain; the driver's status is {driver.poll()}")
        time.sleep(0.05)


def listeners():
    """Addresses that anything in this namespace listens on."""
    lines = subprocess.run(["ss", "-Hltn"], capture_output=True, text=True, check=True).stdout.splitlines()
    return sorted({line.split()[3].rpartition(":")[0] for line in lines})


def worker_of(node):
    found = processes()
    [worker] = [pid for pid in below(node, found) if found[pid][1].startswith("ray::_Actor")]
    return worker


def kill_all(pid):
    """A process with all its descendants, as a machine that loses its power."""
    for each in below(pid, processes()):
        os.kill(each, signal.SIGKILL)


def below(pid, found):
    """A process and its descendants."""
    family = [pid]
    for parent in family:
        family += [child for child, (above, _) in found.items() if above == parent]
    return family


def processes():
    """(parent, command line) by process id."""
    found = {}
    for folder in Path("/proc").iterdir():
        try:
            if folder.name.isdigit():
                parent = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
                found[int(folder.name)] = parent, (folder / "cmdline").read_text().replace("\0", " ")
        except OSError:
            continue  # it has ended
    return found


if __name__ == "__main__":
    main()
