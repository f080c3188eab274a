"""Medians, goals, and the Markdown tables."""

import statistics

# What ours has to reach: ratio to llama.cpp by shape and format.
DECODE_GOALS = {
    ("24m", "q8_0"): 2.0,
    ("24m", "q4_0"): 2.0,
    ("164m", "q8_0"): 2.0,
    ("164m", "q4_0"): 2.0,
    ("1100m", "q8_0"): 1.6,
    ("1100m", "q4_0"): 1.9,
    ("1100m", "q4_k_m"): 1.7,
}
PREFILL_GOALS = {"q8_0": 4.0, "q4_0": 4.0, "q4_k_m": 3.5}
# Shares of the machine's limits, of the shape that does not fit its caches.
BANDWIDTH_GOAL, PEAK_GOAL, LIMITED_SHAPE = 0.85, 0.55, "1100m"
STARTUP_GOAL = 0.1
MEMORY_GOAL = 1.05
LATENCY_GOAL = 0.5


def column(pairs, program, key):
    return [pair[program][key] for pair in pairs if key in pair.get(program, {})]


def median_of(pairs, program, key):
    values = column(pairs, program, key)
    return statistics.median(values) if values else None


def ratios(pairs, peer, key):
    """Ours to the peer's, pair by pair."""
    return [
        pair["ganglion"][key] / pair[peer][key]
        for pair in pairs
        if key in pair.get("ganglion", {}) and key in pair.get(peer, {})
    ]


def median_ratio(pairs, peer, key):
    values = ratios(pairs, peer, key)
    return statistics.median(values) if values else None


def number(value, digits=1):
    return "–" if value is None else f"{value:,.{digits}f}"


def times(value):
    return "–" if value is None else f"{value:.2f}×"


def against(value, goal, at_least=True):
    """`reached` or `missed`, with the goal; empty where there is none."""
    if goal is None:
        return ""
    sign = "≥" if at_least else "≤"
    if value is None:
        return f"{sign} {goal:g}"
    good = value >= goal if at_least else value <= goal
    return f"{sign} {goal:g}: {'reached' if good else 'missed'}"


def rival(ratio, kind, shape):
    """The ratio to mistral.rs, which ours has to beat where weights come from memory."""
    ahead = ratio is not None and kind == "decode" and shape == LIMITED_SHAPE
    return times(ratio) + (f" ({against(ratio, 1.0)})" if ahead else "")


def reason(row):
    return "; ".join(f"{name}: {why}" for name, why in row.get("not_run", {}).items())


def table(head, rows):
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    return lines + ["| " + " | ".join(row) + " |" for row in rows]


def throughput(part):
    """Decode and prefill: two tables of the same rows."""
    lines = []
    for kind, title in (("decode", "Decode"), ("prefill", "Prefill")):
        key = f"{kind}_tokens_per_s"
        share = "bandwidth_share" if kind == "decode" else "peak_share"
        rows = []
        for name, row in part.items():
            pairs, shape, fmt = row["pairs"], row["shape"], row["format"]
            goal = DECODE_GOALS.get((shape, fmt)) if kind == "decode" else PREFILL_GOALS.get(fmt)
            ratio = median_ratio(pairs, "llama.cpp", key)
            spread = ratios(pairs, "llama.cpp", key)
            of_limit = median_of(pairs, "ganglion", share)
            limit_goal = BANDWIDTH_GOAL if kind == "decode" else PEAK_GOAL
            limit_goal = limit_goal if shape == LIMITED_SHAPE else None
            rows.append(
                [
                    name,
                    number(median_of(pairs, "ganglion", key)),
                    number(median_of(pairs, "llama.cpp", key)),
                    number(median_of(pairs, "mistral.rs", key)),
                    times(ratio) + (f" ({min(spread):.2f}–{max(spread):.2f})" if spread else ""),
                    against(ratio, goal),
                    rival(median_ratio(pairs, "mistral.rs", key), kind, shape),
                    "–" if of_limit is None else f"{100 * of_limit:.1f} %",
                    against(of_limit, limit_goal),
                ]
            )
        of = "of read bandwidth" if kind == "decode" else "of int8 peak"
        head = ["model", "ganglion t/s", "llama.cpp t/s", "mistral.rs t/s", "to llama.cpp", "goal"]
        lines += [f"## {title}", "", *table([*head, "to mistral.rs", of, "goal"], rows), ""]
    missing = [f"* {name}: {reason(row)}" for name, row in part.items() if row.get("not_run")]
    return lines + (["Not run:", "", *missing, ""] if missing else [])


