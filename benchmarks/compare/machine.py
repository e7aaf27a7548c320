"""What the measurements run on, and what else runs there."""
import os
import platform
import resource
import time

# Of the processor's features those that kernels of either engine are written for.
FEATURES = ["avx2", "fma", "f16c", "avx_vnni", "avx512f", "avx512bw", "avx512vl", "avx512_vnni", "avx512_bf16", "amx_int8", "amx_bf16", "asimd", "asimddp", "i8mm", "bf16", "sve"]


def describe():
    """The machine as a dictionary of texts and numbers."""
    with open("/proc/cpuinfo") as file:
        cpu = cpu_of(file.read())
    with open("/proc/meminfo") as file:
        memory = next(int(line.split()[1]) for line in file if line.startswith("MemTotal:"))
    return cpu | {"memory_gib": round(memory / 2**20, 1), "system": f"{platform.system()} {platform.release()} {platform.machine()}"}


def cpu_of(cpuinfo):
    """From the text of /proc/cpuinfo."""
    fields = {}
    for line in cpuinfo.splitlines():
        key, _, value = line.partition(":")
        fields.setdefault(key.strip(), []).append(value.strip())
    first = {key: values[0] for key, values in fields.items()}
    flags = (first.get("flags") or first.get("Features") or "").split()
    name = first.get("model name") or f"implementer {first.get('CPU implementer', '?')}, part {first.get('CPU part', '?')}"
    family = [first[key] for key in ("cpu family", "model", "stepping") if key in first]
    return {
        "processor": name + (f" (family {', model '.join(family[:2])})" if len(family) > 1 else ""),
        "processors": len(fields.get("processor", [])),
        "cache": first.get("cache size", "not stated"),
        "features": [flag for flag in FEATURES if flag in flags],
        "is_virtual": "hypervisor" in flags,
    }


class Others:
    """Processors that everything but the measurements kept busy between two calls of `lap`, and what the host took."""

    def __init__(self):
        self.last = self.look()

    def look(self):
        with open("/proc/stat") as file:
            busy = busy_of(file.readline())
        ours = sum(usage.ru_utime + usage.ru_stime for usage in map(resource.getrusage, (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)))
        return time.monotonic(), busy / os.sysconf("SC_CLK_TCK"), ours

    def lap(self):
        before, self.last = self.last, self.look()
        seconds, busy, ours = (b - a for a, b in zip(before, self.last))
        return max(0.0, (busy - ours) / seconds) if seconds > 0 else 0.0


def busy_of(line):
    """Ticks in which a processor was not idle, from the first line of /proc/stat. Those that the host took count, too."""
    user, nice, system, _idle, _iowait, irq, softirq, steal = map(int, line.split()[1:9])
    return user + nice + system + irq + softirq + steal
