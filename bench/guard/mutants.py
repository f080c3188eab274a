#!/usr/bin/env python3
"""Mutation testing of a crate with all mutants compiled at once: one build instead of one per mutant.

usage: mutants.py [--package ganglion-guard] [--work DIR] build | run [--missed] | alone | monitors | report

build     list the mutants (cargo-mutants), write them all into a copy of the tree, drop what does not compile, build the
          tests, and note which test reaches which mutant's place
run       switch them on one by one and run the tests that reach them, the quick ones first; go on where it was left
alone     what has to be compiled alone: does it compile, and (without --check) is it caught?
monitors  which invariants' monitors of the fault campaign see which mutants
report    the figures and the survivors, as Markdown

A mutant counts as cargo-mutants counts: caught when a test fails, when the process dies, or when it runs out of time.
Needs Python 3.11, cargo-mutants, and PyPI's tree-sitter and tree-sitter-rust.
"""

import argparse
import collections
import concurrent.futures
import ctypes
import json
import os
import pathlib
import re
import resource
import shutil
import signal
import subprocess
import sys
import threading
import time

import schemata

REPOSITORY = pathlib.Path(__file__).resolve().parents[2]
# Tests of the build, not of what runs.
NOT_RUN = ("compile_fail", "dependencies")
# One computation serves all tests of this binary.
TOGETHER = ("campaign",)
QUICK_S = 0.3
MEMORY_BYTES_MAX = 6 << 30
CAMPAIGN_RUNS = 12
PR_CAPBSET_DROP, CAP_SYS_NICE = 24, 23