def startup(part):
    rows = []
    for name, row in part.items():
        pairs = row["pairs"]
        ratio = None
        if pairs:
            ratio = statistics.median(
                pair["with_cache"]["load_ms"] / pair["llama.cpp"]["first_token_ms"] for pair in pairs
            )
        values = [
            median_of(pairs, program, key)
            for program in ("without_cache", "with_cache", "llama.cpp")
            for key in ("load_ms", "first_token_ms")
        ]
        goal = against(ratio, STARTUP_GOAL, at_least=False)
        rows.append([name, *map(number, values), "–" if ratio is None else f"{ratio:.3f}", goal, reason(row)])
    head = ["model", "ours, no cache: load ms", "first token ms", "ours, cache: load ms", "first token ms"]
    head += ["llama.cpp: load ms", "first token ms", "our load with cache to its first token", "goal", "not run"]
    note = "Times from the start of loading; files in the page cache for all."
    return ["## Load and first token", "", note, "", *table(head, rows), ""]


def memory(part):
    rows = []
    for name, row in part.items():
        ours, peer = row.get("ganglion"), row.get("llama.cpp")
        mib = lambda report, key: number(report[key] / 2**20 if report else None)  # noqa: E731
        ratio = ours["resident_bytes"] / (ours["file_bytes"] + ours["kv_bytes"]) if ours else None
        cells = [mib(ours, "file_bytes"), mib(ours, "kv_bytes"), mib(ours, "resident_bytes")]
        cells += [mib(ours, "resident_anonymous_bytes"), mib(ours, "resident_file_bytes")]
        goal = against(ratio, MEMORY_GOAL, at_least=False)
        cells += ["–" if ratio is None else f"{ratio:.3f}", goal, mib(peer, "resident_bytes"), reason(row)]
        rows.append([name, *cells])
    head = ["model", "file MiB", "KV MiB", "resident MiB", "allocated", "mapped", "to file + KV", "goal"]
    return ["## Resident memory", "", *table([*head, "llama.cpp resident MiB", "not run"], rows), ""]


def latency(part):
    rows = []
    for name, row in part.items():
        cells = []
        tails = {}
        for program in ("ganglion", "llama.cpp"):
            reports = [pair[program] for pair in row["pairs"]]
            if not reports:
                cells += ["–"] * 3
                continue
            tails[program] = [report["token_p999_us"] / report["token_p50_us"] for report in reports]
            cells += [number(median_of(row["pairs"], program, f"token_{key}_us")) for key in ("p50", "p999")]
            cells.append(f"{statistics.median(tails[program]):.2f}")
        ratio = None
        if tails:
            ratio = statistics.median(ours / peer for ours, peer in zip(*tails.values()))
        goal = against(ratio, LATENCY_GOAL, at_least=False)
        rows.append([name, *cells, "–" if ratio is None else f"{ratio:.2f}", goal, reason(row)])
    head = ["model", "p50 µs", "p99.9 µs", "p99.9 / p50", "llama.cpp: p50 µs", "p99.9 µs", "p99.9 / p50"]
    return ["## Single tokens", "", *table([*head, "ours to its", "goal", "not run"], rows), ""]


PARTS = {"throughput": throughput, "startup": startup, "memory": memory, "latency": latency}


def markdown(results):
    settings = results["settings"]
    lines = [
        "# Engine, measured",
        "",
        f"Made by `{settings['command']}`; do not edit. [How it is measured](../../bench/engine/README.md).",
        "",
        f"{settings['threads']} threads; prompt {settings['prompt']}, {settings['tokens']} decoded tokens; "
        f"{settings['pairs']} pairs of runs in turn, {settings['repeat']} repetitions in each. Medians; ratios are "
        "medians of the pairs' ratios, with the smallest and the largest.",
        "",
        *table(["", ""], [[key, str(value)] for key, value in results["environment"].items()]),
        "",
    ]
    for name, render in PARTS.items():
        if results["parts"].get(name):
            lines += render(results["parts"][name])
    return "\n".join(lines).rstrip() + "\n"
