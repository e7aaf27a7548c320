"""From measurements to the record: medians, ratios, shares, verdicts, and the tables in Markdown."""
import statistics

VERDICTS = {
    "aim": "reaches the aim",
    "must": "reaches what it must",
    "short": "falls short",
    "void": "void: two threads do not do the work of two",
    "failed": "failed",
}

HIGHER_IS_BETTER = {"speed": True, "batch": True, "load": False, "first": False, "memory": False}

UNITS = {"speed": "tokens/s", "batch": "tokens/s", "load": "ms", "first": "ms", "memory": "MB"}


def row_of(model, test, threads, ours, theirs, others):
    """A row without its verdict.

    model    shape, type and the bytes of its file
    ours     a list of measurements, one a round
    theirs   for each setting of llama.cpp the list of its measurements; a setting that was left out has fewer
    others   processors that other programs kept busy meanwhile"""
    better = max if HIGHER_IS_BETTER[test["kind"]] else min
    ours_value = statistics.median(m["value"] for m in ours)
    medians = {setting: statistics.median(values) for setting, values in theirs.items()}
    setting = better(medians, key=medians.get)
    ratio = ours_value / medians[setting]
    row = {
        "shape": model["shape"],
        "type": model["type"],
        "file_bytes": model["file_bytes"],
        "test": test["name"],
        "kind": test["kind"],
        "threads": threads,
        "ours": ours_value,
        "ours_rounds": [m["value"] for m in ours],
        "llama_cpp": medians[setting],
        "llama_cpp_setting": setting,
        "llama_cpp_rounds": theirs,
        "ratio": ratio if HIGHER_IS_BETTER[test["kind"]] else 1 / ratio,
        "others": others,
    }
    permitted = [m["permitted"] for m in ours if "permitted" in m]
    if permitted:
        # A limit that was measured too low, because something else ran, would flatter: the best one counts.
        row |= {"limit": test["limit"], "permitted": max(permitted), "share": ours_value / max(permitted)}
    if test["kind"] == "memory":
        row["file_share"] = ours_value / model["file_bytes"]
    return row


def failed_row(model, test, threads, reason):
    return {"shape": model["shape"], "type": model["type"], "test": test["name"], "kind": test["kind"], "threads": threads, "failed": reason, "verdict": "failed"}


def settings_to_keep(theirs, kind, margin):
    """The settings of llama.cpp that are worth another round, after the first: those near the best."""
    better = max if HIGHER_IS_BETTER[kind] else min
    best = better(values[0] for values in theirs.values())
    lag = {setting: (best / values[0] if HIGHER_IS_BETTER[kind] else values[0] / best) - 1 for setting, values in theirs.items()}
    return [setting for setting in theirs if lag[setting] <= margin]


def limits_of(rows):
    """What the machine can do at most, by number of threads: the best that any of our runs measured.

    rows   rows of `bench`; their `arithmetic` says which products the operations are of: int8, bf16 or f32
    Reads count where the buffer was that of a whole model and so far beyond the caches: in generation."""
    limits = {}
    for row in rows:
        best = limits.setdefault(row["threads"], {})
        found = {row["arithmetic"] + "_gop_s": row["operations_s_max"] / 1e9}
        if row["test"].startswith("tg"):
            found["read_gb_s"] = row["read_bytes_s_max"] / 1e9
        for name, value in found.items():
            best[name] = max(best.get(name, 0.0), value)
    return limits


def conditions(test, row, limits):
    """The sets `must` and `aim` that hold for a row, after the rules of its test."""
    must, aim = test["must"], test["aim"]
    for rule in test.get("rule", []):
        if applies(rule, row, limits):
            must, aim = rule["must"], rule["aim"]
    return must, aim


def applies(rule, row, limits):
    if row["type"] not in rule.get("types", [row["type"]]) or row["threads"] not in rule.get("threads", [row["threads"]]):
        return False
    if "reads" not in rule:
        return True
    reads = limits[rule["reads"]["threads"]]["read_gb_s"]
    return rule["reads"].get("above", 0) < reads < rule["reads"].get("below", float("inf"))


def holds(wanted, row, cache_bytes_per_token):
    """Whether a row meets all conditions of a set."""
    for name, value in wanted.items():
        if name == "ratio_min":
            met = row["ratio"] >= value
        elif name == "share_min":
            met = row["share"] >= value
        elif name == "ms_max":
            met = row["ours"] < value
        elif name == "file_share_max":
            cache = wanted.get("cache_tokens", 0) * cache_bytes_per_token
            met = row["ours"] <= value * row["file_bytes"] + cache
        elif name == "cache_tokens":
            met = True
        else:
            raise ValueError(f"definitions.toml: the condition {name} is not known")
        if not met:
            return False
    return True


def judge(row, test, limits, two_threads_min, cache_bytes_per_token):
    """Adds the conditions and the verdict to a row."""
    if "failed" in row:
        return row
    must, aim = conditions(test, row, limits)
    if row["threads"] > 1 and gain(limits, row["threads"]) < two_threads_min:
        verdict = "void"
    elif not holds(must, row, cache_bytes_per_token):
        verdict = "short"
    else:
        verdict = "aim" if holds(aim, row, cache_bytes_per_token) else "must"
    return row | {"must": must, "aim": aim, "verdict": verdict}


def gain(limits, threads):
    """How many times the work of one thread so many do, by the arithmetic that both were measured with."""
    name = next(name for name in ("int8_gop_s", "f32_gop_s", "bf16_gop_s") if name in limits[threads] and name in limits[1])
    return limits[threads][name] / limits[1][name]


