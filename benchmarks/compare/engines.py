"""The two engines: the command line of each measurement, and the figure in what it prints."""
import json
import os
import subprocess
import tempfile
import threading
import time

# Both engines see as many positions as the larger one of theirs would need.
CONTEXT = 1024

# llama.cpp stores quantised weights a second time in an order that its matrix kernels like better, unless told not to.
SETTINGS = {"repacked": True, "not repacked": False}

# Between two looks at the memory of the processes.
POLL_S = 0.002


class Failed(Exception):
    """A program that ended with an error, or printed what is not understood."""


def run(command):
    """Runs a program and gives its stdout."""
    done = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    if done.returncode:
        tail = (done.stderr or done.stdout).strip().splitlines()[-3:]
        raise Failed(f"{' '.join(command)} ended with {done.returncode}: {' / '.join(tail)}")
    return done.stdout


def seconds_to_line(command, words, stream="stderr"):
    """From the start of a program to the first line of a stream that holds `words`. The program then runs to its end."""
    start = time.perf_counter()
    # The stream that is not read goes to a file, where it cannot block the program and is there for a message.
    with tempfile.TemporaryFile() as other:
        streams = {"stdout": other, "stderr": other, stream: subprocess.PIPE}
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, **streams)
        seconds, said = None, b""
        with getattr(process, stream) as lines:
            for line in lines:
                if seconds is None and words in line:
                    seconds = time.perf_counter() - start
                said += line
        if process.wait() or seconds is None:
            other.seek(0)
            last = (other.read() + said).decode(errors="replace").strip().splitlines()[-3:]
            raise Failed(f"{' '.join(command)} ended with {process.returncode} without a line with {words.decode()!r}: {' / '.join(last)}")
    return seconds


def peak_bytes(command):
    """The peaks of resident memory of a program and of all processes that it starts, added up. Mapped files count.

    The peak of a process only grows, so that the last look before its end gives all but what its last 2 ms added."""
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    output = []
    drain = threading.Thread(target=lambda: output.append(process.communicate()))
    drain.start()
    peaks = {}
    while drain.is_alive():
        for pid in family(process.pid):
            peaks[pid] = max(peaks.get(pid, 0), high_water_bytes(pid))
        time.sleep(POLL_S)
    drain.join()
    if process.returncode:
        tail = output[0][1].decode(errors="replace").strip().splitlines()[-3:]
        raise Failed(f"{' '.join(command)} ended with {process.returncode}: {' / '.join(tail)}")
    return sum(peaks.values())


def family(pid):
    """A process and all its descendants that live."""
    pids = [pid]
    for parent in pids:
        try:
            for thread in os.listdir(f"/proc/{parent}/task"):
                with open(f"/proc/{parent}/task/{thread}/children") as file:
                    pids.extend(int(child) for child in file.read().split())
        except (FileNotFoundError, ProcessLookupError):
            pass  # It ended meanwhile.
    return pids


def high_water_bytes(pid):
    """The most memory that a process has had resident; 0 once it ended."""
    try:
        with open(f"/proc/{pid}/status") as file:
            return high_water_of(file.read())
    except (FileNotFoundError, ProcessLookupError):
        return 0


def high_water_of(status):
    for line in status.splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    return 0


