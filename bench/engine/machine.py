"""The machine and the programs' versions, as every benchmark writes them down."""

import datetime
import os
import pathlib
import platform
import subprocess

REPOSITORY = pathlib.Path(__file__).resolve().parents[2]


def first_line(command):
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()[0].strip()
    except (OSError, subprocess.CalledProcessError, IndexError):
        return "unknown"


def environment(ganglion):
    """What the figures depend on; `ganglion` is what the program says of its version."""
    lines = pathlib.Path("/proc/cpuinfo").read_text().splitlines()
    field = lambda name: next((line.split(":")[1].strip() for line in lines if line.startswith(name)), "unknown")
    flags = set(field("flags").split())
    sets = [name for name in ("avx2", "avx_vnni", "avx512f", "avx512_vnni", "avx512_bf16", "amx_int8") if name in flags]
    pages = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    load = pathlib.Path("/proc/loadavg").read_text().split()[:3]
    return {
        "date": datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%d %H:%M UTC"),
        "processor": f"{field('model name')} (family {field('cpu family')}, model {field('model')}), {os.cpu_count()} CPUs",
        "instruction sets": ", ".join(sets),
        "caches": ", ".join(caches()),
        "memory": f"{pages / 2**30:.1f} GiB",
        "kernel": f"{platform.system()} {platform.release()} {platform.machine()}",
        "load average at start": " ".join(load),
        "ganglion": f"{ganglion}, {first_line(['git', '-C', str(REPOSITORY), 'describe', '--always', '--dirty'])}",
        "C compiler": first_line(["cc", "--version"]),
        "Python": platform.python_version(),
    }


def caches():
    for index in sorted(pathlib.Path("/sys/devices/system/cpu/cpu0/cache").glob("index*")):
        read = lambda name: (index / name).read_text().strip()
        if read("type") != "Instruction":
            yield f"L{read('level')} {read('size')}"
