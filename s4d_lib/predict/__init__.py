"""video → timeline     any video or picture to apparent expressions over time, and the reports about it.

    windows      a stream of frames as the model reads it: faces cut out, squared, a window at a time.
    timelines    what a model said about one file: windows, a smoothed timeline, answers.
    video        one call from any video or image to expression probabilities over time.
    reports      what was said of every file as a table, as CSV, as JSON and in a terminal.
    pages        one self-contained HTML file: what the model said about every file, over time.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
