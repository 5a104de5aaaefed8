"""rows → ratios     how fast this library is beside others on the same machine in the same minutes.

    timing        who is faster and how sure that is: ways take turns, ratios of one turn, an exact interval.
    memory        what one way needs at most, in a fresh process or by the allocator of a GPU.
    baselines     what stands beside ours: the textbook and transformers, where they are at hand.
    networks      rows of the models: training steps and inference, and how far they are from the textbook.
    parts         parts of the models by themselves: the experts' layer over its dials, several looks at each clip.
    chores        rows of what surrounds a model: reading, detecting, predicting, importing, saving.
    rows          name → row, and which rows a word stands for.
    measuring     rows → record: every row measured once, kept at once, and left out when it is there already.
    tables        the rows of a benchmark as a table for a terminal or for a page.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
