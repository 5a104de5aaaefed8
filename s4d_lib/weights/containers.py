"""file → tensors     any checkpoint file, opened without running anything that it holds.

Released weights travel as safetensors or as pickles inside a zip. A pickle is a small program, and opening it runs
that program. Here PyTorch's weights-only reader opens it: it knows tensors, numbers and dictionaries and nothing
else. Checkpoints of training scripts also name classes (an argparse.Namespace, the configuration of a framework).
Every such name is answered with an inert `Placeholder`, so the file opens and still none of its code runs. A file
that names something with which programs are started is refused.
"""

import pickletools
import re
import zipfile
import zlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from pickle import UnpicklingError
from typing import Any, BinaryIO

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from s4d_lib.weights.contents import BadCheckpoint, Contents
from s4d_lib.weights.shards import INDEX, read_folder, refuse_a_single_shard, stated_config

# Where training scripts keep the weights, in the order in which we look.
CONTAINERS = ("model", "module", "state_dict", "model_state_dict", "net", "model_ema", "ema")
HARMLESS_BUILTINS = {"dict", "list", "tuple", "int", "float", "str", "bytes", "bool", "set", "frozenset", "complex",
                     "bytearray", "slice", "range", "object"}
PYTHON_2 = {"__builtin__.long": "builtins.int", "__builtin__.unicode": "builtins.str",
            "__builtin__.xrange": "builtins.range"}  # PyTorch still writes some types under these names
# No checkpoint needs these. Nothing would run here, but whoever opens the file elsewhere should be warned.
STARTS_PROGRAMS = {"os", "posix", "nt", "sys", "subprocess", "shutil", "socket", "importlib", "runpy", "pickle",
                   "_pickle", "ctypes", "code", "pty", "webbrowser", "multiprocessing", "asyncio", "operator",
                   "builtins", "pip", "commands", "pdb", "timeit", "types", "marshal"}
FIRST_PICKLES = 4  # a file written before PyTorch 1.6 is: magic number, protocol, platform, object


class Placeholder:
    """Stands for any class that a checkpoint names: it keeps plain attributes and can do nothing."""

    def __new__(cls, *_: object, **__: object) -> "Placeholder":
        return super().__new__(cls)

    def __init__(self, *_: object, **__: object) -> None:
        pass

    def __setstate__(self, state: object) -> None:
        if isinstance(state, dict):
            self.__dict__.update(state)


def read_contents(path: str | Path, container: str | None = None) -> Contents:
    """Read every tensor of a checkpoint on the CPU; `container` picks a dictionary of a PyTorch file by its key.

    `path` is a safetensors or PyTorch file, a folder that holds one, or a folder of shards with their index
    (`weights/shards.py`). Raises FileNotFoundError, or BadCheckpoint for whatever is not a readable checkpoint: a
    truncated or damaged file, a Git LFS pointer, a saved web page, a TorchScript program, a pickle that asks for other
    programs, a file without tensors, one shard of several, a tensor that is not finite or not plain numbers.
    """
    path = Path(path)
    if path.is_dir() or path.name.endswith(INDEX):
        return read_folder(path, lambda file: read_file(file, container))
    refuse_a_single_shard(path)
    contents = read_file(path, container)
    return replace(contents, config=stated_config(path))


def read_file(path: Path, container: str | None = None) -> Contents:
    """Read every tensor of one file, whatever lies beside it."""
    if not path.is_file():
        raise FileNotFoundError(f"{path}: there is no such checkpoint file; check the path or train it first")
    with path.open("rb") as file:
        start = file.read(512)
    if _is_pickled(start):
        contents = _read_pickle(path, container)
    else:
        contents = _read_safetensors(path)
    _check_numbers(path, contents.tensors)
    return replace(contents, files=(path,))


def _read_safetensors(path: Path) -> Contents:
    with open_safetensors(path) as file:
        try:
            return Contents(path, {key: file.get_tensor(key) for key in file.keys()}, file.metadata() or {})
        except (SafetensorError, RuntimeError, TypeError, ValueError, LookupError, AttributeError) as error:
            raise BadCheckpoint(path, f"one of its tensors cannot be read ({_first_sentence(error)})",
                                "save it again as float32, float16 or bfloat16") from error


def open_safetensors(path: Path) -> safe_open:
    """Open a safetensors file lazily; BadCheckpoint says what another file really is."""
    if not path.is_file():
        raise FileNotFoundError(f"{path}: there is no such checkpoint file; check the path or train it first")
    try:
        return safe_open(path, framework="pt")
    except SafetensorError as error:
        raise BadCheckpoint(path, *_diagnose(path, error)) from error


def _is_pickled(start: bytes) -> bool:
    # A safetensors file opens with the length of its header, whose first byte can be that of a pickle too.
    return start.startswith(b"PK\x03\x04") or (start[:1] == b"\x80" and start[8:9] != b"{")


