"""folder → diagnosis     what a data folder holds, which protocol it is and what is wrong with it.

    census       every list of a data set read to its end, whatever is wrong in it: who is named where, how often.
    prints       what is kept of a clip or picture so that copies of it are found among 100,000 others.
    inventory    every clip folder, video and picture below a folder looked at once: how many, large and whole.
    findings     what the doctor can find, how bad each finding is, what to do about it, and how it is printed.
    leaks        what a fold trains on and tests on: clips and people in both, in several test folds, in none.
    copies       which clips and pictures show the same frames, and whether a split or a person parts them.
    said         the words with which a reader and a training read what the doctor looked at.
    diagnosis    what a data folder holds, which published protocol it is, and what is wrong with it.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
