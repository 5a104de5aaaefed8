"""dials → picture     the explorers of the book: one question each, alive in JupyterLab and on a page without a kernel.

    from widgets import MaskExplorer

    MaskExplorer(ratio=0.9)

A class, its twin `draw_*` and what is recorded for it stand in one file of the same name; its front end is in `front/`.
`python -m widgets` writes the complete .mjs files, which JupyterLab and the site both read.
"""

from importlib import import_module

EXPLORERS = {
    "FaceExplorer": "face_explorer",
    "ClipExplorer": "clip_explorer",
    "MaskExplorer": "mask_explorer",
    "ReconstructionExplorer": "reconstruction_explorer",
    "AttentionExplorer": "attention_explorer",
    "TransferExplorer": "transfer_explorer",
    "RouterExplorer": "router_explorer",
    "LandmarkExplorer": "landmark_explorer",
    "ProtocolExplorer": "protocol_explorer",
    "PredictionExplorer": "prediction_explorer",
}

__all__ = ["EXPLORERS", *EXPLORERS]


def __getattr__(name: str):  # an explorer is imported when it is asked for: each needs other parts of the library
    if name not in EXPLORERS:
        raise AttributeError(f"widgets has no {name!r}; it has {', '.join(EXPLORERS)}")
    return getattr(import_module(f"widgets.{EXPLORERS[name]}"), name)
