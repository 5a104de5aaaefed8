"""Let `import torchvision` succeed where a CUDA-built torchvision sits beside a CPU build of torch.

Some package mirrors offer torch for the CPU but torchvision only for CUDA. Its compiled library then
cannot load, and the import stops at "operator torchvision::nms does not exist", taking timm with it.
ci/environment.sh copies this file into the virtual environment, with a one-line .pth that imports it,
only where that happens.

On the first import of torchvision the compiled library is tried once. If it loads, nothing is changed. If
not, the two operators whose absence stops the import are declared, without a kernel. Everything that is
written in Python then works (transforms.v2, timm, models, roi_align); `ops.nms` and torchvision's own
image codecs stay unavailable and say so when called. The book uses neither.
"""

import sys
from importlib.machinery import PathFinder

_SCHEMA = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
_declared = []  # a torch.library.Library forgets its operators when it is collected


def _compiled_library_loads(spec) -> bool:
    import ctypes
    from pathlib import Path

    for folder in spec.submodule_search_locations or ():
        for library in (*Path(folder).glob("_C*.so"), *Path(folder).glob("_C*.pyd")):
            try:
                ctypes.CDLL(str(library))
                return True
            except OSError:
                continue
    return False


class _BeforeTorchvision:
    """A finder that acts once, just before torchvision is imported, and never claims a module itself."""

    @staticmethod
    def find_spec(name, path=None, target=None):
        if name != "torchvision" or _BeforeTorchvision not in sys.meta_path:
            return None
        sys.meta_path.remove(_BeforeTorchvision)
        spec = PathFinder.find_spec(name)
        if spec is not None:
            import torch  # first: the compiled library needs torch's own libraries in the process

            if not _compiled_library_loads(spec):
                library = torch.library.Library("torchvision", "FRAGMENT")
                library.define("nms" + _SCHEMA)
                library.define("qnms" + _SCHEMA)
                _declared.append(library)
        return None


sys.meta_path.insert(0, _BeforeTorchvision)
