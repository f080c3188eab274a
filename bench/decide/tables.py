"""Goals and tables of docs/bench/decide.md."""

PERCENTILES = (("p50", "p50_ms"), ("p90", "p90_ms"), ("p99", "p99_ms"), ("p99.9", "p999_ms"), ("max", "max_ms"))
# At least so many times faster than llama-server in the median: warm, cold.
RATIO_GOALS = {"nano": (10, 30), "164m": (6, 20)}


def table(head, rows):
    yield "| " + " | ".join(head) + " |"
    yield "|" + "|".join("---" if index == 0 else "---:" for index in range(len(head))) + "|"
    for row in rows:
        yield "| " + " | ".join(row) + " |"
    yield ""


def goals(results):
    """Measure, goal, found, and whether it is met, one row each."""

    def row(measure, goal, found, met):
        return [measure, goal, found, "yes" if met else "**no**"]

    for name, case in results["cases"].items():
        peer = case["peer"]
        for kind, least in zip(("warm", "cold"), RATIO_GOALS[name.split("-")[0]]):
            ratio = peer[f"{kind}_over_ours"]
            yield row(f"{name}: p50 against {kind} llama-server", f"≥ {least} ×", f"{ratio:.1f} ×", ratio >= least)
    for name, case in results["cases"].items():
        spread = case["p999_over_p50"]
        wake = case["machine"]["wake_up_p999_us"] / 1000
        stall = case["machine"]["stall_max_us"] / 1000
        goal = f"≤ 2 (wake-ups p99.9 {wake:.2f} ms, longest stall {stall:.2f} ms)"
        yield row(f"{name}: p99.9 / p50", goal, f"{spread:.2f}", spread <= 2)
    nano = results["cases"]["nano"]
    yield row("nano: p50", "≤ 3 ms", f"{nano['p50_ms']:.2f} ms", nano["p50_ms"] <= 3)
    yield row("nano: p99", "≤ 10 ms", f"{nano['p99_ms']:.2f} ms", nano["p99_ms"] <= 10)
    repeat = results["repeats"]["repeat"]
    yield row("repeat of an event, p99", "≤ 50 µs", f"{repeat['p99_us']:.1f} µs", repeat["p99_us"] <= 50)
    for name, case in results["cases"].items():
        share = case["passes_per_token"]
        yield row(f"{name}: forward passes per token of a command", "≤ 40 %", f"{share:.0%}", share <= 0.4)
    bounded = [masks for masks in results["masks"] if masks["by_table"]]
    if bounded:
        worst = max(masks["p9999_us"] for masks in bounded)
        yield row("mask look-up, bounded commands, p99.99", "≤ 5 µs", f"{worst:.2f} µs", worst <= 5)
    large = [masks for masks in results["masks"] if masks["vocabulary"] > 100_000]
    if large:
        worst = max(masks["vocabulary_ms"] + masks["compile_ms"] for masks in large)
        size = max(masks["vocabulary"] for masks in large)
        yield row(f"automaton, vocabulary of {size:,} included", "≤ 1 s", f"{worst / 1000:.2f} s", worst <= 1000)


def latencies(case):
    peer = case["peer"]
    columns = [("ganglion", case), ("in turn", peer["ours"]), ("llama-server, warm", peer["warm"]), ("cold", peer["cold"])]
    columns.append(("warm, no schema", peer["free"]))
    head = ["ms", *(name for name, _ in columns)]
    yield from table(head, [[name, *(f"{side[key]:.2f}" for _, side in columns)] for name, key in PERCENTILES])


def notes(case):
    peer, prompt = case["peer"], case["peer"]["prompt_tokens"]
    yield (
        f"* {case['prefix_tokens']} tokens of prefix, {case['event_tokens']:.1f} of event, {case['tokens_per_command']:.1f} of "
        f"command ({case['forced_per_command']:.1f} forced); {case['forward_passes_per_command']:.1f} forward passes a "
        f"command, {case['drafts_accepted_per_command']:.1f} of {case['drafted_per_command']:.1f} guesses right."
    )
    same, compared = peer["same_commands"], peer["compared"]
    yield (
        f"* {case['decisions']} decisions of {case['sentences']} sentences; then {compared} in turn with llama-server, of "
        f"which {peer['cold']['count']} once more cold. Its answers have {peer['warm']['tokens_per_command']:.1f} tokens; {same} of "
        f"{compared} are the same command as ours, {peer['invalid_commands']} are no command of the site."
    )
    yield (
        f"* Without its grammar (no schema, as many tokens as our command, in the {peer['free']['count']} rounds that also had a "
        f"cold request) llama-server takes {peer['free_over_ours']:.1f} times as long as ganglion in the median."
    )
    if prompt["ours"] != prompt["peer"]:
        yield f"* The first prompt has {prompt['ours']} tokens here, {prompt['peer']} there."
    found = case["machine"]
    yield (
        f"* The machine meanwhile woke a sleeping thread {found['wake_up_p50_us']:.0f} µs late in the median, "
        f"{found['wake_up_p999_us']:.0f} µs at p99.9, {found['wake_up_max_us']:.0f} µs at most, and kept a running one waiting "
        f"{found['stall_max_us']:.0f} µs at most, {found['stalled_share']:.2%} of its time."
    )
    yield ""


def markdown(results):
    lines = [
        "# Event to command",
        "",
        f"From `{results['command']}`; figures in [decide.json](decide.json), what they mean in "
        "[bench/decide](../../bench/decide/README.md).",
        "",
        "## Goals",
        "",
        *table(["measure", "goal", "found", "met"], goals(results)),
    ]
    for name, case in results["cases"].items():
        lines += [f"## {name}", "", *latencies(case), *notes(case)]
        lines += [f"![latencies of {name}](decide-{name}.svg)", "", f"Percentiles: [decide-{name}.hgrm](decide-{name}.hgrm)", ""]
    repeat = results["repeats"]["repeat"]
    lines += [
        "## Repeats",
        "",
        f"An event that was decided before is answered from memory: p50 {repeat['p50_us']:.1f} µs, p99 {repeat['p99_us']:.1f} µs, "
        f"p99.9 {repeat['p999_us']:.1f} µs, max {repeat['max_us']:.1f} µs over {results['repeats']['memo_hits']} repeats.",
        "",
        "## Masks",
        "",
    ]
    head = ["site", "vocabulary", "vocabulary, ms", "commands, ms", "look-up p50, µs", "p99", "p99.9", "p99.99", "max"]
    keys = ("p50_us", "p99_us", "p999_us", "p9999_us", "max_us")
    rows = [
        [m["site"] + ("" if m["by_table"] else " (llguidance)"), f"{m['vocabulary']:,}", f"{m['vocabulary_ms']:.1f}"]
        + [f"{m['compile_ms']:.1f}", *(f"{m[key]:.2f}" for key in keys)]
        for m in results["masks"]
    ]
    lines += table(head, rows)
    lines += ["## Machine", "", *table(["", ""], [[key, str(value)] for key, value in results["environment"].items()])]
    return "\n".join(lines).rstrip() + "\n"