def _read_pickle(path: Path, container: str | None) -> Contents:
    names = set(_pickled_names(path))
    hostile = sorted(name for name in names if _starts_programs(name))
    if hostile:
        raise BadCheckpoint(path, f"its pickle asks to call {', '.join(hostile)} when opened, which no checkpoint "
                            "needs; nothing of it was run", "do not open it anywhere and fetch the weights anew")
    try:  # a stand-in for a name that PyTorch knows itself is never asked for
        with torch.serialization.safe_globals([(_stand_in(name), name) for name in names]):
            loaded = torch.load(path, map_location="cpu", weights_only=True)
    except (UnpicklingError, RuntimeError, EOFError, LookupError, ValueError, TypeError, AttributeError,
            AssertionError, OSError, OverflowError, NotImplementedError, RecursionError) as error:
        # Whatever breaks inside the reader, the cause is one of two: bytes are missing or wrong, or the file
        # holds more than weights in a form that a reader of weights does not know.
        raise BadCheckpoint(path, f"it is a damaged or unusual PyTorch file ({_first_sentence(error)})",
                            "download it again, or save its state_dict alone with torch.save") from error
    return _unpack(path, loaded, container)


def _pickled_names(path: Path) -> Iterator[str]:
    """Every class and function that a PyTorch file names, by reading its opcodes; none of them is carried out."""
    try:
        with path.open("rb") as file:
            if file.read(1) == b"\x80":
                file.seek(0)
                for _ in range(FIRST_PICKLES):
                    yield from _names_of_one_pickle(path, file)
                return
        with zipfile.ZipFile(path) as archive:
            members = archive.namelist()
            pickles = [name for name in members if name.endswith("/data.pkl") or name == "data.pkl"]
            if any(name.endswith("/constants.pkl") for name in members):
                raise BadCheckpoint(path, "it is a TorchScript program and no checkpoint",
                                    "ask for the state_dict that it was made from")
            if len(pickles) != 1:
                raise BadCheckpoint(path, f"it is a zip archive without weights in it (first {members[:1]})",
                                    "unpack it and give the file inside")
            if damaged := archive.testzip():  # PyTorch itself does not compare checksums
                raise BadCheckpoint(path, f"its part {damaged} fails its checksum", "download it again")
            with archive.open(pickles[0]) as file:
                yield from _names_of_one_pickle(path, file)
    except (ValueError, EOFError, zipfile.BadZipFile, LookupError, NotImplementedError, OSError, zlib.error,
            RuntimeError) as error:
        if isinstance(error, BadCheckpoint):
            raise
        raise BadCheckpoint(path, f"it is a damaged or truncated PyTorch file ({path.stat().st_size} bytes; "
                            f"{_first_sentence(error)})", "download it again") from error


def _names_of_one_pickle(path: Path, file: BinaryIO) -> Iterator[str]:
    for opcode, argument, _ in pickletools.genops(file):
        if opcode.name in ("GLOBAL", "INST"):
            name = argument.replace(" ", ".")
            yield PYTHON_2.get(name, name.replace("__builtin__.", "builtins."))
        elif opcode.name in ("STACK_GLOBAL", "EXT1", "EXT2", "EXT4"):
            raise BadCheckpoint(path, "it was pickled with a protocol above 2, which PyTorch's weights-only reader "
                                "does not read", "save it again with torch.save's own protocol")


def _starts_programs(name: str) -> bool:
    module, _, attribute = name.rpartition(".")
    harmless = module == "builtins" and attribute in HARMLESS_BUILTINS
    return module.partition(".")[0] in STARTS_PROGRAMS and not harmless


def _stand_in(name: str) -> object:
    # A defaultdict is filled item by item, which a placeholder would not take.
    return _plain_dictionary if name == "collections.defaultdict" else Placeholder


def _plain_dictionary(*_: object) -> dict:
    return {}


def _unpack(path: Path, loaded: object, container: str | None) -> Contents:
    """Walk into the dictionaries of a training script until one holds tensors."""
    trail, outer, level, seen = [], {}, loaded, set()
    while True:
        if id(level) in seen:
            raise BadCheckpoint(path, f"its dictionary {'.'.join(trail)!r} holds itself, and no tensors",
                                "save the model's state_dict")
        seen.add(id(level))
        if not isinstance(level, Mapping):
            where = f" under {'.'.join(trail)!r}" if trail else ""
            what = "a whole pickled object" if isinstance(level, Placeholder) else f"a {type(level).__name__}"
            raise BadCheckpoint(path, f"it holds {what}{where} and no dictionary of tensors",
                                "save the model's state_dict")
        if len(trail) == 0:
            outer = level
        if container is None and any(isinstance(value, Tensor) for value in level.values()):
            break
        inner = container or next((key for key in CONTAINERS if isinstance(level.get(key), Mapping)), None)
        if inner is None or inner not in level:
            keys = ", ".join(map(str, list(level)[:8])) or "nothing"
            wanted = f"no {container!r}" if container else "no tensors"
            raise BadCheckpoint(path, f"it holds {wanted}, but {keys}",
                                "name the dictionary with --container, or save the model's state_dict")
        trail, level, container = [*trail, inner], level[inner], None
    tensors = {str(key): value.detach() for key, value in level.items() if isinstance(value, Tensor)}
    beside = {".".join([*trail, str(key)]): value for key, value in level.items() if not isinstance(value, Tensor)}
    if level is not outer:
        beside |= {str(key): value for key, value in outer.items() if key != trail[0]}
    skipped = {key: _what(value) for key, value in beside.items()}
    return Contents(path, tensors, {}, tuple(trail), _settings(outer), skipped)


