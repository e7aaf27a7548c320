#!/usr/bin/env python3
"""Soaks a daemon: mixed load for some minutes, while memory, descriptors and threads of supervisor and worker are watched.

usage: soak.py [--binary PATH] [--model FILE] [--minutes N]

Clients stream, cancel by dying, send what is no frame, connect and say nothing, and ask the probes. A line a sample; at the
end the growth between the median of the samples after the first tenth and that of the last tenth. Exit status 1 if memory
grew by more than 10 % and 4 MiB, or if descriptors or threads grew."""
import argparse, json, os, random, signal, socket, statistics, subprocess, sys, tempfile, threading, time

HERE = os.path.dirname(os.path.abspath(__file__))
options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
options.add_argument("--binary", default=os.path.join(HERE, "../target/release/veritas-sdr"))
options.add_argument("--model", default=os.path.join(HERE, "../tools/demo-model/veritas-demo.gguf"))
options.add_argument("--minutes", type=float, default=20)
options = options.parse_args()

folder = tempfile.mkdtemp(prefix="veritas-soak-")
path = os.path.join(folder, "run", "veritas-sdr.sock")
log = open(os.path.join(folder, "log"), "wb")
daemon = subprocess.Popen([options.binary, "serve", "--socket", path, "--model", f"soak={options.model}"], stdout=log, stderr=log)
counts = {"answers": 0, "killed": 0, "garbage": 0, "silent": 0, "probes": 0, "failed": 0}
failures = []
stop = threading.Event()


def call(*args):
    return subprocess.run([options.binary, *args, "--socket", path], capture_output=True, stdin=subprocess.DEVNULL)


def count(kind, *args):
    """A call that has to succeed. One that does not is told at the end, with its reason."""
    began = time.monotonic()
    done = call(*args)
    counts[kind if done.returncode == 0 else "failed"] += 1
    if done.returncode:
        said = " / ".join((done.stderr or done.stdout).decode(errors="replace").split("\n")).strip()
        failures.append(f"{args[0]} ended with {done.returncode} after {time.monotonic() - began:.1f} s: {said[-300:]}")


def load(seed):
    rng = random.Random(seed)
    while not stop.is_set():
        kind = rng.random()
        if kind < 0.6:
            n = rng.choice((4, 40, 200))
            count("answers", "generate", "--json", "--raw", "Once upon a time", "-n", str(n), "--seed", str(rng.randrange(1000)))
        elif kind < 0.75:
            client = subprocess.Popen([options.binary, "generate", "--socket", path, "--raw", "Once", "--ignore-eos", "-n", "900"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
            client.stdout.read(1)
            client.kill()
            client.wait()
            client.stdout.close()
            counts["killed"] += 1
        elif kind < 0.85:
            with socket.socket(socket.AF_UNIX) as peer:
                try:
                    peer.connect(path)
                    peer.sendall(rng.randbytes(rng.randrange(1, 5000)))
                    peer.recv(1000)
                except OSError:
                    pass
            counts["garbage"] += 1
        elif kind < 0.9:
            with socket.socket(socket.AF_UNIX) as peer:
                peer.connect(path)
                time.sleep(rng.random())
            counts["silent"] += 1
        else:
            count("probes", rng.choice(("live", "ready", "health", "status", "metrics")))


def sample(pid):
    fields = dict(line.split(":", 1) for line in open(f"/proc/{pid}/status") if ":" in line)
    return int(fields["VmRSS"].split()[0]), len(os.listdir(f"/proc/{pid}/fd")), int(fields["Threads"])


try:
    while call("ready").returncode != 0:
        if daemon.poll() is not None:
            sys.exit("the daemon does not start: " + open(log.name).read())
        time.sleep(0.1)
    worker = json.loads(call("status", "--json").stdout)["models"][0]["worker"]["pid"]
    threads = [threading.Thread(target=load, args=(seed,), daemon=True) for seed in range(8)]
    [thread.start() for thread in threads]
    began, samples = time.monotonic(), []
    print("  time   supervisor KiB  fds  threads   worker KiB  fds  threads   done", flush=True)
    while time.monotonic() - began < options.minutes * 60:
        time.sleep(10)
        row = sample(daemon.pid) + sample(worker)
        samples.append(row)
        print(f"{time.monotonic() - began:6.0f} {row[0]:16d} {row[1]:4d} {row[2]:8d} {row[3]:12d} {row[4]:4d} {row[5]:8d}   {counts}", flush=True)
    stop.set()
    [thread.join(60) for thread in threads]
    time.sleep(1)
    status = json.loads(call("status", "--json").stdout)
    rest = sample(daemon.pid) + sample(worker)
    tenth = max(1, len(samples) // 10)
    early, late = samples[tenth:2 * tenth], samples[-tenth:]
    bad = []
    for column, name in enumerate(("supervisor KiB", "supervisor fds", "supervisor threads", "worker KiB", "worker fds", "worker threads")):
        a, b = (statistics.median(row[column] for row in part) for part in (early, late))
        print(f"{name:20s} {a:10.0f} → {b:10.0f}   idle afterwards {rest[column]}")
        if "KiB" in name and b > a * 1.1 + 4096 or "KiB" not in name and b > a + 20:
            bad.append(name)
    print("requests:", json.dumps(status["requests"]), "restarts:", status["models"][0]["worker"]["restarts"])
    if status["models"][0]["worker"]["restarts"] or status["requests"]["running"] or counts["failed"]:
        bad.append("restarts, requests that still run, or calls that failed")
    for failure in failures[:10]:
        print("failed:", failure)
    print("grew: " + ", ".join(bad) if bad else "nothing grew")
    daemon.send_signal(signal.SIGTERM)
    code = daemon.wait(60)
    print("exit", code)
    sys.exit(1 if bad or code else 0)
finally:
    stop.set()
    daemon.kill()