class Ours:
    """veritas-sdr. A measurement is `{"value": …}`; a speed also has `permitted`, what the machine's limit would give."""

    def __init__(self, binary):
        self.binary = binary

    def version(self):
        return run([self.binary, "--version"]).strip()

    def bench(self, model, test, threads, repetitions):
        """The rows of `bench` for a test."""
        command = [self.binary, "bench", "--model", model, "-o", "json", "-t", threads, "-r", str(repetitions)]
        command += ["-p", str(test.get("prompt", 0)), "-n", str(test.get("generate", 0))]
        command += ["-d", str(test.get("depth", 0)), "-b", str(test.get("sequences", 1))]
        return json.loads(run(command))

    def speed(self, model, test, threads, repetitions):
        row, = self.bench(model, test, str(threads), repetitions)
        share = row["bandwidth_share" if test["limit"] == "bandwidth" else "arithmetic_share"]
        return {"value": row["t_s_mean"], "permitted": row["t_s_mean"] / share, "row": row}

    batch = speed

    def load(self, model, test, threads, repetitions):
        command = self.generation(model, "a", 1, threads) + ["--verbose"]
        return {"value": 1e3 * min(seconds_to_line(command, b"model: ") for _ in range(repetitions))}

    def first(self, model, test, threads, repetitions):
        command = self.generation(model, "a", 1, threads) + ["--json"]
        return {"value": 1e3 * min(seconds_to_line(command, b"{", "stdout") for _ in range(repetitions))}

    def memory(self, model, test, threads, repetitions):
        # With a made-up vocabulary a letter and a digit in turns are a token each: no merge joins them.
        prompt = "a1" * (test["prompt"] // 2)
        command = self.generation(model, prompt, test["generate"], threads)
        return {"value": max(peak_bytes(command) for _ in range(repetitions))}

    def generation(self, model, prompt, n_tokens, threads):
        command = [self.binary, "run", "--model", model, "--raw", prompt, "-n", str(n_tokens), "--temp", "0"]
        return command + ["--ignore-eos", "--ctx", str(CONTEXT), "-t", str(threads), "--no-digest"]


class Theirs:
    """llama.cpp by its own programs, in one of its settings."""

    def __init__(self, folder):
        self.bench = os.path.join(folder, "llama-bench")
        self.batched = os.path.join(folder, "llama-batched-bench")

    def version(self):
        done = subprocess.run([self.bench, "--version"], capture_output=True, text=True)
        return " ".join((done.stdout + done.stderr).split())

    def arguments(self, model, test, threads, repetitions, repacked):
        command = [self.bench, "-m", model, "-t", str(threads), "-r", str(repetitions), "-fa", "on"]
        command += ["-p", str(test.get("prompt", 0)), "-n", str(test.get("generate", 0)), "-d", str(test.get("depth", 0))]
        return command + ["--repack", "1" if repacked else "0", "-o", "json"]

    def speed(self, model, test, threads, repetitions, repacked):
        rows = json.loads(run(self.arguments(model, test, threads, repetitions, repacked)))
        row, = rows
        return {"value": row["avg_ts"]}

    def batch(self, model, test, threads, repetitions, repacked):
        n = test["sequences"]
        command = [self.batched, "-m", model, "-t", str(threads), "-fa", "on", "--output-format", "jsonl"]
        command += ["-npp", str(test["depth"]), "-ntg", str(test["generate"]), "-npl", str(n)]
        # 64 positions of room besides.
        command += ["-c", str((test["depth"] + test["generate"]) * n + 64)]
        command += [] if repacked else ["--no-repack"]
        return {"value": max(batched_speed(run(command)) for _ in range(repetitions))}

    def load(self, model, test, threads, repetitions, repacked):
        # With --progress it says so when the model and the context are there, just before the run that warms up.
        command = self.arguments(model, {"prompt": 1}, threads, 1, repacked) + ["--progress"]
        return {"value": 1e3 * min(seconds_to_line(command, b"warmup prompt run") for _ in range(repetitions))}

    def first(self, model, test, threads, repetitions, repacked):
        # It prints a line of JSON as soon as the only test, a prompt of one token, is done.
        command = self.arguments(model, {"prompt": 1}, threads, 1, repacked) + ["--no-warmup", "-o", "jsonl"]
        return {"value": 1e3 * min(seconds_to_line(command, b"{", "stdout") for _ in range(repetitions))}

    def memory(self, model, test, threads, repetitions, repacked):
        command = self.arguments(model, test, threads, 1, repacked) + ["--no-warmup"]
        return {"value": max(peak_bytes(command) for _ in range(repetitions))}


def batched_speed(output):
    """Tokens per second of all sequences together, while they generate."""
    rows = [json.loads(line) for line in output.splitlines() if line.startswith("{")]
    if len(rows) != 1:
        raise Failed(f"llama-batched-bench printed {len(rows)} rows instead of one")
    return rows[0]["speed_tg"]
