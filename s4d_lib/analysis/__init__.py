"""model → reasons     why a network answers as it does: gradients, routes, use of time, what floors score.

    measuring       what every measurement of a trained classifier shares: still surroundings, one form of result.
    gradients       what each task asks of the shared weights, and whether two tasks ask for the same.
    interference    what shared optimiser state does to a task's step, and what a step of one task does to another.
    similarity      how alike two networks see the same samples: linear CKA, biased, debiased, in minibatches.
    temporal_use    does a video classifier use the order of frames: shuffled, reversed, one frame repeated.
    routing         which expert gets which token, by modality, class, place and time, each beside its floor.
    rerouting       what the answers of a trained model owe to its routing: silence, swap, fix or randomise it.
    prompt_maps     what every prompter of S2D looks at, what it writes, what the adapters add; and S2D without them.
    two_readings    clips read twice: frame by frame with a static head, and as clips with a dynamic one.
    correlation     how far what is said of single frames goes with what is said of the clip (SFER ↔ DFER).
    levels          per-class recalls of two tasks over many runs, correlated level by level.
    floors          what almost nothing scores: majority class, pixel ridge, random-encoder probe.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