class Work:
    def __init__(self, options):
        self.package = options.package
        self.crate = REPOSITORY / "crates" / options.package.removeprefix("ganglion-")
        self.root = options.work
        self.copy = self.root / "tree"
        self.file = self.root / "state.json"
        self.jobs = options.jobs
        self.longest_s = options.longest
        self.lock = threading.Lock()
        self.state = json.loads(self.file.read_text()) if self.file.exists() else {"mutants": {}, "units": []}

    def save(self):
        partial = self.file.with_suffix(".part")
        partial.write_text(json.dumps(self.state, indent=1))
        partial.replace(self.file)

    @property
    def mutants(self):
        return self.state["mutants"]

    def cargo(self, *arguments):
        command = ["cargo", *arguments, "-p", self.package, "--message-format=json"]
        # Not the tree's own: to cargo both are one workspace, and each would overwrite the other's programs.
        env = os.environ | {"CARGO_TARGET_DIR": str(self.root / "target"), "CARGO_PROFILE_DEV_DEBUG": "0"}
        done = subprocess.run(
            command, cwd=self.copy, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        messages = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
        return done, messages


def listed(work):
    """The mutants of the tree, by a name that other lines above do not change."""
    out = subprocess.run(
        ["cargo", "mutants", "--list", "--json", "-p", work.package],
        cwd=REPOSITORY, check=True, stdout=subprocess.PIPE, text=True,
    ).stdout
    seen, found = collections.Counter(), {}
    for mutant in json.loads(out):
        place, change = re.match(r"([^:]*):\d+:\d+: (.*)", mutant["name"], re.S).groups()
        seen[place, change] += 1
        found[f"{place}: {change} #{seen[place, change]}"] = mutant
    return found


def copy_tree(work):
    if work.copy.exists():
        shutil.rmtree(work.copy)
    names = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=REPOSITORY, check=True, stdout=subprocess.PIPE, text=True,
    ).stdout.splitlines()
    for name in names:
        if (REPOSITORY / name).is_file():
            (work.copy / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(REPOSITORY / name, work.copy / name)
    manifest = work.copy / work.crate.relative_to(REPOSITORY) / "Cargo.toml"
    manifest.write_text(manifest.read_text().replace("[lints]\nworkspace = true\n", ""))


def rewrite(work, mutants, numbers, dropped):
    """Writes every file with its mutants; the numbers of those that are in."""
    done = set()
    for file in sorted({mutant["file"] for mutant in mutants.values()}):
        mine = [(numbers[name], m) for name, m in mutants.items() if m["file"] == file and name not in dropped]
        text, expressed = schemata.Rewriter((REPOSITORY / file).read_bytes(), mine).rewrite()
        done |= expressed
        if file.endswith("/lib.rs"):
            text += "\nmod mutant_switch;\n"
        (work.copy / file).write_text(text)
    source = work.copy / work.crate.relative_to(REPOSITORY) / "src"
    (source / "mutant_switch.rs").write_text(schemata.switch(len(numbers)))
    library = source / "lib.rs"
    if "mod mutant_switch;" not in library.read_text():
        library.write_text(library.read_text() + "\nmod mutant_switch;\n")
    return done


def blamed(work, message):
    """The mutants that a compiler error is about: the smallest one around it, else all on its lines."""
    spans = sorted(message["spans"], key=lambda span: not span["is_primary"])
    for span in spans:
        file = work.copy / span["file_name"]
        if not file.exists():
            continue
        text = file.read_bytes()
        around = []
        for match in re.finditer(rb"/\*<(\d+)\*/", text):
            number = int(match[1])
            end = text.find(schemata.end(number).encode(), match.end()) + len(schemata.end(number))
            if match.start() <= span["byte_start"] and span["byte_end"] <= end:
                around.append((end - match.start(), number))
        if around:
            return {min(around)[1]}
        lines = text.splitlines()[span["line_start"] - 1 : span["line_end"]]
        found = {int(number) for line in lines for number in re.findall(rb"/\*<(\d+)\*/", line)}
        if found:
            return found
    return set()


def build(work, fresh):
    work.root.mkdir(parents=True, exist_ok=True)
    mutants = listed(work)
    numbers = {name: number for number, name in enumerate(mutants, 1)}
    names = {number: name for name, number in numbers.items()}
    before, work.state["mutants"] = work.mutants, {}
    for name, mutant in mutants.items():
        old = before.get(name, {})
        kept = {} if fresh else {key: old[key] for key in ("outcome", "by", "monitors") if key in old}
        work.mutants[name] = {"at": mutant["name"], "number": numbers[name], "genre": mutant["genre"], **kept}
    copy_tree(work)
    dropped = set()
    while True:
        done = rewrite(work, mutants, numbers, dropped)
        result, messages = work.cargo("check", "--lib")
        errors = [m["message"] for m in messages if m["reason"] == "compiler-message" and m["message"]["level"] == "error"]
        if result.returncode == 0:
            break
        bad = {number for error in errors for number in blamed(work, error)}
        if not bad:
            print(result.stderr, *(error["rendered"] for error in errors), sep="\n")
            sys.exit("an error that no mutant explains")
        print(f"{len(errors)} errors, {len(bad)} mutants dropped", flush=True)
        dropped |= {names[number] for number in bad}
    for name, mutant in work.mutants.items():
        mutant["alone"] = numbers[name] not in done
    print(f"{len(done)} of {len(mutants)} mutants in one program", flush=True)
    work.save()
    programs = {}
    for arguments in (["test", "--no-run", "--tests", "--lib"], ["build", "--examples"]):
        result, messages = work.cargo(*arguments)
        if result.returncode:
            sys.exit(result.stderr)
        for message in messages:
            if message["reason"] == "compiler-artifact" and message.get("executable"):
                target = message["target"]
                example = "(example)" if target["kind"][0] == "example" else ""
                programs[target["name"] + example] = message["executable"]
    work.state["programs"] = programs
    trace(work)
    work.save()


def environment(**more):
    mine = {
        # The same cases in every run, no file of failures that later runs would try first, no search for a smaller case.
        "PROPTEST_RNG_SEED": "7", "PROPTEST_DISABLE_FAILURE_PERSISTENCE": "1", "PROPTEST_MAX_SHRINK_ITERS": "0",
        "RUST_TEST_THREADS": "1", "RUST_BACKTRACE": "0",
    }
    return os.environ | mine | more


def contained():
    """Before a program starts that may do anything: bounded memory, no real-time priority."""
    os.setsid()
    os.nice(10)
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES_MAX, MEMORY_BYTES_MAX))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    ctypes.CDLL(None).prctl(PR_CAPBSET_DROP, CAP_SYS_NICE, 0, 0, 0)


