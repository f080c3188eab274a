"""What the programs of this folder share: calls of other programs, and a folder to work in."""
import contextlib
import pathlib
import subprocess
import tempfile


def run(*command):
    """Standard output of a program; the whole run ends if it fails."""
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{' '.join(map(str, command))} ended with {done.returncode}:\n{done.stdout[-1000:]}{done.stderr[-2000:]}")
    return done.stdout


@contextlib.contextmanager
def workplace(keep):
    """The folder `keep`, made if need be; without one a folder that goes again."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = keep or pathlib.Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        yield folder