def markdown(record):
    """The record as a page."""
    return "\n".join([
        "# Speed beside llama.cpp",
        "",
        "![Ratios to llama.cpp and shares of the machine's limits](record.svg)",
        "",
        *facts(record),
        "",
        *limits_table(record["limits"]),
        "",
        summary(record["rows"]),
        "",
        *rows_table(record["rows"]),
        "",
        *notes(record),
        "",
    ])


def facts(record):
    machine, versions = record["machine"], record["versions"]
    virtual = ", virtual" if machine["is_virtual"] else ""
    return [
        f"- Measured {record['date']}, {record['rounds']} round{'s' if record['rounds'] > 1 else ''} of each row" + (", a quick run" if record["quick"] else ""),
        f"- Machine: {machine['processor']}, {machine['processors']} processors{virtual}, {machine['memory_gib']} GiB, {machine['system']}",
        f"- Features: {', '.join(machine['features'])}; our kernels: {record['isa']}",
        f"- Ours: {versions['ours']}, commit {versions['commit']}",
        f"- llama.cpp: {versions['llama_cpp']}",
    ]


def limits_table(limits):
    names = {"int8_gop_s": "int8 products, Gop/s", "f32_gop_s": "f32 products, Gop/s", "bf16_gop_s": "bf16 products, Gop/s", "read_gb_s": "reads, GB/s"}
    head = [
        "The machine's limits, measured between the rows by the kernels' own instructions; the best counts:",
        "",
        "| threads | " + " | ".join(names.values()) + " |",
        "|--:|" + "--:|" * len(names),
    ]
    cell = lambda best, name: f"{best[name]:.{1 if name == 'read_gb_s' else 0}f}" if name in best else "not measured"
    return head + [f"| {threads} | " + " | ".join(cell(best, name) for name in names) + " |" for threads, best in sorted(limits.items())]


def summary(rows):
    counts = {verdict: sum(row["verdict"] == verdict for row in rows) for verdict in VERDICTS}
    behind = sum(row.get("ratio", 1) < 1 for row in rows)
    parts = [f"{count} {'rows' if count != 1 else 'row'}: {VERDICTS[verdict]}" for verdict, count in counts.items() if count]
    return f"{len(rows)} rows, {behind} of them behind llama.cpp. " + "; ".join(parts) + "."


def rows_table(rows):
    head = ["| model | type | test | threads | ours | llama.cpp | its setting | ratio | of the limit | must | aim | verdict |",
            "|---|---|---|--:|--:|--:|---|--:|--:|---|---|---|"]
    return head + [row_line(row) for row in rows]


def row_line(row):
    start = f"| {row['shape']} | {row['type']} | {row['test']} | {row['threads']} "
    if "failed" in row:
        return start + "| " * 7 + f"| failed: {row['failed'].replace('|', '/')} |"
    unit, scale = UNITS[row["kind"]], 1e-6 if row["kind"] == "memory" else 1
    figure = lambda value: f"{value * scale:.1f} {unit}"
    if "share" in row:
        of_limit = f"{row['share']:.0%} of {row['limit']}"
    elif "file_share" in row:
        of_limit = f"{row['file_share']:.3f} × the file"
    else:
        of_limit = ""
    verdict = row["verdict"] + (" (disturbed)" if row.get("disturbed") else "")
    return start + f"| {figure(row['ours'])} | {figure(row['llama_cpp'])} | {row['llama_cpp_setting']} | {row['ratio']:.2f} | {of_limit} | {wanted(row['must'])} | {wanted(row['aim'])} | {verdict} |"


def wanted(conditions):
    """A set of conditions in a few characters."""
    texts = []
    for name, value in conditions.items():
        if name == "ratio_min":
            texts.append(f"{value} ×")
        elif name == "share_min":
            texts.append(f"{value:.0%}")
        elif name == "ms_max":
            texts.append(f"< {value} ms")
        elif name == "file_share_max":
            cache = " + cache" if "cache_tokens" in conditions else ""
            texts.append(f"≤ {value} × file{cache}")
    return ", ".join(texts)


def notes(record):
    others = max((row["others"] for row in record["rows"] if "others" in row), default=0.0)
    return [
        "A ratio says how many times as good we are: of tokens per second, or of the reciprocal of a time or of memory. Both engines read the same file with as many threads and an F16 cache, in turns; figures are medians over the rounds. llama.cpp runs with flash attention, with repacked weights and without (batched runs, too), and the better setting counts for each row.",
        "",
        "`pp` is a prompt, `tg` are generated tokens, `@d` after so many tokens in the cache, `*b` for so many sequences together, after a prompt of 128 tokens each. `load` is the time from the start of the program until the first step could begin, with the file in the page cache: until `run --verbose --ctx 1024 --no-digest` and `llama-bench --progress` say so. `first` is the time from the start of the program until the first step of one token is done, without a run to warm up; what was put off at the load is paid there. `memory` is the peak of resident memory, the mapped file included, of all processes of the program together, for a prompt of 512 and 64 generated tokens (ours with a context of 1024, llama-bench with the smaller one of its test).",
        "",
        "The share is that of the measured limit: of 8-bit products for prompts of quantised models, of f32 products for F16 and of bf16 products for BF16 (attention is not counted as work), and of the read rate for generation (weights once a step, and the cache).",
        "",
        f"Other programs kept at most {others:.2f} processors busy during a row, on average" + (f"; rows with more than {record['others_max']} are marked as disturbed." if record["others_max"] else "."),
    ]