def execute(work, program, arguments, limit_s, **env):
    """Exit code (None: out of time) and standard output."""
    cwd = work.copy / work.crate.relative_to(REPOSITORY)
    child = subprocess.Popen(
        [program, *arguments], cwd=cwd, env=environment(CARGO_MANIFEST_DIR=str(cwd), **env), preexec_fn=contained,
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, errors="replace",
    )
    try:
        out, _ = child.communicate(timeout=limit_s)
        return child.returncode, out
    except subprocess.TimeoutExpired:
        return None, ""
    finally:
        # A supervisor's children too, which a test that died has left behind.
        try:
            os.killpg(child.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        child.wait()


def trace(work):
    """Which test reaches which mutant's place, and how long it takes."""
    wanted = []
    for binary, program in work.state["programs"].items():
        if binary in NOT_RUN or binary.endswith("(example)"):
            continue
        out = execute(work, program, ["--list", "--format", "terse"], 60)[1]
        tests = [line.removesuffix(": test") for line in out.splitlines() if line.endswith(": test")]
        wanted += [(binary, None)] if binary in TOGETHER else [(binary, test) for test in tests]

    def one(wanted):
        binary, test = wanted
        file = work.root / f"trace-{binary}-{(test or 'all').replace(':', '_')}"
        file.unlink(missing_ok=True)
        arguments = ["--exact", test] if test else []
        begun = time.monotonic()
        plain = execute(work, work.state["programs"][binary], arguments, 600, MUTANT_TRACE=str(file))[0]
        took_s = time.monotonic() - begun
        if plain != 0 or took_s < 1:
            # Writing a trace takes time, and the heap.
            begun = time.monotonic()
            plain = execute(work, work.state["programs"][binary], arguments, 600)[0]
            took_s = time.monotonic() - begun
        reached = sorted({int(line) for line in file.read_text().split()}) if file.exists() else []
        file.unlink(missing_ok=True)
        return {"binary": binary, "test": test, "s": round(took_s, 3), "reached": reached, "passes": plain == 0}

    with concurrent.futures.ThreadPoolExecutor(work.jobs) as pool:
        units = list(pool.map(one, wanted))
    failing = [unit for unit in units if not unit["passes"]]
    for unit in failing:
        print("fails without any mutant and is left out:", unit["binary"], unit["test"])
    work.state["units"] = [unit for unit in units if unit["passes"]]
    total = sum(unit["s"] for unit in units)
    print(f"{len(units)} tests, {total:.1f} s; {sum(unit['s'] >= QUICK_S for unit in units)} of them slow", flush=True)


def batches(units, number, longest_s):
    """What is run for one mutant, in order: the quick tests of each binary together, then the slow ones one by one."""
    quick, slow = collections.defaultdict(list), []
    for unit in units:
        if (number is None or number in unit["reached"]) and unit["s"] <= longest_s:
            if unit["s"] < QUICK_S and unit["test"]:
                quick[unit["binary"]].append(unit)
            else:
                slow.append([unit])
    return sorted(list(quick.values()) + slow, key=lambda batch: sum(unit["s"] for unit in batch))


def verdict(work, programs, number, env):
    """Outcome of one mutant, and what decided it."""
    for batch in batches(work.state["units"], number, work.longest_s):
        tests = [unit["test"] for unit in batch if unit["test"]]
        binary = batch[0]["binary"]
        limit_s = 20 + 10 * sum(unit["s"] for unit in batch)
        code, out = execute(work, programs[binary], ["--exact", *tests] if tests else [], limit_s, **env)
        if code is None:
            return "timeout", f"{binary}::{tests[0] if len(tests) == 1 else '*'}"
        if code != 0:
            failed = re.findall(r"^test (\S+)(?: - should panic)? \.\.\. FAILED", out, re.M)
            return "caught", f"{binary}::{failed[0] if failed else '*'}"
    return "missed", None


def run(work, missed_only, pattern):
    units = work.state["units"]
    reachable = {number for unit in units for number in unit["reached"]}
    wanted = []
    for name, mutant in work.mutants.items():
        again = mutant.get("outcome") == "missed" if missed_only else "outcome" not in mutant
        if not mutant["alone"] and again and re.search(pattern, name):
            wanted.append(name)
    print(f"{len(wanted)} mutants, {sum(work.mutants[n]['number'] not in reachable for n in wanted)} of them unreached")
    left, begun = [len(wanted)], time.monotonic()

    def one(name):
        mutant = work.mutants[name]
        outcome, by = verdict(work, work.state["programs"], mutant["number"], {"MUTANT": str(mutant["number"])})
        with work.lock:
            mutant["outcome"], mutant["by"] = outcome, by
            mutant["reached"] = mutant["number"] in reachable
            left[0] -= 1
            if outcome == "missed":
                print(f"missed {mutant['at']}", flush=True)
            if left[0] % 20 == 0:
                print(f"-- {left[0]} left, {time.monotonic() - begun:.0f} s", flush=True)
                work.save()

    with concurrent.futures.ThreadPoolExecutor(work.jobs) as pool:
        list(pool.map(one, wanted))
    work.save()


def alone(work, pattern, check):
    """Mutants that no switch can express: compiled one by one, the way cargo-mutants does."""
    mutants = listed(work)
    work.copy = work.root / "alone"
    copy_tree(work)
    for name, mutant in work.mutants.items():
        if not mutant["alone"] or "outcome" in mutant or not re.search(pattern, name):
            continue
        spec = mutants[name]
        file = work.copy / spec["file"]
        source = (REPOSITORY / spec["file"]).read_text()
        lines = source.splitlines(keepends=True)
        place = lambda p: sum(map(len, lines[: p["line"] - 1])) + p["column"] - 1
        start, end = place(spec["span"]["start"]), place(spec["span"]["end"])
        file.write_text(source[:start] + spec["replacement"] + source[end:])
        if work.cargo("check", "--lib")[0].returncode:
            mutant["outcome"], mutant["by"] = "unviable", None
        elif not check:
            result, messages = work.cargo("test", "--no-run", "--tests", "--lib")
            programs = {
                m["target"]["name"]: m["executable"]
                for m in messages if m["reason"] == "compiler-artifact" and m.get("executable")
            }
            mutant["outcome"], mutant["by"] = verdict(work, programs, None, {}) if result.returncode == 0 else ("unviable", None)
        file.write_text(source)
        print(mutant.get("outcome", "compiles"), mutant["at"], flush=True)
        work.save()


def monitors(work, pattern):
    """The campaign under every mutant that it reaches: which monitors see it?"""
    reached = {n for unit in work.state["units"] if unit["binary"] == "campaign" for n in unit["reached"]}
    program = work.state["programs"]["campaign(example)"]
    wanted = [m for n, m in work.mutants.items() if m["number"] in reached and "monitors" not in m and re.search(pattern, n)]
    left = [len(wanted)]

    def one(mutant):
        arguments = ["--runs", str(CAMPAIGN_RUNS)]
        code, out = execute(work, program, arguments, 180, MUTANT=str(mutant["number"]))
        rows = re.findall(r"^\| (\d+) \| .* \| (\d+) \| (\d+) \|$", out, re.M)
        with work.lock:
            mutant["monitors"] = [int(number) for number, _, violations in rows if violations != "0"]
            left[0] -= 1
            if left[0] % 20 == 0:
                print(f"-- {left[0]} left", flush=True)
                work.save()

    with concurrent.futures.ThreadPoolExecutor(work.jobs) as pool:
        list(pool.map(one, wanted))
    work.save()


def report(work):
    count = collections.Counter(mutant.get("outcome", "not tried") for mutant in work.mutants.values())
    caught = count["caught"] + count["timeout"]
    tried = caught + count["missed"]
    print("| outcome | mutants |\n|---|---|")
    for outcome in ("caught", "timeout", "missed", "unviable", "not tried"):
        print(f"| {outcome} | {count[outcome]} |")
    print(f"| **share caught** | **{caught} of {tried}, {100 * caught / max(tried, 1):.1f} %** |")
    print("\n## Missed")
    for mutant in sorted(m["at"] for m in work.mutants.values() if m.get("outcome") == "missed"):
        print(f"* `{mutant}`")
    seen = collections.defaultdict(list)
    for mutant in work.mutants.values():
        for number in mutant.get("monitors", []):
            seen[number].append(mutant["at"])
    if seen:
        print("\n## Monitors\n\n| monitor | mutants seen | for example |\n|---|---|---|")
        for number, mutants in sorted(seen.items()):
            print(f"| {number} | {len(mutants)} | `{mutants[0]}` |")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--package", default="ganglion-guard")
    parser.add_argument("--work", type=pathlib.Path, default=REPOSITORY / "target" / "mutants")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--only", default="", help="a regular expression over the mutants' names")
    parser.add_argument("--longest", type=float, default=float("inf"), help="leave out tests that take longer, in s")
    parser.add_argument("--missed", action="store_true", help="run: those again that were missed")
    parser.add_argument("--check", action="store_true", help="alone: compile only")
    parser.add_argument("--fresh", action="store_true", help="build: forget what was found before")
    parser.add_argument("what", choices=["build", "run", "alone", "monitors", "report"])
    options = parser.parse_args()
    options.work = options.work.resolve()
    work = Work(options)
    if options.what == "build":
        build(work, options.fresh)
    elif options.what == "run":
        run(work, options.missed, options.only)
    elif options.what == "alone":
        alone(work, options.only, options.check)
    elif options.what == "monitors":
        monitors(work, options.only)
    else:
        report(work)


if __name__ == "__main__":
    main()