def _what(value: object) -> str:
    if isinstance(value, Mapping):
        return f"dictionary of {len(value)}"
    if isinstance(value, Placeholder):
        return "an object of the training script, kept out"
    return "empty" if value is None else type(value).__name__


def _settings(outer: Mapping) -> dict[str, Any]:
    """Plain numbers, words and flags of the script's `args`, whatever class they were kept in."""
    args = outer.get("args")
    values = args if isinstance(args, Mapping) else vars(args) if isinstance(args, Placeholder) else {}
    return {str(key): value for key, value in values.items() if isinstance(value, (bool, int, float, str))}


PLAIN = {torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.int64, torch.int32, torch.int16, torch.int8,
         torch.uint8, torch.bool}


def _check_numbers(path: Path, tensors: dict[str, Tensor]) -> None:
    """Refuse tensors that are not plain, finite numbers, or more of them than the file has room for."""
    room = path.stat().st_size
    for key, tensor in tensors.items():
        if tensor.is_nested or tensor.layout != torch.strided or tensor.is_meta or tensor.dtype not in PLAIN:
            kind = "nested" if tensor.is_nested else "without its numbers (meta)" if tensor.is_meta else (
                str(tensor.dtype if tensor.layout == torch.strided else tensor.layout).removeprefix("torch."))
            raise BadCheckpoint(path, f"{key} is {kind}, and weights here are plain real numbers",
                                "save it again as a dense float32 tensor, with its imaginary part or scale dealt with")
        if tensor.numel() * tensor.element_size() > room:  # one number, repeated by a stride of 0
            raise BadCheckpoint(path, f"{key} claims {tensor.numel():,} numbers, more than the file holds",
                                "save it again with .contiguous()")
        if tensor.is_floating_point() and not torch.isfinite(tensor).all():
            raise BadCheckpoint(path, f"{key} holds NaN or infinity", "use an earlier checkpoint of that training")


def _diagnose(path: Path, error: Exception) -> tuple[str, str]:
    """What a file that is not safetensors really is, and what to do about it."""
    with path.open("rb") as file:
        start = file.read(512)
    if not start:
        return "the file is empty", "download or write it again"
    if start.startswith(b"version https://git-lfs"):
        return "it is a Git LFS pointer and not the weights it points to", "run `git lfs pull`"
    if re.match(rb"(\xef\xbb\xbf)?\s*(<!--.*?-->\s*)?<(!doctype|html|\?xml|head)", start, re.IGNORECASE | re.DOTALL):
        return "it is a web page saved as a checkpoint", "download the file itself, logged in if need be"
    if start.lstrip().startswith((b"{", b"[")):
        return "it is JSON text and no checkpoint", "download the file itself, logged in if need be"
    if start.startswith(b"\x93NUMPY"):
        return "it is a NumPy array and no checkpoint", "save named tensors with safetensors"
    if start.startswith((b"\x1f\x8b", b"BZh", b"\xfd7zXZ")) or start[257:262] == b"ustar":
        return "it is a packed archive", "unpack it and give the file inside"
    if _is_pickled(start):
        return "it is a pickled PyTorch file, which can run code when opened", "convert it with `s4d convert`"
    size = path.stat().st_size
    return f"it is not a complete safetensors file ({size} bytes; {error})", "download or write it again"


def _first_sentence(error: Exception) -> str:
    # PyTorch's own advice at this point is to open the file unsafely; it is left out.
    lines = [line for line in str(error).split("Check the documentation")[0].splitlines() if line.strip()]
    text = next((line for line in lines if "WeightsUnpickler error" in line), lines[0] if lines else "")
    return text.replace("WeightsUnpickler error:", "").strip().rstrip(".;:")[:160] or type(error).__name__


def describe_keys(keys: Iterable[str]) -> str:
    """The first few keys of a file, for an error message."""
    listed = list(keys)
    more = f" and {len(listed) - 4} more" if len(listed) > 4 else ""
    return ", ".join(listed[:4]) + more
