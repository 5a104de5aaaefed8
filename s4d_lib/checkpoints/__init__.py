"""published file → model     weights in any known layout become models of ours and go back, every key accounted for.

    names          the names of one tensor in each layout.
    layouts        the layouts in which S4D, S2D and their ancestors publish weights, both ways.
    allowance      what of a file would be lost: refused, or let go by name.
    stated         what a file says of its network, held against its tensors.
    encoders       pretrained encoders handed on, from files of ours and of others, with a report of every key.
    describe       the numbers of a network from tensors, statements and what a caller knows.
    port           the configuration with which `transformers` opens what we write.
    convert        published weights into models of ours and safetensors, and back into the published layout.
    s2d_weights    what S2D starts from: its own image stage, an image MAE, or the book's dual-modal encoder.
    loading        all models that this library saves, and `load_model`, which rebuilds whichever it is.
    photographs    the classifier that has seen photographs: fetched on request, kept as a file of ours.
    cards          a model that answers, and what its file says about how to ask and how far to trust it.
    export         a classifier or an encoder as .pt2 and ONNX, with a card.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
