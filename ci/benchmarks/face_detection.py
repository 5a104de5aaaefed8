"""How well and how fast the default detector finds drawn faces, where the truth is known, and one photograph.

    python ci/benchmarks/face_detection.py [faces] [out.json]

Draws `faces` stills (default 200) of the default recipe, and of one that turns, shifts and shades further, at each
size. The error is the distance of both eye centres from the truth, as a share of the distance between the eyes, mean of
the two; of the faces that were found. Writes the record `chapters/results/face_detection.json`. One thread.
"""

import sys
import time
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import torch

from s4d_lib.crops.detectors import open_detector
from s4d_lib.files import RESULTS
from s4d_lib.records import Record, code_state, device_state, peak_memory_mb, write_record
from s4d_lib.synthetic_faces.drawing import iter_stills
from s4d_lib.synthetic_faces.people import View
from s4d_lib.synthetic_faces.recipes import RECIPES, FaceRecipe

SIZES, SEED = (64, 128, 160, 224), 77  # other faces than those the settings of the detector were chosen on
NO_FACE = ("brick", "chelsea", "clock", "coffee", "coins", "grass", "gravel", "horse", "hubble_deep_field",
           "immunohistochemistry", "logo", "moon", "page", "rocket", "text")  # of scikit-image, in its wheel


def main() -> None:
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 200
    out = Path(sys.argv[2]) if len(sys.argv) > 2 else RESULTS / "face_detection.json"
    torch.set_num_threads(1)
    started, detector, default = time.perf_counter(), open_detector("mtcnn"), RECIPES["default"]
    recipes = {"default": default, "wide": replace(default, still=replace(default.still, view=View()))}
    measured = {f"{name}_{size}": measure(detector, replace(recipe, size=size), count)
                for name, recipe in recipes.items() for size in SIZES}
    photo, alarms = photograph(detector), false_alarms(detector)
    one = measured["default_224"]
    headline = (f"{detector.name}: {one['rate']:.1%} of {count} drawn faces of 224 px found, eyes off by "
                f"{one['error_median']:.1%} of their distance (90 % within {one['error_p90']:.1%}); the astronaut "
                f"{'found' if photo['found'] else 'missed'}; {alarms} false alarms in {len(NO_FACE)} pictures "
                "without a face")
    record = Record(
        name="face_detection", kind="benchmark", headline=headline, seeds=[SEED],
        config={"detector": detector.name, "faces": count, "sizes": list(SIZES), "wide": asdict(View())},
        protocol={"error": "mean distance of both eye centres from the truth / distance between the eyes, found faces",
                  "found": f"a face with score {detector.sure} or more, with which a track may start", "threads": 1},
        results={"drawn": measured, "astronaut": photo, "without_a_face": len(NO_FACE), "false_alarms": alarms},
        code=code_state(), device=device_state(),
        wall_seconds=time.perf_counter() - started, peak_memory_mb=peak_memory_mb())
    print(f"{write_record(out, record).name}: {headline}")


def measure(detector, recipe: FaceRecipe, count: int) -> dict[str, float | int]:
    """Rate, errors and time on `count` stills of a recipe."""
    errors, bias, several, spent = [], [], 0, 0.0
    for stills in iter_stills(recipe, count, SEED):
        truth = torch.stack([stills.landmarks[:, 36:42].mean(1), stills.landmarks[:, 42:48].mean(1)], 1)
        apart = (truth[:, 0] - truth[:, 1]).norm(dim=-1)
        before = time.process_time()
        found = detector(stills.frames)
        spent += time.process_time() - before
        for eyes, scale, faces in zip(truth, apart, found):
            several += len(faces.scores) > 1
            if len(faces.scores) and float(faces.scores[0]) >= detector.sure:
                off = (faces.landmarks[0, :2] - eyes) / scale
                errors.append(float(off.norm(dim=-1).mean()))
                bias.append(off.mean(0).tolist())
    right, down = np.mean(bias, axis=0)
    result = {"rate": len(errors) / count, "error_median": np.median(errors), "error_p90": np.quantile(errors, 0.9),
              "bias_right": right, "bias_down": down, "ms_per_frame": spent / count * 1e3}
    return {name: round(float(value), 4) for name, value in result.items()} | {"more_than_one": several}


def false_alarms(detector) -> int:
    """Pictures without a face in which one is found, at whatever score."""
    from skimage import data

    alarms = 0
    for name in NO_FACE:
        picture = np.asarray(getattr(data, name)())
        picture = picture.astype(np.uint8) * 255 if picture.dtype == bool else picture
        picture = picture[..., :3] if picture.ndim == 3 else np.stack([picture] * 3, -1)
        alarms += len(detector(torch.from_numpy(np.ascontiguousarray(picture))[None])[0].scores) > 0
    return alarms


def photograph(detector) -> dict[str, object]:
    """The astronaut of scikit-image (NASA, public domain), 512 px, and enlarged to 4K."""
    from skimage.data import astronaut

    photo = torch.from_numpy(astronaut())[None]
    faces = detector(photo)[0]
    times = []
    for frames in (photo, photo.repeat_interleave(8, 1).repeat_interleave(8, 2)[:, :2160, :3840].contiguous()):
        detector(frames)
        before = time.process_time()
        detector(frames)
        times.append(round((time.process_time() - before) * 1e3, 1))
    eyes = [[round(value, 1) for value in eye] for eye in faces.landmarks[:1, :2].flatten(0, 1).tolist()] or None
    return {"found": len(faces.scores) == 1, "score": round(float(faces.scores.max()), 4) if eyes else None,
            "eyes": eyes, "ms_512x512": times[0], "ms_3840x2160": times[1]}


if __name__ == "__main__":
    main()
