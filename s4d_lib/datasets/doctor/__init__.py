"""folder → diagnosis     what a data folder holds, which protocol it is and what is wrong with it.

    census       every list of a data set read to its end, whatever is wrong in it: who is named where, how often.
    inventory    every clip folder, video and picture below a folder looked at once: how many, large and whole.
    findings     what the doctor can find, how bad each finding is, what to do about it, and how it is printed.
    said         the words with which a reader and a training read what the doctor looked at.
    diagnosis    what a data folder holds, which published protocol it is, and what is wrong with it.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
