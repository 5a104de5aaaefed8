"""plan → record     the transfer laboratory and the book's studies: what is trained, how often, what records say.

    cells                the vocabulary of the transfer laboratory: which faces, which training, how long.
    laboratory           the transfer laboratory at work: hundreds of small runs, and floors beside them.
    grid                 the same cells over several seeds, each a resumable run, and what they say together.
    records              what hundreds of small runs said, kept in one record, and the typed way to read it back.
    reading              what a record of the transfer laboratory says: who gains, by how much, decided or not.
    studies              the book's first studies, each one command with its protocol in code: `s4d study few_labels`.
    transfer_studies     the transfer laboratory's studies, each one command: `s4d study transfer_screening`.
    s2d_studies          S2D in the laboratory: what prompts, start, freezing and SDL are worth, and S4D beside it.
    pretraining_arms     what pretraining on stills, on clips or on both is worth later: the study of chapter 06.
    routing_study        the MoAE inspector on trained runs: who routes where, and what the answers owe to it, by seed.
    measures             why a task gains or loses by another: gradients, Adam's state, features, use of time, over
                         cells.
    foretelling          does any measure of a joint run foretell whether the dynamic task gains?
    landmark_training    the small landmark network, trained on faces whose 68 points are exact because they were drawn.
    landmark_scores      how far found landmarks lie from true ones: by region and by turn of the head, beside floors.
    rerun                one run of a recorded study of the transfer laboratory, trained again and set beside its
                         record.
    catalogue            every recorded study of the book, for `s4d study`; a study is (tier, seeds, jobs) → record.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
