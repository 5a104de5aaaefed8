"""answers → numbers     scores, intervals and what a family of comparisons decides.

    scores         WAR, UAR, per-class recall, confusion, calibration, intervals over clips and over seeds.
    resampling     the bootstraps of the book: things, or whole groups of them, drawn with replacement.
    held_out       one WAR and one UAR of everything that was held out, over the people in it.
    contrasts      how far two methods differ, how sure that is, and what a family of such answers decides.
    effects        what each factor of the transfer laboratory does, where the sign turns, what goes with what.
    calibration    a temperature, and a confidence below which no answer is given.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
